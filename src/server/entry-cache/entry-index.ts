/**
 * All entries and node selectors in memory, and the one question asked of them all day: which
 * entries may this agent serve (api.md §7.3, "Authorized entries for an agent"). Fed by deltas only;
 * each delta also says which agents it touches, so that pushes go where something changed.
 *
 * Synchronous and without I/O. Expired entries stay until they are pruned, as in SPIRE.
 */
import type { Clock } from '../../base/ports.ts'
import type { AttestedAgent } from '../../spiffe/attested-agent.ts'
import type { RegistrationEntry } from '../../spiffe/registration-entry.ts'
import { isAgentId, type SpiffeId, serverId } from '../../spiffe/spiffe-id.ts'
import type { TrustDomain } from '../../spiffe/trust-domain.ts'
import { AliasIndex } from './alias-index.ts'
import { ClosureCache } from './closure-cache.ts'
import { EntryGraph } from './entry-graph.ts'
import { membersOf } from './few.ts'
import { sameEntry, sameSelectors } from './same-entry.ts'
import { SelectorTable } from './selector-table.ts'

/**
 * Agents that may serve these entries, or might until now, and entries of which something may have
 * changed for them. An entry is never named to an agent that had no right to it before or after.
 */
export interface Touched {
  readonly agentIds: readonly string[]
  readonly entryIds: readonly string[]
}

export interface EntryCounts {
  readonly entries: number
  readonly aliases: number
  readonly agents: number
  readonly distinctIds: number
  readonly distinctSelectors: number
}

export class EntryIndex {
  readonly #trustDomain: TrustDomain
  readonly #serverId: string
  readonly #clock: Pick<Clock, 'nowSeconds'>
  readonly #entries = new Map<string, RegistrationEntry>()
  readonly #selectors = new SelectorTable()
  readonly #graph = new EntryGraph(this.#selectors)
  readonly #aliases = new AliasIndex(this.#selectors)
  readonly #closures = new ClosureCache()

  constructor(trustDomain: TrustDomain, clock: Pick<Clock, 'nowSeconds'>) {
    this.#trustDomain = trustDomain
    this.#serverId = serverId(trustDomain).toString()
    this.#clock = clock
  }

  counts(): EntryCounts {
    return {
      entries: this.#entries.size,
      aliases: this.#aliases.aliasCount,
      agents: this.#aliases.agentCount,
      distinctIds: this.#graph.size,
      distinctSelectors: this.#selectors.size,
    }
  }

  ids(): IterableIterator<string> {
    return this.#entries.keys()
  }

  entry(id: string): RegistrationEntry | undefined {
    return this.#entries.get(id)
  }

  agentIds(): IterableIterator<string> {
    return this.#aliases.agentIds()
  }

  agent(agentId: string): AttestedAgent | undefined {
    return this.#aliases.agent(agentId)
  }

