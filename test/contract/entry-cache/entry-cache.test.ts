/** The caches on a real PostgreSQL: after each write and one read of the change log they agree. */
import { expect, test } from 'vitest'
import { createChangeFeed } from '../../../src/server/change-feed.ts'
import { createEntryCache } from '../../../src/server/entry-cache/entry-cache.ts'
import { sameEntry } from '../../../src/server/entry-cache/same-entry.ts'
import { createBundleCache } from '../../../src/server/sync/bundle-cache.ts'
import type { RegistrationEntry } from '../../../src/spiffe/registration-entry.ts'
import { TrustDomain } from '../../../src/spiffe/trust-domain.ts'
import { naiveAuthorized } from '../../property/entry-cache/naive-model.ts'
import { ACTOR, createTestClock, draft, id, NOW, TD } from '../../rigs/datastore.ts'
import { useEmptiedDatastore } from '../../rigs/emptied.ts'
import { silentLog } from '../../rigs/silent-log.ts'
import { makeBundle } from '../../rigs/sync-rig.ts'

const { empty } = useEmptiedDatastore()
const AGENT = id('/spire/agent/x509pop/one')
const OTHER = id('/spire/agent/x509pop/two')
const everything = { size: 0, token: '' }

async function start() {
  const store = await empty()
  const clock = createTestClock()
  const trustDomain = TrustDomain.parse(TD)
  const source = { ...store.entries, ...store.agents }
  const entries = createEntryCache({ trustDomain, clock, source })
  const bundles = createBundleCache({ trustDomain, source: store.bundles })
  const metrics = { counter: () => {}, gauge: () => {}, sample: () => {} }
  const parts = { changeLog: store.changeLog, clock, log: silentLog, metrics }
  const feed = createChangeFeed({ ...parts, consumers: [entries, bundles] })
  await feed.start()
  /** Both agents' entries, from the cache and from the tables. */
  const agree = async () => {
    await feed.step()
    const rows = (await store.entries.listEntries({}, everything)).rows
    const agents = (await store.agents.listAgents({}, everything)).rows
    const state = {
      trustDomain: TD,
      entries: new Map(rows.map((entry) => [entry.id, entry])),
      agents: new Map(agents.map((agent) => [agent.id.toString(), agent])),
    }
    for (const agent of [AGENT, OTHER]) {
      const expected = naiveAuthorized(state, agent, NOW)
      const actual = entries.authorizedEntries(agent)
      expect(actual.map((entry) => entry.id)).toEqual([...expected.keys()].sort())
      for (const entry of actual) expect(sameEntry(entry, expected.get(entry.id)!)).toBe(true)
    }
    expect(entries.counts()).toMatchObject({ entries: rows.length, agents: agents.length })
    return entries.authorizedEntries(AGENT).map((entry) => entry.spiffeId.path)
  }
  return { store, entries, bundles, agree }
}

const attestation = {
  id: AGENT,
  attestationType: 'x509pop',
  serialNumber: '1',
  expiresAt: NOW + 60,
  canReattest: true,
  selectors: [{ type: 'x509pop', value: 'cn:one' }],
  clusterId: 2,
}

async function create(
  store: Awaited<ReturnType<typeof start>>['store'],
  ...changes: Parameters<typeof draft>[0][]
): Promise<RegistrationEntry[]> {
  const outcomes = await store.entries.createEntries(changes.map(draft), ACTOR)
  return outcomes.map((outcome) => {
    if (!outcome.ok) throw outcome.error
    return outcome.value
  })
}

test('entries created, changed, moved and deleted', async () => {
  const { store, agree } = await start()
  const [first] = await create(
    store,
    { spiffeId: id('/a') },
    { spiffeId: id('/b'), parentId: id('/a') },
    { spiffeId: id('/c'), parentId: OTHER },
  )
  expect(await agree()).toHaveLength(2)
  await store.entries.updateEntries([{ id: first!.id, hint: 'h' }], ACTOR)
  expect(await agree()).toHaveLength(2)
  await store.entries.updateEntries([{ id: first!.id, parentId: OTHER }], ACTOR)
  expect(await agree()).toEqual([])
  await store.entries.deleteEntries([first!.id], ACTOR)
  expect(await agree()).toEqual([])
})

test('aliases follow attestation, new selectors, ban and eviction', async () => {
  const { store, entries, agree } = await start()
  await create(
    store,
    {
      spiffeId: id('/group'),
      parentId: id('/spire/server'),
      selectors: [{ type: 'x509pop', value: 'cn:one' }],
    },
    { spiffeId: id('/grouped'), parentId: id('/group') },
  )
  expect(await agree()).toEqual([])
  await store.agents.recordAttestation(attestation, ACTOR)
  expect(await agree()).toEqual(['/grouped'])
  await store.agents.recordAttestation({ ...attestation, selectors: [] }, ACTOR)
  expect(await agree()).toEqual([])
  await store.agents.setNewSerial(AGENT, '2', NOW + 90)
  await agree()
  expect(entries.agent(AGENT)).toMatchObject({ serialNumber: '1', newSerialNumber: '2' })
  await store.agents.banAgent(AGENT, ACTOR)
  await agree()
  expect(entries.agent(AGENT)?.serialNumber).toBe('')
  await store.agents.deleteAgent(AGENT, ACTOR)
  await agree()
  expect(entries.agent(AGENT)).toBeUndefined()
})

test('a deleted bundle leaves the cache, and the entries that federated with it', async () => {
  const { store, entries, bundles, agree } = await start()
  const none = { ...makeBundle('fed.test'), x509Authorities: [] }
  await store.bundles.createBundle(none, ACTOR)
  const [entry] = await create(store, { federatesWith: ['fed.test'] })
  await agree()
  expect(bundles.get('fed.test')).toBeDefined()
  expect(entries.entry(entry!.id)?.federatesWith).toEqual(['fed.test'])
  await store.bundles.deleteBundle('fed.test', 'dissociate', ACTOR)
  await agree()
  expect(bundles.get('fed.test')).toBeUndefined()
  expect(entries.entry(entry!.id)?.federatesWith).toEqual([])
})
