/**
 * What the server's RPC handlers need from state. `datastore/` implements these on PostgreSQL.
 *
 * Every mutating call is one transaction that also writes the audit record and the change-log row;
 * when it resolves, the write is durable. Batches are atomic per item, not over the batch
 * (api.md §5.1), but are carried by as few statements as possible: entries are created at
 * ≥ 5,000 a second.
 *
 * All calls reject with SignetError; a lost or refused database is `unavailable` with
 * `retryAfterSeconds`.
 */
import type { Outcome } from '../base/error.ts'
import type { EpochSeconds } from '../base/ports.ts'
import type { AttestedAgent } from '../spiffe/attested-agent.ts'
import type { Bundle } from '../spiffe/bundle.ts'
import type { RegistrationEntry } from '../spiffe/registration-entry.ts'
import type { MatchBehavior, Selector } from '../spiffe/selector.ts'
import type { SpiffeId } from '../spiffe/spiffe-id.ts'

/** Who does it, for the audit record. */
export interface Actor {
  /** `local` (admin socket), `admin`, `agent`, `downstream`, `nobody` (anonymous TCP) or `server` (jobs). */
  readonly kind: 'local' | 'admin' | 'agent' | 'downstream' | 'nobody' | 'server'
  /** SPIFFE ID, or `uid:N` on the admin socket. */
  readonly id: string
  readonly requestId: string
}

export interface PageRequest {
  /** Zero or less: everything, no token. */
  readonly size: number
  /** As returned before, or empty. A token that is no decimal number rejects as internal (api.md §5.3). */
  readonly token: string
}

/** `nextToken` is set whenever a paged answer held a row, so a last page is followed by an empty one. */
export interface Page<T> {
  readonly rows: readonly T[]
  readonly nextToken: string
}

export interface SetFilter {
  /** Selector keys (`type:value`) or trust domain names. */
  readonly keys: readonly string[]
  readonly match: MatchBehavior
}

export interface EntryFilter {
  readonly spiffeId?: SpiffeId
  readonly parentId?: SpiffeId
  readonly selectors?: SetFilter
  readonly federatesWith?: SetFilter
  readonly hint?: string
  /** Only those of downstream servers; there is no filter for the others. */
  readonly downstream?: true
}

/** An entry as it is asked for; an empty `id` lets the store make a UUID. */
export type EntryDraft = Omit<RegistrationEntry, 'revisionNumber' | 'createdAt'>

/** `id` names the entry; only the fields present are changed. */
export type EntryPatch = Pick<RegistrationEntry, 'id'> & Partial<Omit<EntryDraft, 'id'>>

export interface EntryStore {
  /**
   * Item errors: already_exists `similar_entry` with the stored entry as the outcome's `value`;
   * already_exists `entry_id_taken`; internal `federated_bundle_missing`.
   */
  createEntries(drafts: readonly EntryDraft[], actor: Actor): Promise<Outcome<RegistrationEntry>[]>
  /**
   * revisionNumber grows on every success. Item errors: not_found; internal
   * `federated_bundle_missing`; invalid_argument `bad_entry` for what the entry as a whole may not be.
   */
  updateEntries(patches: readonly EntryPatch[], actor: Actor): Promise<Outcome<RegistrationEntry>[]>
  deleteEntries(ids: readonly string[], actor: Actor): Promise<Outcome<string>[]>
  getEntry(id: string): Promise<RegistrationEntry | undefined>
  listEntries(filter: EntryFilter, page: PageRequest): Promise<Page<RegistrationEntry>>
  countEntries(filter: EntryFilter): Promise<number>
  /** Deletes entries whose `expiresAt` has passed; how many. */
  pruneEntries(now: EpochSeconds, actor: Actor): Promise<number>
}

export interface AgentFilter {
  readonly attestationType?: string
  readonly selectors?: SetFilter
  readonly banned?: boolean
  readonly canReattest?: boolean
  readonly expiresBefore?: EpochSeconds
}

export interface AgentAttestation {
  readonly id: SpiffeId
  readonly attestationType: string
  /** Decimal serial of the certificate just signed. */
  readonly serialNumber: string
  readonly expiresAt: EpochSeconds
  readonly canReattest: boolean
  /** Replace the stored set. */
  readonly selectors: readonly Selector[]
  /** Used when the agent is new; an existing agent keeps its cluster. */
  readonly clusterId: number
}

