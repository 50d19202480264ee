/**
 * What the server's doors read on every call, from memory where they can: the ports of the entry
 * cache, the agent cache, the own bundle and the ledger. `entry-cache/` and `datastore/`
 * implement them; the change log keeps the caches within a second of the database.
 */
import type { AttestedAgent } from '../spiffe/attested-agent.ts'
import type { Bundle } from '../spiffe/bundle.ts'
import type { RegistrationEntry } from '../spiffe/registration-entry.ts'
import type { SpiffeId } from '../spiffe/spiffe-id.ts'

export interface EntryLookup {
  /**
   * Everything the agent may serve (api.md §7.3): children of its ID and of its aliases,
   * recursively.
   */
  authorizedEntries(agentId: SpiffeId): readonly RegistrationEntry[]
  /**
   * One of them, without walking the others: signing costs the same with one entry and 100,000.
   */
  authorizedEntry(agentId: SpiffeId, entryId: string): RegistrationEntry | undefined
  /** Entries that give this ID to a workload: the caller's admin and downstream rights. */
  entriesBySpiffeId(id: SpiffeId): readonly RegistrationEntry[]
}

export interface AgentLookup {
  /** May lag behind the database, so a denial is never based on it alone. */
  get(id: SpiffeId): Promise<AttestedAgent | undefined>
}

export interface BundleLookup {
  /** The own trust domain's, at most a second old; undefined before the first authority. */
  ownBundle(): Promise<Bundle | undefined>
}

export interface LedgerLookup {
  /** Was a certificate with this serial (big-endian, no sign byte) issued here? */
  hasSerial(serialNumber: Uint8Array): Promise<boolean>
}
