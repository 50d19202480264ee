/** Calls of the stores are counted, each under its key and with its status. */
import { expect, test } from 'vitest'
import { SignetError } from '../../../src/base/error.ts'
import { createMetrics } from '../../../src/base/metrics.ts'
import type { Datastore } from '../../../src/server/datastore/datastore.ts'
import { metered, meterStores } from '../../../src/server/metered-stores.ts'
import type { Bundle } from '../../../src/spiffe/bundle.ts'
import { createMemoryMetrics } from '../../fakes/memory-log.ts'
import {
  ACTOR,
  createTestClock,
  draft,
  id,
  NOW,
  openTestDatastore,
  TD,
} from '../../rigs/datastore.ts'
import { useDatabase } from '../../rigs/postgres.ts'
import { attestation } from './agent-store.contract.ts'

const database = useDatabase()
const ENTRY = 'datastore.registration_entry'
const NODE = 'datastore.node'
const TOK = 'datastore.join_token'
const BUNDLE = 'datastore.bundle'
const ALL = { size: 0, token: '' }
const NOBODY = id('/spire/agent/x509pop/none')
const TOKEN = { value: 't', expiresAt: NOW, clusterId: 2 }
const EMPTY = {
  trustDomain: 'x.org',
  x509Authorities: [],
  jwtAuthorities: [],
  refreshHintSeconds: 0,
  sequenceNumber: 0,
} as unknown as Bundle

function prometheus() {
  const metrics = createMetrics({
    serviceName: 'spire_server',
    trustDomain: TD,
    metricPrefix: '',
    enableTrustDomainLabel: false,
    enableHostnameLabel: false,
    allowedPrefixes: [],
    blockedPrefixes: [],
    allowedLabels: [],
    blockedLabels: [],
  })
  const count = async (key: string, status = 'OK') => {
    const name = `spire_server_${key.replaceAll('.', '_')}{status="${status}"} `
    const line = (await metrics.text()).split('\n').find((text) => text.startsWith(name))
    return line === undefined ? 0 : Number(line.slice(name.length))
  }
  return { metrics, count }
}

test('a call counts once, whatever its batch', async () => {
  const { metrics, count } = prometheus()
  await using datastore = await openTestDatastore({ poolConfig: { ...database.poolConfig } })
  const store = meterStores(datastore, { metrics, clock: createTestClock() })
  const drafts = [draft({ id: 'a' }), draft({ id: 'b', spiffeId: id('/b') })]
  await store.entries.createEntries(drafts, ACTOR)
  await store.entries.pruneEntries(NOW, ACTOR)
  await store.agents.getAgent(id('/spire/agent/x509pop/none'))
  await store.joinTokens.redeemJoinToken('none')
  await expect(store.bundles.updateBundle({ trustDomain: 'x.org' }, ACTOR)).rejects.toMatchObject({
    kind: 'not_found',
  })
  expect(await count('datastore.registration_entry.create')).toBe(1)
  expect(await count('datastore.registration_entry.prune')).toBe(1)
  expect(await count('registration_entry.manager.prune')).toBe(1)
  expect(await count('datastore.node.fetch')).toBe(1)
  expect(await count('datastore.join_token.delete')).toBe(1)
  expect(await count('datastore.bundle.update', 'NotFound')).toBe(1)
  expect(await count('datastore.bundle.update')).toBe(0)
})

