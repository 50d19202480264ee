/**
 * The entry cache of a server: an `EntryIndex` kept in step with the database by the change log.
 * Everything is read once at start; from then on only what changes name is read again, all of one
 * batch together. There is no periodic scan (design.md §4).
 *
 * Answers go on from memory while the database is away.
 */
import { LOAD_PAGE_ROWS } from '../../base/limits.ts'
import type { Clock } from '../../base/ports.ts'
import type { AttestedAgent } from '../../spiffe/attested-agent.ts'
import type { RegistrationEntry } from '../../spiffe/registration-entry.ts'
import type { SpiffeId } from '../../spiffe/spiffe-id.ts'
import type { TrustDomain } from '../../spiffe/trust-domain.ts'
import type { AgentLookup, EntryLookup } from '../lookups.ts'
import type { Change } from '../ports.ts'
import { type EntryCounts, EntryIndex, type Touched } from './entry-index.ts'

/** What the cache reads. The datastore's stores have these beside their ports. */
export interface EntryCacheSource {
  loadAllEntries(): AsyncIterable<readonly RegistrationEntry[]>
  getEntries(ids: readonly string[]): Promise<readonly RegistrationEntry[]>
  loadAllAgents(): AsyncIterable<readonly AttestedAgent[]>
  getAgents(ids: readonly string[]): Promise<readonly AttestedAgent[]>
}

export interface EntryCacheEvent {
  /** The change log's position that the cache has now reached. */
  readonly position: string
  /** Everything was read anew: whatever was derived from earlier events is void. */
  readonly reloaded: boolean
  /** With `reloaded`, empty. */
  readonly touched: readonly Touched[]
  /** Agents whose row changed or went, by SPIFFE ID. */
  readonly agentIds: readonly string[]
}

/** Also a consumer of the change feed. */
export interface EntryCache extends EntryLookup {
  readonly name: string
  entry(id: string): RegistrationEntry | undefined
  agent(id: SpiffeId): AttestedAgent | undefined
  readonly agents: AgentLookup
  counts(): EntryCounts
  /** Of the last load or changes; empty before the first. */
  position(): string
  /**
   * Reads everything. `position` is the change log's from before the call. Also the way back when
   * the log can't be continued from where the cache stood.
   */
  load(position: string): Promise<void>
  /**
   * Applies what was committed up to `position`; changes of other kinds are skipped. Rejects when
   * the database can't be read: the same changes may then be given again, alone or with later ones.
   */
  handleChanges(changes: readonly Change[], position: string): Promise<void>
  /** Called in order after each load and each batch of changes, while the cache stands at it. */
  onChange(listener: (event: EntryCacheEvent) => void): Disposable
}

export function createEntryCache(deps: {
  readonly trustDomain: TrustDomain
  readonly clock: Pick<Clock, 'nowSeconds'>
  readonly source: EntryCacheSource
}): EntryCache {
  const { source } = deps
  const index = new EntryIndex(deps.trustDomain, deps.clock)
  const listeners = new Set<(event: EntryCacheEvent) => void>()
  let position = ''
  let last: Promise<unknown> = Promise.resolve()

  /** One at a time: of two overlapping reads the older must not be applied last. */
  const inTurn = (work: () => Promise<Omit<EntryCacheEvent, 'position'>>, reached: string) => {
    const turn = last.then(async () => {
      const event = await work()
      position = reached
      for (const listener of listeners) listener({ ...event, position })
    })
    last = turn.catch(() => undefined)
    return turn
  }

  return {
    name: 'entry_cache',
    authorizedEntries: (agentId) => index.authorizedEntries(agentId),
    authorizedEntry: (agentId, entryId) => index.authorizedEntry(agentId, entryId),
    entriesBySpiffeId: (id) => index.entriesBySpiffeId(id),
    entry: (id) => index.entry(id),
    agent: (id) => index.agent(id.toString()),
    agents: { get: async (id) => index.agent(id.toString()) },
    counts: () => index.counts(),
    position: () => position,
    load: (at) => inTurn(() => loadAll(index, source), at),
    handleChanges: (changes, at) => inTurn(() => applyChanges(index, source, changes), at),
    onChange(listener) {
      listeners.add(listener)
      return { [Symbol.dispose]: () => void listeners.delete(listener) }
    },
  }
}

async function loadAll(index: EntryIndex, source: EntryCacheSource) {
  const staleAgents = new Set(index.agentIds())
  for await (const page of source.loadAllAgents()) {
    for (const agent of page) {
      staleAgents.delete(agent.id.toString())
      index.applyAgent(agent.id.toString(), agent)
    }
  }
  for (const id of staleAgents) index.applyAgent(id, undefined)
  const staleEntries = new Set(index.ids())
  for await (const page of source.loadAllEntries()) {
    for (const entry of page) {
      staleEntries.delete(entry.id)
      index.applyEntry(entry.id, entry)
    }
  }
  for (const id of staleEntries) index.applyEntry(id, undefined)
  return { reloaded: true, touched: [], agentIds: [] }
}

async function applyChanges(
  index: EntryIndex,
  source: EntryCacheSource,
  changes: readonly Change[],
) {
  const touched: Touched[] = []
  const agentIds = idsOf(changes, 'agent')
  // What isn't in the answer is gone. Ids that no row can have (a log written by a newer version)
  // do no harm: they are asked for and found nowhere.
  for (const ids of pagesOf(agentIds)) {
    const read = new Map((await source.getAgents(ids)).map((agent) => [agent.id.toString(), agent]))
    for (const id of ids) touched.push(...index.applyAgent(id, read.get(id)))
  }
  for (const ids of pagesOf(idsOf(changes, 'entry'))) {
    const read = new Map((await source.getEntries(ids)).map((entry) => [entry.id, entry]))
    for (const id of ids) touched.push(...index.applyEntry(id, read.get(id)))
  }
  return { reloaded: false, touched, agentIds }
}

function idsOf(changes: readonly Change[], kind: Change['kind']): string[] {
  return [...new Set(changes.filter((change) => change.kind === kind).map((change) => change.id))]
}

function* pagesOf(ids: readonly string[]): Iterable<readonly string[]> {
  for (let start = 0; start < ids.length; start += LOAD_PAGE_ROWS) {
    yield ids.slice(start, start + LOAD_PAGE_ROWS)
  }
}