  entriesBySpiffeId(id: SpiffeId): readonly RegistrationEntry[] {
    return [...membersOf(this.#graph.node(id)?.named)]
  }

  /** Sorted by id. The same array until something changes for this agent; never to be modified. */
  authorizedEntries(agentId: SpiffeId): readonly RegistrationEntry[] {
    const key = agentId.toString()
    const now = this.#clock.nowSeconds()
    const cached = this.#closures.get(key, now)
    if (cached !== undefined) return cached
    const found: RegistrationEntry[] = []
    this.#graph.walkDown(this.#rootsOf(agentId, now), (entry) => {
      if (!this.#isServable(entry)) return false
      found.push(entry)
      return true
    })
    found.sort(byId)
    const expiresAt = this.#aliases.agent(key)?.expiresAt
    // An expired agent's answer is not remembered: it would be wrong if the clock were set back.
    if (expiresAt === undefined || expiresAt > now) this.#closures.set(key, found, expiresAt)
    return found
  }

  /**
   * The entry, if this agent may serve it. Walks up from the entry, so it costs what the entry's
   * ancestors cost, however many entries the agent has.
   */
  authorizedEntry(agentId: SpiffeId, entryId: string): RegistrationEntry | undefined {
    const entry = this.#entries.get(entryId)
    if (entry === undefined || !this.#isServable(entry)) return undefined
    const own = agentId.toString()
    const now = this.#clock.nowSeconds()
    let found = false
    this.#graph.walkUp(
      entry.parentId,
      (id) => {
        const text = id.toString()
        found = text === own || this.#aliases.aliasIdsOf(own, now).has(text)
        return !found
      },
      (above) => this.#isServable(above),
    )
    return found ? entry : undefined
  }

  /** `undefined` removes it. Empty when nothing changed, or nobody is touched. */
  applyEntry(id: string, next: RegistrationEntry | undefined): Touched[] {
    const before = this.#entries.get(id)
    if (before === undefined && next === undefined) return []
    if (before !== undefined && next !== undefined && sameEntry(before, next)) return []
    const moved = before === undefined || next === undefined || !this.#sameEdge(before, next)
    const touched: Touched[] = []
    if (before !== undefined) {
      this.#touch(before, moved, touched)
      this.#remove(before)
    }
    if (next !== undefined) {
      const kept = this.#insert(next)
      if (moved) this.#touch(kept, moved, touched)
    }
    for (const { agentIds } of touched) {
      for (const agentId of agentIds) this.#closures.delete(agentId)
    }
    return touched
  }

  /** `undefined` removes the agent's node selectors; its own children stay authorized. */
  applyAgent(agentId: string, next: AttestedAgent | undefined): Touched[] {
    const now = this.#clock.nowSeconds()
    const before = new Set(this.#aliases.aliasesOf(agentId, now))
    this.#aliases.setAgent(agentId, next)
    this.#closures.delete(agentId)
    const after = new Set(this.#aliases.aliasesOf(agentId, now))
    const changed = [
      ...[...before].filter((alias) => !after.has(alias)),
      ...[...after].filter((alias) => !before.has(alias)),
    ]
    const entryIds = this.#idsBelow(changed.map((alias) => alias.spiffeId))
    return entryIds.length === 0 ? [] : [{ agentIds: [agentId], entryIds }]
  }

  #insert(entry: RegistrationEntry): RegistrationEntry {
    const kept = this.#graph.insert(entry)
    this.#entries.set(kept.id, kept)
    if (this.#isAlias(kept)) this.#aliases.addAlias(kept)
    return kept
  }

  #remove(entry: RegistrationEntry): void {
    this.#entries.delete(entry.id)
    if (this.#isAlias(entry)) this.#aliases.removeAlias(entry)
    this.#graph.remove(entry)
  }

  /** To be called while the entry is in the graph. With `moved`, what hangs below it is named too. */
  #touch(entry: RegistrationEntry, moved: boolean, touched: Touched[]): void {
    if (!this.#isOurs(entry)) return
    const agentIds = this.#audience(entry)
    if (agentIds.length === 0) return
    const entryIds = this.#isAlias(entry) ? [] : [entry.id]
    if (moved) entryIds.push(...this.#idsBelow([entry.spiffeId]))
    if (entryIds.length > 0) touched.push({ agentIds, entryIds })
  }

  /** Agents that reach this entry, expired ones included: they may be back before the next change. */
  #audience(entry: RegistrationEntry): string[] {
    if (this.#isAlias(entry)) return this.#aliases.agentsOf(entry)
    const agents = new Set<string>()
    this.#graph.walkUp(
      entry.parentId,
      (id) => {
        if (isAgentId(id, this.#trustDomain)) agents.add(id.toString())
        return true
      },
      (above) => {
        if (!this.#isOurs(above)) return false
        if (!this.#isAlias(above)) return true
        for (const agentId of this.#aliases.agentsOf(above)) agents.add(agentId)
        return false
      },
    )
    return [...agents]
  }

  #idsBelow(ids: readonly SpiffeId[]): string[] {
    const found: string[] = []
    const start = ids.map((id) => this.#graph.node(id))
    this.#graph.walkDown(start, (entry) => {
      if (!this.#isServable(entry)) return false
      found.push(entry.id)
      return true
    })
    return found
  }

  #rootsOf(agentId: SpiffeId, now: number) {
    const aliases = this.#aliases.aliasesOf(agentId.toString(), now)
    return [agentId, ...aliases.map((alias) => alias.spiffeId)].map((id) => this.#graph.node(id))
  }

  /** Where an entry hangs and what it leads to; for an alias also whom it stands for. */
  #sameEdge(a: RegistrationEntry, b: RegistrationEntry): boolean {
    if (!a.parentId.equals(b.parentId) || !a.spiffeId.equals(b.spiffeId)) return false
    // `b` is not of the shared table yet; a change of selectors moves an alias, always.
    return !this.#isAlias(a) || sameSelectors(a, b)
  }

  #isAlias(entry: RegistrationEntry): boolean {
    return entry.parentId.toString() === this.#serverId && this.#isOurs(entry)
  }

  /** Entries of other trust domains may lie in an imported database; they lead nowhere. */
  #isOurs(entry: RegistrationEntry): boolean {
    return (
      entry.parentId.trustDomain.equals(this.#trustDomain) &&
      entry.spiffeId.trustDomain.equals(this.#trustDomain)
    )
  }

  #isServable(entry: RegistrationEntry): boolean {
    return this.#isOurs(entry) && entry.parentId.toString() !== this.#serverId
  }
}

function byId(a: RegistrationEntry, b: RegistrationEntry): number {
  return a.id < b.id ? -1 : 1
}
