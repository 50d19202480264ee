/**
 * Which agents an alias stands for: an entry with the parent `/spire/server` whose selectors are a
 * subset of the agent's node selectors (api.md §7.3). Indexed both ways, so that neither an alias
 * nor an agent that comes or goes looks at all the others.
 */
import type { EpochSeconds } from '../../base/ports.ts'
import type { AttestedAgent } from '../../spiffe/attested-agent.ts'
import type { RegistrationEntry } from '../../spiffe/registration-entry.ts'
import type { Selector } from '../../spiffe/selector.ts'
import type { SelectorTable } from './selector-table.ts'

interface AgentNode {
  /** Its selectors are those of the shared table. */
  readonly agent: AttestedAgent
  readonly selectors: ReadonlySet<Selector>
  /** What was found last; undefined once it may have changed. */
  aliases: Aliases | undefined
}

interface Aliases {
  readonly entries: readonly RegistrationEntry[]
  readonly spiffeIds: ReadonlySet<string>
}

const NO_ALIASES: Aliases = { entries: [], spiffeIds: new Set() }

export class AliasIndex {
  readonly #table: SelectorTable
  readonly #agents = new Map<string, AgentNode>()
  readonly #agentsBySelector = new Map<Selector, Set<AgentNode>>()
  /** Each alias under one of its selectors, the one with the fewest when it came. */
  readonly #aliasesByAnchor = new Map<Selector, Set<RegistrationEntry>>()
  readonly #anchors = new Map<RegistrationEntry, Selector>()

  constructor(table: SelectorTable) {
    this.#table = table
  }

  get agentCount(): number {
    return this.#agents.size
  }

  get aliasCount(): number {
    return this.#anchors.size
  }

  agentIds(): IterableIterator<string> {
    return this.#agents.keys()
  }

  agent(agentId: string): AttestedAgent | undefined {
    return this.#agents.get(agentId)?.agent
  }

  setAgent(agentId: string, agent: AttestedAgent | undefined): void {
    const before = this.#agents.get(agentId)
    if (before !== undefined) {
      this.#agents.delete(agentId)
      for (const selector of before.selectors) {
        removeFrom(this.#agentsBySelector, selector, before)
      }
    }
    if (agent !== undefined) {
      const shared = this.#table.acquire(agent.selectors)
      const selectors = new Set(shared)
      const node = { agent: { ...agent, selectors: shared }, selectors, aliases: undefined }
      this.#agents.set(agentId, node)
      for (const selector of selectors) addTo(this.#agentsBySelector, selector, node)
    }
    // Released last, so that selectors which stay keep their identity.
    if (before !== undefined) this.#table.release(before.selectors)
  }

  /** `alias.selectors` are those of the shared table. */
  addAlias(alias: RegistrationEntry): void {
    const anchor = leastUsed(alias.selectors, this.#aliasesByAnchor)
    // An entry without selectors can't be created; one found in the database stands for nobody.
    if (anchor === undefined) return
    addTo(this.#aliasesByAnchor, anchor, alias)
    this.#anchors.set(alias, anchor)
    for (const node of this.#nodesMatching(alias)) node.aliases = undefined
  }

  removeAlias(alias: RegistrationEntry): void {
    const anchor = this.#anchors.get(alias)
    if (anchor === undefined) return
    this.#anchors.delete(alias)
    removeFrom(this.#aliasesByAnchor, anchor, alias)
    for (const node of this.#nodesMatching(alias)) node.aliases = undefined
  }

  /** None for an agent that is expired or not attested. */
  aliasesOf(agentId: string, now: EpochSeconds): readonly RegistrationEntry[] {
    return this.#aliases(agentId, now).entries
  }

  /** The SPIFFE IDs that act as further parents of this agent. */
  aliasIdsOf(agentId: string, now: EpochSeconds): ReadonlySet<string> {
    return this.#aliases(agentId, now).spiffeIds
  }

  /** Agents this alias stands for, expired ones included. */
  agentsOf(alias: RegistrationEntry): string[] {
    return [...this.#nodesMatching(alias)].map((node) => node.agent.id.toString())
  }

  #aliases(agentId: string, now: EpochSeconds): Aliases {
    const node = this.#agents.get(agentId)
    if (node === undefined || node.agent.expiresAt <= now) return NO_ALIASES
    node.aliases ??= this.#findAliases(node)
    return node.aliases
  }

  #findAliases(node: AgentNode): Aliases {
    const entries: RegistrationEntry[] = []
    for (const selector of node.selectors) {
      for (const alias of this.#aliasesByAnchor.get(selector) ?? []) {
        if (alias.selectors.every((other) => node.selectors.has(other))) entries.push(alias)
      }
    }
    if (entries.length === 0) return NO_ALIASES
    return { entries, spiffeIds: new Set(entries.map((alias) => alias.spiffeId.toString())) }
  }

  *#nodesMatching(alias: RegistrationEntry): Iterable<AgentNode> {
    const rarest = leastUsed(alias.selectors, this.#agentsBySelector)
    if (rarest === undefined) return
    for (const node of this.#agentsBySelector.get(rarest) ?? []) {
      if (alias.selectors.every((selector) => node.selectors.has(selector))) yield node
    }
  }
}

function leastUsed(
  selectors: readonly Selector[],
  index: ReadonlyMap<Selector, ReadonlySet<unknown>>,
): Selector | undefined {
  let best: Selector | undefined
  let bestSize = Number.POSITIVE_INFINITY
  for (const selector of selectors) {
    const size = index.get(selector)?.size ?? 0
    if (size < bestSize) [best, bestSize] = [selector, size]
  }
  return best
}

function addTo<K, V>(index: Map<K, Set<V>>, key: K, value: V): void {
  const set = index.get(key)
  if (set === undefined) index.set(key, new Set([value]))
  else set.add(value)
}

function removeFrom<K, V>(index: Map<K, Set<V>>, key: K, value: V): void {
  const set = index.get(key)
  set?.delete(value)
  if (set?.size === 0) index.delete(key)
}
