import { expect, test } from 'vitest'
import {
  createEntryCache,
  type EntryCacheEvent,
  type EntryCacheSource,
} from '../../../src/server/entry-cache/entry-cache.ts'
import { EntryIndex } from '../../../src/server/entry-cache/entry-index.ts'
import type { Change } from '../../../src/server/ports.ts'
import type { AttestedAgent } from '../../../src/spiffe/attested-agent.ts'
import type { RegistrationEntry } from '../../../src/spiffe/registration-entry.ts'
import { SpiffeId } from '../../../src/spiffe/spiffe-id.ts'
import { TrustDomain } from '../../../src/spiffe/trust-domain.ts'
import { FakeClock } from '../../fakes/fake-clock.ts'
import { makeAgent, makeEntry } from '../../fakes/make-entry.ts'

const trustDomain = TrustDomain.parse('example.org')
const AGENT = SpiffeId.parse('spiffe://example.org/spire/agent/test/a')
const OTHER = SpiffeId.parse('spiffe://example.org/spire/agent/test/b')

/** Tables in memory; counts reads and can be told to fail or wait. */
function createSource() {
  const entries = new Map<string, RegistrationEntry>()
  const agents = new Map<string, AttestedAgent>()
  const reads: string[][] = []
  let gate: Promise<void> = Promise.resolve()
  let failure: Error | undefined
  const read = async <T>(table: ReadonlyMap<string, T>, ids: readonly string[]): Promise<T[]> => {
    reads.push([...ids])
    const rows = ids.flatMap((id) => table.get(id) ?? [])
    await gate
    if (failure) throw failure
    return rows
  }
  const source: EntryCacheSource = {
    async *loadAllEntries() {
      for (const entry of [...entries.values()]) yield [entry]
    },
    async *loadAllAgents() {
      yield [...agents.values()]
    },
    getEntries: (ids) => read(entries, ids),
    getAgents: (ids) => read(agents, ids),
  }
  return {
    ...{ source, entries, agents, reads },
    put: (...rows: RegistrationEntry[]) => {
      for (const row of rows) entries.set(row.id, row)
    },
    fail: (error: Error | undefined) => {
      failure = error
    },
    hold: () => {
      const { promise, resolve } = Promise.withResolvers<void>()
      gate = promise
      return resolve
    },
  }
}

async function loaded() {
  const tables = createSource()
  tables.put(makeEntry({ id: 'one' }), makeEntry({ id: 'two', parent: OTHER.path }))
  const events: EntryCacheEvent[] = []
  const cache = createEntryCache({
    ...{ trustDomain, clock: new FakeClock(), source: tables.source },
  })
  await cache.load('p1')
  cache.onChange((event) => void events.push(event))
  return { ...tables, cache, events }
}

const entryChange = (id: string): Change => ({ kind: 'entry', id })
const idsOf = (entries: readonly RegistrationEntry[]) => entries.map((entry) => entry.id)

test('after loading, the cache answers and stands at the position given', async () => {
  const { cache } = await loaded()
  expect(cache.position()).toBe('p1')
  expect(idsOf(cache.authorizedEntries(AGENT))).toEqual(['one'])
  expect(cache.authorizedEntry(AGENT, 'two')).toBeUndefined()
  expect(cache.entry('two')?.parentId).toEqual(OTHER)
})

test('a batch of changes is read at once, deduplicated, and tells whom it touches', async () => {
  const { cache, put, entries, reads, events } = await loaded()
  put(makeEntry({ id: 'three' }))
  entries.delete('one')
  const changes: Change[] = [
    ...['three', 'one', 'three'].map(entryChange),
    { kind: 'bundle', id: 'example.org' },
  ]
  await cache.handleChanges(changes, 'p2')
  expect(reads).toEqual([['three', 'one']])
  expect(idsOf(cache.authorizedEntries(AGENT))).toEqual(['three'])
  expect(events).toEqual([
    {
      position: 'p2',
      reloaded: false,
      agentIds: [],
      touched: [
        { agentIds: [AGENT.toString()], entryIds: ['three'] },
        { agentIds: [AGENT.toString()], entryIds: ['one'] },
      ],
    },
  ])
})

test('a change that says nothing new touches nobody, but moves the position', async () => {
  const { cache, events } = await loaded()
  await cache.handleChanges([entryChange('one'), entryChange('unknown')], 'p2')
  expect(events).toMatchObject([{ position: 'p2', touched: [] }])
  expect(cache.position()).toBe('p2')
})

