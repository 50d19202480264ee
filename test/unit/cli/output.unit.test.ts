/** Forms of output that the recorded command lines do not reach. */
import { describe, expect, test, vi } from 'vitest'
import { SignetError } from '../../../src/base/error.ts'
import { agentHealthcheck } from '../../../src/cli/agent/healthcheck.ts'
import {
  CliError,
  codeName,
  explain,
  messageOf,
  nextStep,
  withShownPath,
} from '../../../src/cli/error.ts'
import { localTime, rfc3339, utcTime } from '../../../src/cli/output/go-text.ts'
import { answer, goJsonLine, protoJsonLine } from '../../../src/cli/output/proto-json.ts'
import { SpiffeWorkloadAPIService } from '../../../src/wire/gen/workload.ts'
import { memoryEnv } from '../../rigs/cli-env.ts'

test('JSON escapes what Go escapes for HTML', () => {
  expect(goJsonLine({ b: '<a&b>\u2028', a: 1 })).toBe(
    '{"b":"\\u003ca\\u0026b\\u003e\\u2028","a":1}\n',
  )
})

test('nulls are removed at any depth and keys sorted', () => {
  const method = SpiffeWorkloadAPIService.validateJwtsvid
  const claims = { z: null, list: [null, { n: null, b: 1, a: [null] }], exp: 1e21 }
  expect(protoJsonLine([answer(method, { spiffeId: 'x', claims })])).toBe(
    '{"claims":{"exp":1e+21,"list":[{"a":[],"b":1}]},"spiffe_id":"x"}\n',
  )
})

test('several answers are an array', () => {
  const method = SpiffeWorkloadAPIService.fetchJwtBundles
  const one = answer(method, { bundles: { td: new Uint8Array([1, 2]) } })
  expect(protoJsonLine([one, one])).toBe('[{"bundles":{"td":"AQI="}},{"bundles":{"td":"AQI="}}]\n')
})

describe('moments', () => {
  test('in UTC', () => {
    expect(utcTime(1_800_000_000)).toBe('2027-01-15 08:00:00 +0000 UTC')
    expect(rfc3339(0)).toBe('1970-01-01T00:00:00Z')
  })

  test.each([
    ['UTC', '2027-01-15 08:00:00 +0000 UTC'],
    ['Europe/Berlin', '2027-01-15 09:00:00 +0100 CET'],
    ['Asia/Kolkata', '2027-01-15 13:30:00 +0530'],
    ['America/Sao_Paulo', '2027-01-15 05:00:00 -0300'],
  ])('in the local zone %s', (zone, expected) => {
    vi.stubEnv('TZ', zone)
    try {
      expect(localTime(1_800_000_000).startsWith(expected)).toBe(true)
    } finally {
      vi.unstubAllEnvs()
    }
  })
})

describe('errors', () => {
  test('codes as Go names them', () => {
    expect([0, 1, 3, 5, 16, 99].map(codeName)).toEqual([
      'OK',
      'Canceled',
      'InvalidArgument',
      'NotFound',
      'Unauthenticated',
      'Code(99)',
    ])
  })

  test('a call says its code, a file its errno', () => {
    const rpc = new SignetError('not_found', 'x', 'no agent', { fields: { grpcCode: 5 } })
    expect(messageOf(rpc)).toBe('rpc error: code = NotFound desc = no agent')
    const file = Object.assign(new Error('ENOENT: …'), {
      code: 'ENOENT',
      syscall: 'open',
      path: '/x',
    })
    expect(messageOf(file)).toBe('open /x: no such file or directory')
    expect(messageOf(new CliError('plain'))).toBe('plain')
    expect(messageOf('text')).toBe('text')
  })

  test('what was tried stands in front', async () => {
    await expect(explain('trying', Promise.reject(new CliError('no')))).rejects.toThrow(
      'trying: no',
    )
  })

  const dialed = (address: string, words: string) =>
    new SignetError(
      'unavailable',
      'grpc_unavailable',
      `connection error: desc = "transport: Error while dialing: dial unix ${address}: connect: ${words}"`,
      { fields: { grpcCode: 14 } },
    )

  test('a socket that does not answer is shown as the command of SPIRE shows it', () => {
    const thrown = dialed('/s', 'connection refused')
    expect(withShownPath(thrown, '/s', '/s')).toBe(thrown)
    expect(messageOf(withShownPath(thrown, '/s', '///s'))).toBe(
      'rpc error: code = Unavailable desc = connection error: desc = "transport: Error while dialing: dial unix ///s: connect: connection refused"',
    )
  })

  test.each([
    ['no such file or directory', '-socketPath'],
    ['connection refused', '-socketPath'],
    ['permission denied', 'user'],
    ['is a directory', undefined],
  ])('%s has a next step', (words, part) => {
    const step = nextStep(dialed('/s', words), '/s')
    if (part === undefined) expect(step).toBeUndefined()
    else expect(step).toMatch(new RegExp(`^/s: .*${part}`))
  })

  test('the next step is for a terminal, and no part of the output', async () => {
    const env = memoryEnv({ workingDir: '/' })
    expect(await agentHealthcheck.run(['-socketPath', '/nowhere/s'], env)).toBe(1)
    expect(env.stderr()).toBe('Agent is unhealthy: unable to determine health\n')
    expect(env.hinted()).toMatch(/^\/nowhere\/s: nothing listens there/)
  })

  test('other failures keep their words and suggest nothing', () => {
    const thrown = new SignetError('unavailable', 'x', 'shutting down')
    expect(withShownPath(thrown, '/s', '//s')).toBe(thrown)
    expect(withShownPath('x', '/s', '//s')).toBe('x')
    expect(nextStep(thrown, '/s')).toBeUndefined()
  })
})
