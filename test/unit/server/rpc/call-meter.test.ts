import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { SignetError } from '../../../../src/base/error.ts'
import { createCallMeter, namesOf } from '../../../../src/server/rpc/call-meter.ts'
import { FakeClock } from '../../../fakes/fake-clock.ts'

test.each([
  ['/spire.api.server.agent.v1.Agent/AttestAgent', 'rpc.agent.v1.agent.attest_agent'],
  ['/spire.api.server.svid.v1.SVID/BatchNewX509SVID', 'rpc.svid.v1.svid.batch_new_x509svid'],
  ['/spire.api.server.svid.v1.SVID/NewJWTSVID', 'rpc.svid.v1.svid.new_jwtsvid'],
  ['/spire.api.server.svid.v1.SVID/NewDownstreamX509CA', 'rpc.svid.v1.svid.new_downstream_x509ca'],
  [
    '/spire.api.server.localauthority.v1.LocalAuthority/GetX509AuthorityState',
    'rpc.localauthority.v1.local_authority.get_x509_authority_state',
  ],
  ['/spire.api.server.logger.v1.Logger/GetLogger', 'rpc.logger.get_logger'],
  ['/grpc.health.v1.Health/Check', 'rpc.health.check'],
  ['/signet.sync.v1.Sync/Subscribe', 'rpc.signet.sync.v1.sync.subscribe'],
])('%s is counted as %s', (path, key) => {
  expect(namesOf(path).metricKey).toBe(key)
})

// Method: the rule in words, letter by letter, on every method there is.
test('words are split where SPIRE splits them', () => {
  const vectors = new URL('../../../vectors/wire/routes.tsv', import.meta.url)
  const paths = readFileSync(vectors, 'utf8').match(/^\/\S+/gm) ?? []
  expect(paths.length).toBeGreaterThan(60)
  for (const path of paths) {
    const method = path.split('/')[2]!
    expect(namesOf(path).metricKey.split('.').at(-1)).toBe(wordsOf(method))
  }
})

function wordsOf(name: string): string {
  const isSmall = (letter: string | undefined) => letter !== undefined && /[a-z]/.test(letter)
  let out = ''
  for (const [i, letter] of [...name].entries()) {
    const isCapital = /[A-Z]/.test(letter)
    const isNearSmall = isSmall(name[i + 1]) || isSmall(name[i - 1])
    if (isCapital && i > 0 && i + 1 < name.length && isNearSmall) out += '_'
    out += letter.toLowerCase()
  }
  return out
}

describe('a call', () => {
  test.each([
    [undefined, 'OK'],
    [new SignetError('not_found', 'x', 'y'), 'NotFound'],
    [new SignetError('deadline_exceeded', 'x', 'y'), 'DeadlineExceeded'],
  ])('is counted with its status and time: %#', (error, status) => {
    const clock = new FakeClock()
    const seen: unknown[] = []
    const metrics = {
      counter: (...call: unknown[]) => void seen.push(call),
      gauge: () => {},
      sample: (...call: unknown[]) => void seen.push(call),
    }
    const done = createCallMeter({ clock, metrics }, namesOf('/grpc.health.v1.Health/Check'))()
    clock.advanceMs(12)
    done(error)
    expect(seen).toEqual([
      ['rpc.health.check', 1, { status }],
      ['rpc.health.check.elapsed_time', 12, { status }],
    ])
  })
})
