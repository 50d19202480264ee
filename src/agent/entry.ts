/**
 * A registration entry as the agent holds it: what SyncAuthorizedEntries is asked for and no more
 * (api.md §7.3). TTLs and DNS names stay with the server, which alone decides them.
 */
import type { RegistrationEntry } from '../spiffe/registration-entry.ts'

export type AuthorizedEntry = Pick<
  RegistrationEntry,
  | 'id'
  | 'spiffeId'
  | 'selectors'
  | 'federatesWith'
  | 'admin'
  | 'downstream'
  | 'revisionNumber'
  | 'storeSvid'
  | 'hint'
  | 'createdAt'
  | 'disableX509SvidPrefetch'
  | 'jwtSvidIncludeJti'
>

/** What changed in the set of entries this agent may serve. */
export interface EntryDelta {
  readonly upserts: readonly AuthorizedEntry[]
  readonly removals: readonly string[]
}

/** By entry ID: the order of identities in every answer (api.md §12.2), the first is the default. */
export function byEntryId(a: { readonly id: string }, b: { readonly id: string }): number {
  return a.id < b.id ? -1 : a.id > b.id ? 1 : 0
}
