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

/** Every field the agent holds; lists in order, as servers keep it. */
export function sameEntry(a: AuthorizedEntry, b: AuthorizedEntry): boolean {
  return (
    a.id === b.id &&
    a.revisionNumber === b.revisionNumber &&
    a.createdAt === b.createdAt &&
    a.spiffeId.equals(b.spiffeId) &&
    a.hint === b.hint &&
    a.admin === b.admin &&
    a.downstream === b.downstream &&
    a.storeSvid === b.storeSvid &&
    a.disableX509SvidPrefetch === b.disableX509SvidPrefetch &&
    a.jwtSvidIncludeJti === b.jwtSvidIncludeJti &&
    a.federatesWith.length === b.federatesWith.length &&
    a.federatesWith.every((trustDomain, i) => trustDomain === b.federatesWith[i]) &&
    a.selectors.length === b.selectors.length &&
    a.selectors.every((selector, i) => {
      const other = b.selectors[i]!
      return selector.type === other.type && selector.value === other.value
    })
  )
}