export interface AgentStore {
  /**
   * Creates or updates the row: serial set, pending new serial cleared, agentVersion and cluster
   * kept. Rejects permission_denied `agent_banned` when the row is banned at that moment.
   */
  recordAttestation(attestation: AgentAttestation, actor: Actor): Promise<AttestedAgent>
  getAgent(id: SpiffeId): Promise<AttestedAgent | undefined>
  listAgents(filter: AgentFilter, page: PageRequest): Promise<Page<AttestedAgent>>
  countAgents(filter: AgentFilter): Promise<number>
  /** Stores the renewed certificate as the *new* one; the current stays active. not_found when absent. */
  setNewSerial(id: SpiffeId, serialNumber: string, expiresAt: EpochSeconds): Promise<void>
  /** New becomes current, if `serialNumber` still is the new one. Idempotent under races. */
  promoteNewSerial(id: SpiffeId, serialNumber: string): Promise<AttestedAgent | undefined>
  setAgentVersion(id: SpiffeId, version: string): Promise<void>
  banAgent(id: SpiffeId, actor: Actor): Promise<void>
  /** Deletes row, selectors and, for a join-token agent, its automatic alias entry. not_found when absent. */
  deleteAgent(id: SpiffeId, actor: Actor): Promise<void>
  /** Never banned ones; non-reattestable ones only with `tofu`. How many. */
  pruneAgents(
    expiredBefore: EpochSeconds,
    options: { readonly tofu: boolean; readonly limit: number },
    actor: Actor,
  ): Promise<number>
}

export interface JoinToken {
  readonly value: string
  readonly expiresAt: EpochSeconds
  readonly clusterId: number
}

export interface JoinTokenStore {
  /** Only a SHA-256 of the value is kept. already_exists when taken. `alias` is created with it. */
  createJoinToken(token: JoinToken, alias: EntryDraft | undefined, actor: Actor): Promise<void>
  /** Deletes and returns it, expired or not: at most one caller ever gets it (I7). */
  redeemJoinToken(value: string): Promise<JoinToken | undefined>
  pruneJoinTokens(now: EpochSeconds): Promise<number>
}

export interface BundleStore {
  getBundle(trustDomain: string): Promise<Bundle | undefined>
  listBundles(page: PageRequest): Promise<Page<Bundle>>
  countBundles(): Promise<number>
  /** Adds what is missing (a tainted twin counts as present); sequence +1 only if something was added. */
  appendBundle(
    bundle: Pick<Bundle, 'trustDomain' | 'x509Authorities' | 'jwtAuthorities'>,
    actor: Actor,
  ): Promise<Bundle>
  createBundle(bundle: Bundle, actor: Actor): Promise<Bundle>
  /** Only the present parts change. not_found when absent. */
  updateBundle(bundle: Pick<Bundle, 'trustDomain'> & Partial<Bundle>, actor: Actor): Promise<Bundle>
  setBundle(bundle: Bundle, actor: Actor): Promise<Bundle>
  /** failed_precondition in mode `restrict` when entries federate with it. */
  deleteBundle(
    trustDomain: string,
    mode: 'restrict' | 'delete' | 'dissociate',
    actor: Actor,
  ): Promise<void>
  /** Removes authorities expired before `expiredBefore`, never the last of a kind. Was anything removed? */
  pruneBundle(trustDomain: string, expiredBefore: EpochSeconds, actor: Actor): Promise<boolean>
}

/** One committed change, as every server sees it, in commit order per reader. */
export type Change =
  | { readonly kind: 'entry'; readonly id: string }
  | { readonly kind: 'agent'; readonly id: string }
  | { readonly kind: 'bundle'; readonly id: string }
  | { readonly kind: 'authority'; readonly id: string }
  | { readonly kind: 'cluster'; readonly id: string }

/**
 * The change log (design.md §4). `position` is opaque: a `pg_snapshot` with the database's epoch.
 * Each commit is seen once, none is skipped, none waits for somebody's long transaction.
 */
export interface ChangeLog {
  /** Where the log stands now; read *before* the state it goes with. */
  position(): Promise<string>
  /** Changes committed after `position`; rejects failed_precondition `stale_position` when pruned or foreign. */
  readSince(
    position: string,
  ): Promise<{ readonly changes: readonly Change[]; readonly position: string }>
  /** Calls `wake` on each NOTIFY and after each reconnect; disposing stops it. */
  listen(wake: () => void): AsyncDisposable
}
