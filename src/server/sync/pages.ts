/**
 * Messages of the push stream: what agents get to see of entries, and pages that stay far under
 * what gRPC peers accept, whatever entries and bundles hold.
 */
import { SYNC_ENTRIES_PER_MESSAGE, SYNC_MESSAGE_BYTES } from '../../base/limits.ts'
import type { Bundle } from '../../spiffe/bundle.ts'
import type { RegistrationEntry } from '../../spiffe/registration-entry.ts'
import { bundleToProto } from '../../wire/convert/bundle.ts'
import { entryToProto } from '../../wire/convert/entry.ts'
import type { SyncResponse } from '../../wire/gen/signet/sync/v1/sync.ts'
import type { EntryMask } from '../../wire/gen/spire/api/types/entry.ts'

/** What SPIRE's agents ask for; parents, lifetimes, DNS names and expiry are the server's affair. */
const AGENT_ENTRY_MASK: EntryMask = {
  spiffeId: true,
  parentId: false,
  selectors: true,
  x509SvidTtl: false,
  federatesWith: true,
  admin: true,
  downstream: true,
  expiresAt: false,
  dnsNames: false,
  revisionNumber: true,
  storeSvid: true,
  jwtSvidTtl: false,
  hint: true,
  createdAt: true,
  additionalAttributes: true,
}

export interface DeltaParts {
  readonly upserted: readonly RegistrationEntry[]
  readonly removed: readonly string[]
  readonly bundles: readonly Bundle[]
  readonly domainsRemoved: readonly string[]
}

/** The last message alone has the cursor: together they are one state. */
export function* snapshotMessages(
  entries: readonly RegistrationEntry[],
  bundles: readonly Bundle[],
  cursor: string,
): Iterable<SyncResponse> {
  yield { cursor: '', snapshotBegin: {} }
  // Bundles first: an agent that starts can verify its server's renewed certificate meanwhile.
  for (const page of paged(bundles, bundleBytes)) {
    yield { cursor: '', snapshotPage: { entries: [], bundles: page.map(toBundle) } }
  }
  for (const page of paged(entries, entryBytes)) {
    yield { cursor: '', snapshotPage: { entries: page.map(toEntry), bundles: [] } }
  }
  const counts = { entryCount: entries.length, bundleCount: bundles.length }
  yield { cursor, snapshotEnd: counts }
}

/** At least one message, so that a change that left nothing to say still moves the cursor. */
export function* deltaMessages(parts: DeltaParts, cursor: string): Iterable<SyncResponse> {
  let waiting = { ...EMPTY_DELTA, trustDomainsRemoved: [...parts.domainsRemoved] }
  for (const ids of paged(parts.removed, (id) => id.length)) {
    yield { cursor: '', delta: { ...waiting, entryIdsRemoved: [...ids] } }
    waiting = EMPTY_DELTA
  }
  for (const page of paged(parts.bundles, bundleBytes)) {
    yield { cursor: '', delta: { ...waiting, bundlesUpserted: page.map(toBundle) } }
    waiting = EMPTY_DELTA
  }
  // Of the pages of entries, by far the most frequent, the last one carries the cursor.
  let held: readonly RegistrationEntry[] = []
  for (const page of paged(parts.upserted, entryBytes)) {
    if (held.length > 0) {
      yield { cursor: '', delta: { ...waiting, entriesUpserted: held.map(toEntry) } }
      waiting = EMPTY_DELTA
    }
    held = page
  }
  yield { cursor, delta: { ...waiting, entriesUpserted: held.map(toEntry) } }
}

const EMPTY_DELTA: NonNullable<SyncResponse['delta']> = {
  entriesUpserted: [],
  entryIdsRemoved: [],
  bundlesUpserted: [],
  trustDomainsRemoved: [],
}

const toEntry = (entry: RegistrationEntry) => entryToProto(entry, AGENT_ENTRY_MASK)
const toBundle = (bundle: Bundle) => bundleToProto(bundle)

/** One item may be larger than a page; it then travels alone. */
export function* paged<T>(items: readonly T[], bytesOf: (item: T) => number): Iterable<T[]> {
  let page: T[] = []
  let bytes = 0
  for (const item of items) {
    const size = bytesOf(item)
    const full = page.length === SYNC_ENTRIES_PER_MESSAGE || bytes + size > SYNC_MESSAGE_BYTES
    if (full && page.length > 0) {
      yield page
      page = []
      bytes = 0
    }
    page.push(item)
    bytes += size
  }
  if (page.length > 0) yield page
}

/** An upper bound for ASCII, and near enough for the rest: the message limit is four pages. */
function entryBytes(entry: RegistrationEntry): number {
  let bytes = 128 + entry.id.length + entry.spiffeId.toString().length + entry.hint.length
  for (const { type, value } of entry.selectors) bytes += type.length + value.length + 12
  for (const name of entry.federatesWith) bytes += name.length + 4
  return bytes
}

function bundleBytes(bundle: Bundle): number {
  let bytes = 64 + bundle.trustDomain.length
  for (const { certificate } of bundle.x509Authorities) bytes += certificate.length + 16
  for (const { keyId, publicKey } of bundle.jwtAuthorities) {
    bytes += keyId.length + publicKey.length + 32
  }
  return bytes
}