/** Each method once, on a real datastore; what it answers is the contract tests' matter. */
test.each<[string, (store: Datastore) => Promise<unknown>, ...string[]]>([
  ['createEntries', ({ entries }) => entries.createEntries([draft()], ACTOR), `${ENTRY}.create`],
  ['updateEntries', ({ entries }) => entries.updateEntries([], ACTOR), `${ENTRY}.update`],
  ['deleteEntries', ({ entries }) => entries.deleteEntries(['none'], ACTOR), `${ENTRY}.delete`],
  ['getEntry', ({ entries }) => entries.getEntry('none'), `${ENTRY}.fetch`],
  ['listEntries', ({ entries }) => entries.listEntries({}, ALL), `${ENTRY}.list`],
  ['countEntries', ({ entries }) => entries.countEntries({}), `${ENTRY}.count`],
  [
    'pruneEntries',
    ({ entries }) => entries.pruneEntries(NOW, ACTOR),
    `${ENTRY}.prune`,
    'registration_entry.manager.prune',
  ],
  [
    'recordAttestation',
    ({ agents }) => agents.recordAttestation(attestation(), ACTOR),
    `${NODE}.create`,
  ],
  ['getAgent', ({ agents }) => agents.getAgent(NOBODY), `${NODE}.fetch`],
  ['listAgents', ({ agents }) => agents.listAgents({}, ALL), `${NODE}.list`],
  ['countAgents', ({ agents }) => agents.countAgents({}), `${NODE}.count`],
  ['setNewSerial', ({ agents }) => agents.setNewSerial(NOBODY, '1', NOW), `${NODE}.update`],
  ['promoteNewSerial', ({ agents }) => agents.promoteNewSerial(NOBODY, '1'), `${NODE}.update`],
  ['setAgentVersion', ({ agents }) => agents.setAgentVersion(NOBODY, '1'), `${NODE}.update`],
  ['banAgent', ({ agents }) => agents.banAgent(NOBODY, ACTOR), `${NODE}.update`],
  ['deleteAgent', ({ agents }) => agents.deleteAgent(NOBODY, ACTOR), `${NODE}.delete`],
  [
    'pruneAgents',
    ({ agents }) => agents.pruneAgents(NOW, { tofu: false, limit: 1 }, ACTOR),
    `${NODE}.prune`,
    'node.manager.prune',
  ],
  [
    'createJoinToken',
    (s) => s.joinTokens.createJoinToken(TOKEN, undefined, ACTOR),
    `${TOK}.create`,
  ],
  ['redeemJoinToken', ({ joinTokens }) => joinTokens.redeemJoinToken('none'), `${TOK}.delete`],
  ['pruneJoinTokens', ({ joinTokens }) => joinTokens.pruneJoinTokens(NOW), `${TOK}.prune`],
  ['getBundle', ({ bundles }) => bundles.getBundle('x.org'), `${BUNDLE}.fetch`],
  ['listBundles', ({ bundles }) => bundles.listBundles(ALL), `${BUNDLE}.list`],
  ['countBundles', ({ bundles }) => bundles.countBundles(), `${BUNDLE}.count`],
  ['appendBundle', ({ bundles }) => bundles.appendBundle(EMPTY, ACTOR), `${BUNDLE}.append`],
  ['createBundle', ({ bundles }) => bundles.createBundle(EMPTY, ACTOR), `${BUNDLE}.create`],
  ['updateBundle', ({ bundles }) => bundles.updateBundle(EMPTY, ACTOR), `${BUNDLE}.update`],
  ['setBundle', ({ bundles }) => bundles.setBundle(EMPTY, ACTOR), `${BUNDLE}.set`],
  ['deleteBundle', (s) => s.bundles.deleteBundle('x.org', 'restrict', ACTOR), `${BUNDLE}.delete`],
  [
    'pruneBundle',
    ({ bundles }) => bundles.pruneBundle('x.org', NOW, ACTOR),
    `${BUNDLE}.prune`,
    'ca.manager.bundle.prune',
  ],
])('%s counts under SPIRE’s key alone', async (_name, run, ...keys) => {
  await using datastore = await openTestDatastore({ poolConfig: { ...database.poolConfig } })
  const metrics = createMemoryMetrics()
  // Not found, there already: counted all the same, with that status.
  await run(meterStores(datastore, { metrics, clock: createTestClock() })).catch(() => {})
  expect(Object.fromEntries(metrics.counters)).toEqual(
    Object.fromEntries(keys.map((key) => [key, 1])),
  )
})

test('what a store throws passes through, also at once, and what is not counted stays', async () => {
  const { metrics, count } = prometheus()
  const thrown = new SignetError('unavailable', 'x', 'x', { retryAfterSeconds: 1 })
  const store = {
    later: async (n: number) => n + 1,
    now: (): Promise<void> => {
      throw thrown
    },
    other: () => 'same',
  }
  const port: Pick<typeof store, 'later' | 'now'> = store
  const keys: { readonly [Name in keyof typeof port]: readonly string[] } = {
    later: ['one', 'two'],
    now: ['three'],
  }
  const counted = metered(
    { metrics, clock: createTestClock() },
    keys,
    store as typeof store & typeof port,
  )
  expect(await counted.later(1)).toBe(2)
  await expect(counted.now()).rejects.toBe(thrown)
  expect(counted.other()).toBe('same')
  expect([await count('one'), await count('two')]).toEqual([1, 1])
  expect(await count('three', 'Unavailable')).toBe(1)
})
