/**
 * Attested agents as the authorization of each call may see them: rows in memory while they are
 * known to be current, else the database (api.md §3, step 3).
 *
 * A row is current when the change feed's last read began less than AGENT_ROW_AGE_MS_MAX ago, and
 * after the last write of this server to that agent. `max_attested_node_info_staleness` allows more
 * age, never less.
 * Differs from SPIRE: its default of 0 reads the database on every call. Here that would be the
 * price of each signature, and the feed brings a ban within a second.
 *
 * While the database is away the rows serve as they are: a ban can't have been recorded either,
 * and fleets go on syncing (reliability.md F02).
 */
import { AGENT_ROW_AGE_MS_MAX } from '../base/limits.ts'
import type { Clock } from '../base/ports.ts'
import type { AttestedAgent } from '../spiffe/attested-agent.ts'
import type { SpiffeId } from '../spiffe/spiffe-id.ts'
import type { ChangeFeed } from './change-feed.ts'
import type { AgentLookup } from './lookups.ts'
import type { AgentStore } from './ports.ts'

/** Notes of writes that nobody asked about since are swept beyond this many. */
const NOTES_MAX = 1_000

export interface AgentCache {
  readonly lookup: AgentLookup
  /** The store, with every write noted: what was written is read from the database first. */
  readonly store: AgentStore
}

export interface AgentCacheParts {
  readonly clock: Pick<Clock, 'monotonicMs'>
  readonly rows: { agent(id: SpiffeId): AttestedAgent | undefined }
  readonly store: AgentStore
  readonly feed: Pick<ChangeFeed, 'currentAsOfMs' | 'isDatabaseAway'>
  readonly maxStalenessMs: number
}

export function createAgentCache(parts: AgentCacheParts): AgentCache {
  const { clock, feed, store } = parts
  const ageMax = Math.max(AGENT_ROW_AGE_MS_MAX, parts.maxStalenessMs)
  /** By SPIFFE ID: when its last write ended; Infinity while one is under way. */
  const written = new Map<string, number>()
  let allWritten = -Infinity

  const isCurrent = (id: string): boolean => {
    const asOf = feed.currentAsOfMs()
    const write = written.get(id)
    if (write !== undefined) {
      if (write >= asOf) return false
      written.delete(id)
    }
    if (allWritten >= asOf) return false
    return feed.isDatabaseAway() || clock.monotonicMs() - asOf <= ageMax
  }
  /** Also after a failure: the commit may have come through. */
  const noting = async <T>(id: SpiffeId, write: Promise<T>): Promise<T> => {
    const key = id.toString()
    written.set(key, Infinity)
    try {
      return await write
    } finally {
      written.set(key, clock.monotonicMs())
      if (written.size > NOTES_MAX) forgetRead(written, feed.currentAsOfMs())
    }
  }
  return {
    lookup: {
      get: async (id) => (isCurrent(id.toString()) ? parts.rows.agent(id) : undefined),
    },
    store: {
      ...store,
      recordAttestation: (attestation, actor) =>
        noting(attestation.id, store.recordAttestation(attestation, actor)),
      setNewSerial: (id, serialNumber, expiresAt) =>
        noting(id, store.setNewSerial(id, serialNumber, expiresAt)),
      promoteNewSerial: (id, serialNumber) => noting(id, store.promoteNewSerial(id, serialNumber)),
      banAgent: (id, actor) => noting(id, store.banAgent(id, actor)),
      deleteAgent: (id, actor) => noting(id, store.deleteAgent(id, actor)),
      async pruneAgents(expiredBefore, options, actor) {
        try {
          return await store.pruneAgents(expiredBefore, options, actor)
        } finally {
          allWritten = clock.monotonicMs()
        }
      },
    },
  }
}

/** Notes that a look-up would ignore. */
function forgetRead(written: Map<string, number>, asOfMs: number): void {
  for (const [id, atMs] of written) if (atMs < asOfMs) written.delete(id)
}
