/** Rows of `signet.entry` and the entries they are. */
import type { EpochSeconds } from '../../../base/ports.ts'
import type { RegistrationEntry } from '../../../spiffe/registration-entry.ts'
import { parseSelector, type Selector, selectorKey } from '../../../spiffe/selector.ts'
import { SpiffeId } from '../../../spiffe/spiffe-id.ts'
import type { EntryDraft, EntryPatch } from '../../ports.ts'

/** Arrays travel as JSON: the driver's own array parser is many times slower. */
export const ENTRY_COLUMNS = `row_id, id, spiffe_id, parent_id, to_json(selectors) as selectors,
  x509_svid_ttl_seconds, jwt_svid_ttl_seconds, to_json(federates_with) as federates_with, admin,
  downstream, expires_at, to_json(dns_names) as dns_names, revision_number, store_svid, hint,
  created_at, disable_x509_svid_prefetch, jwt_svid_include_jti`

export interface EntryRow {
  readonly row_id: number
  readonly id: string
  readonly spiffe_id: string
  readonly parent_id: string
  readonly selectors: readonly string[]
  readonly x509_svid_ttl_seconds: number
  readonly jwt_svid_ttl_seconds: number
  readonly federates_with: readonly string[]
  readonly admin: boolean
  readonly downstream: boolean
  readonly expires_at: EpochSeconds
  readonly dns_names: readonly string[]
  readonly revision_number: number
  readonly store_svid: boolean
  readonly hint: string
  readonly created_at: EpochSeconds
  readonly disable_x509_svid_prefetch: boolean
  readonly jwt_svid_include_jti: boolean
}

const NONE: readonly never[] = []

/**
 * `shared` interns what many entries have in common (parents, selectors): 100,000 entries then fit
 * into the memory budget of design.md §9.
 */
export function toEntry(row: EntryRow, shared: Interned = createInterned()): RegistrationEntry {
  return {
    id: row.id,
    spiffeId: SpiffeId.parse(row.spiffe_id),
    parentId: shared.id(row.parent_id),
    selectors: row.selectors.map(shared.selector),
    x509SvidTtlSeconds: row.x509_svid_ttl_seconds,
    jwtSvidTtlSeconds: row.jwt_svid_ttl_seconds,
    federatesWith: row.federates_with.length === 0 ? NONE : row.federates_with,
    admin: row.admin,
    downstream: row.downstream,
    expiresAt: row.expires_at,
    dnsNames: row.dns_names.length === 0 ? NONE : row.dns_names,
    revisionNumber: BigInt(row.revision_number),
    storeSvid: row.store_svid,
    hint: row.hint,
    createdAt: row.created_at,
    disableX509SvidPrefetch: row.disable_x509_svid_prefetch,
    jwtSvidIncludeJti: row.jwt_svid_include_jti,
  }
}

export interface Interned {
  id(text: string): SpiffeId
  selector(key: string): Selector
}

/** Bounded: sets of distinct values (one selector per pod) must not live on in the interner. */
const INTERNED_MAX = 10_000

export function createInterned(): Interned {
  return { id: interner(SpiffeId.parse), selector: interner(parseSelector) }
}

function interner<T>(make: (text: string) => T): (text: string) => T {
  const known = new Map<string, T>()
  return (text) => {
    const found = known.get(text)
    if (found !== undefined) return found
    const made = make(text)
    if (known.size < INTERNED_MAX) known.set(text, made)
    return made
  }
}

/** Columns of `json_to_recordset` for drafts and patches; absent ones are null. */
export const DRAFT_COLUMNS = `id text, spiffe_id text, parent_id text, selectors text[],
  x509_svid_ttl_seconds integer, jwt_svid_ttl_seconds integer, federates_with text[],
  admin boolean, downstream boolean, expires_at bigint, dns_names text[], store_svid boolean,
  hint text, disable_x509_svid_prefetch boolean, jwt_svid_include_jti boolean`

/** As `DRAFT_COLUMNS` name them; JSON leaves out what is undefined. */
export function toDraftRow(draft: EntryDraft | EntryPatch) {
  const set = (values: readonly string[] | undefined) => values && [...new Set(values)]
  return {
    id: draft.id,
    spiffe_id: draft.spiffeId?.toString(),
    parent_id: draft.parentId?.toString(),
    selectors: set(draft.selectors?.map(selectorKey)),
    x509_svid_ttl_seconds: draft.x509SvidTtlSeconds,
    jwt_svid_ttl_seconds: draft.jwtSvidTtlSeconds,
    federates_with: set(draft.federatesWith),
    admin: draft.admin,
    downstream: draft.downstream,
    expires_at: draft.expiresAt,
    dns_names: draft.dnsNames,
    store_svid: draft.storeSvid,
    hint: draft.hint,
    disable_x509_svid_prefetch: draft.disableX509SvidPrefetch,
    jwt_svid_include_jti: draft.jwtSvidIncludeJti,
  }
}

export type DraftRow = ReturnType<typeof toDraftRow>

/** PostgreSQL's text has no NUL: one such item must not fail its batch. */
export function holdsNul(row: DraftRow): boolean {
  return JSON.stringify(row).includes('\\u0000')
}