test('agents come, change their selectors and go', async () => {
  const { cache, put, agents, events } = await loaded()
  put(
    makeEntry({ id: 'alias', parent: '/spire/server', spiffe: '/group', selectors: ['k8s:c:1'] }),
    makeEntry({ id: 'grouped', parent: '/group' }),
  )
  await cache.handleChanges(['alias', 'grouped'].map(entryChange), 'p2')
  expect(events.at(-1)?.touched).toEqual([])
  const change: Change = { kind: 'agent', id: AGENT.toString() }
  agents.set(
    AGENT.toString(),
    makeAgent(AGENT.path, { selectors: [{ type: 'k8s', value: 'c:1' }] }),
  )
  await cache.handleChanges([change], 'p3')
  expect(events.at(-1)).toMatchObject({
    touched: [{ agentIds: [AGENT.toString()], entryIds: ['grouped'] }],
    agentIds: [AGENT.toString()],
  })
  expect(cache.agent(AGENT)?.serialNumber).toBe('1')
  expect(idsOf(cache.authorizedEntries(AGENT))).toEqual(['grouped', 'one'])
  agents.delete(AGENT.toString())
  await cache.handleChanges([change], 'p4')
  expect(await cache.agents.get(AGENT)).toBeUndefined()
  expect(idsOf(cache.authorizedEntries(AGENT))).toEqual(['one'])
})

test('a failed read moves nothing; the same changes given again do', async () => {
  const { cache, put, fail, events } = await loaded()
  put(makeEntry({ id: 'three' }))
  fail(new Error('database is away'))
  await expect(cache.handleChanges([entryChange('three')], 'p2')).rejects.toThrow('away')
  expect(cache.position()).toBe('p1')
  expect(events).toEqual([])
  expect(idsOf(cache.authorizedEntries(AGENT))).toEqual(['one'])
  fail(undefined)
  await cache.handleChanges([entryChange('three')], 'p2')
  expect(idsOf(cache.authorizedEntries(AGENT))).toEqual(['one', 'three'])
})

test('of two overlapping batches the later one wins', async () => {
  const { cache, put, hold } = await loaded()
  put(makeEntry({ id: 'one', revisionNumber: 1n }))
  const release = hold()
  const first = cache.handleChanges([entryChange('one')], 'p2')
  put(makeEntry({ id: 'one', revisionNumber: 2n }))
  const second = cache.handleChanges([entryChange('one')], 'p3')
  release()
  await Promise.all([first, second])
  expect(cache.entry('one')?.revisionNumber).toBe(2n)
  expect(cache.position()).toBe('p3')
})

test('loading again takes over everything and forgets what is gone', async () => {
  const { cache, put, entries, agents, events } = await loaded()
  agents.set(OTHER.toString(), makeAgent(OTHER.path))
  await cache.load('p2')
  entries.delete('one')
  agents.delete(OTHER.toString())
  put(makeEntry({ id: 'three', spiffe: '/three' }))
  await cache.load('p3')
  expect(idsOf(cache.authorizedEntries(AGENT))).toEqual(['three'])
  expect(cache.counts()).toMatchObject({ entries: 2, agents: 0 })
  expect(events.at(-1)).toEqual({ position: 'p3', reloaded: true, touched: [], agentIds: [] })
})

test('shared parts: equal selectors and IDs of different entries are one object', async () => {
  const { cache, put } = await loaded()
  put(makeEntry({ id: 'three' }))
  await cache.handleChanges([entryChange('three')], 'p2')
  expect(cache.entry('three')?.selectors[0]).toBe(cache.entry('one')?.selectors[0])
  expect(cache.entry('three')?.parentId).toBe(cache.entry('one')?.parentId)
})

// How: walking down from the agent would take 20,000 × some milliseconds, over a minute.
test('one question about an agent with 100,000 entries does not walk them', () => {
  const index = new EntryIndex(trustDomain, new FakeClock())
  for (let n = 0; n < 100_000; n++) {
    const id = `entry-${n}`
    index.applyEntry(id, makeEntry({ id }))
  }
  const start = performance.now()
  for (let n = 0; n < 20_000; n++) {
    expect(index.authorizedEntry(AGENT, `entry-${n}`)?.id === `entry-${n}`).toBe(true)
    expect(index.authorizedEntry(OTHER, `entry-${n}`)).toBeUndefined()
  }
  expect(performance.now() - start).toBeLessThan(10_000)
})
