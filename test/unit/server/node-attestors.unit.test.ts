/** The node attestors of a server, configured and configured again. */
import { expect, test } from 'vitest'
import { type Reconfigurable, reconfigureAll } from '../../../src/base/config/reconfigure.ts'
import { createNodeAttestors } from '../../../src/server/node-attestors.ts'
import { TrustDomain } from '../../../src/spiffe/trust-domain.ts'
import { FakeClock } from '../../fakes/fake-clock.ts'
import { createMemoryLog } from '../../fakes/memory-log.ts'
import { createSeededRandom } from '../../fakes/seeded-random.ts'
import { memorySources } from '../../rigs/config-sources.ts'

function rig(files: Record<string, string>) {
  const log = createMemoryLog()
  const reconfigurables = new Set<Reconfigurable>()
  const create = (type: string, given: { dataFile?: string; cluster?: string }) =>
    createNodeAttestors([{ type, data: {}, dataFile: '', cluster: '', ...given }], {
      log,
      files: memorySources({ files }).files,
      reconfigurables,
      trustDomain: TrustDomain.parse('example.org'),
      clock: new FakeClock(),
      random: createSeededRandom(),
      joinTokens: { redeemJoinToken: async () => undefined },
      ownRoots: () => [],
    }).get(type)!
  return { log, create, signal: () => reconfigureAll(log, reconfigurables) }
}

test('SIGUSR1 gives x509pop what its plugin_data_file says now', async () => {
  const files = { f: 'mode = "spiffe" max_intermediates = 1' }
  const { log, create, signal } = rig(files)
  const attestor = create('x509pop', { dataFile: 'f' })
  const der = Buffer.from('AA==', 'base64').toString('base64')
  const payload = Buffer.from(JSON.stringify({ certificates: [der, der, der] }))
  const refusal = () =>
    attestor.attest({ payload, remoteIp: '', challenge: async () => payload }).then(
      () => 'none',
      (error: Error) => error.message,
    )
  expect(await refusal()).toBe('too many intermediate certificates')
  files.f = 'mode = "spiffe" max_intermediates = 2'
  signal()
  expect(await refusal()).toMatch(/^unable to parse leaf certificate/)
  files.f = 'mode = "spiffe" cluster = "control"'
  signal()
  expect(log.lines.at(-1)).toMatchObject({
    level: 'error',
    message: 'Failed to reconfigure plugin',
    fields: {
      plugin_name: 'x509pop',
      plugin_type: 'NodeAttestor',
      error: expect.objectContaining({ message: 'cluster "control" can hold no agents' }),
    },
  })
})

test.each([
  ['default', undefined],
  ['control', 'cluster "control" can hold no agents'],
  ['east', 'cluster "east" is not known'],
])('cluster %s', (cluster, refusal) => {
  const { create } = rig({})
  if (refusal === undefined) expect(create('join_token', { cluster }).type).toBe('join_token')
  else expect(() => create('join_token', { cluster })).toThrow(refusal)
})
