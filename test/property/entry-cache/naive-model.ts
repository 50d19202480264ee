/** Authorized entries as api.md §7.3 words them, with no index at all: the truth to compare with. */
import type { AttestedAgent } from '../../../src/spiffe/attested-agent.ts'
import type { RegistrationEntry } from '../../../src/spiffe/registration-entry.ts'
import { isSubset, selectorKey } from '../../../src/spiffe/selector.ts'
import type { SpiffeId } from '../../../src/spiffe/spiffe-id.ts'

export interface NaiveState {
  readonly trustDomain: string
  readonly entries: ReadonlyMap<string, RegistrationEntry>
  readonly agents: ReadonlyMap<string, AttestedAgent>
}

/** `now` undefined: as if no agent ever expired. */
export function naiveAuthorized(
  state: NaiveState,
  agentId: SpiffeId,
  now: number | undefined,
): Map<string, RegistrationEntry> {
  const ours = [...state.entries.values()].filter(
    (entry) =>
      entry.parentId.trustDomain.name === state.trustDomain &&
      entry.spiffeId.trustDomain.name === state.trustDomain,
  )
  const isAlias = (entry: RegistrationEntry) => entry.parentId.path === '/spire/server'
  const agent = state.agents.get(agentId.toString())
  const counts = agent !== undefined && (now === undefined || agent.expiresAt > now)
  const nodeSelectors = new Set(counts ? agent.selectors.map(selectorKey) : [])
  const found = new Map<string, RegistrationEntry>()
  const seen = new Set<string>()
  const crawl = (parent: string) => {
    if (seen.has(parent)) return
    seen.add(parent)
    for (const entry of ours) {
      if (isAlias(entry) || entry.parentId.toString() !== parent) continue
      found.set(entry.id, entry)
      crawl(entry.spiffeId.toString())
    }
  }
  crawl(agentId.toString())
  for (const alias of ours.filter(isAlias)) {
    const wanted = new Set(alias.selectors.map(selectorKey))
    if (wanted.size > 0 && isSubset(wanted, nodeSelectors)) crawl(alias.spiffeId.toString())
  }
  return found
}
