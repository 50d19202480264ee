/**
 * Messages of the push stream: what agents get to see of entries, and pages that stay far under
 * what gRPC peers accept, whatever entries and bundles hold.
 */
import { SYNC_ENTRIES_PER_MESSAGE, SYNC_MESSAGE_BYTES } from '../../base/limits.ts'
import type { Bundle } from '../../spiffe/bundle.ts'
import type { RegistrationEntry } from '../../spiffe/registration-entry.ts'
import { bundleToProto } from '../../wire/convert/bundle.ts'
import { AGENT_ENTRY_MASK, entryToProto } from '../../wire/convert/entry.ts'
import type { SyncResponse } from '../../wire/gen/signet/sync/v1/sync.ts'

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
  const items = deltaItems({ upserted: entries, removed: [], bundles, domainsRemoved: [] })
  for (const { entriesUpserted, bundlesUpserted } of packed(items)) {
    yield { cursor: '', snapshotPage: { entries: entriesUpserted, bundles: bundlesUpserted } }
  }
  const counts = { entryCount: entries.length, bundleCount: bundles.length }
  yield { cursor, snapshotEnd: counts }
}

/** At least one message, so that a change that left nothing to say still moves the cursor. */
export function* deltaMessages(parts: DeltaParts, cursor: string): Iterable<SyncResponse> {
  let held: Delta = emptyDelta()
  let isFirst = true
  for (const delta of packed(deltaItems(parts))) {
    if (!isFirst) yield { cursor: '', delta: held }
    held = delta
    isFirst = false
  }
  yield { cursor, delta: held }
}

type Delta = NonNullable<SyncResponse['delta']>

interface Item {
  readonly bytes: number
  /** Called when its message is made, not before: entries are encoded as the reader takes them. */
  put(delta: Delta): void
}

/** Removals first, as they are applied; bundles next, since SVIDs are verified against them. */
function* deltaItems(parts: DeltaParts): Iterable<Item> {
  for (const name of parts.domainsRemoved) {
    yield { bytes: name.length + 4, put: (delta) => delta.trustDomainsRemoved.push(name) }
  }
  for (const id of parts.removed) {
    yield { bytes: id.length + 4, put: (delta) => delta.entryIdsRemoved.push(id) }
  }
  for (const bundle of parts.bundles) {
    const put = (delta: Delta) => delta.bundlesUpserted.push(bundleToProto(bundle))
    yield { bytes: bundleBytes(bundle), put }
  }
  for (const entry of parts.upserted) {
    const put = (delta: Delta) => delta.entriesUpserted.push(entryToProto(entry, AGENT_ENTRY_MASK))
    yield { bytes: entryBytes(entry), put }
  }
}

/** One item may be larger than a message should be; it then travels alone. */
function* packed(items: Iterable<Item>): Iterable<Delta> {
  let delta = emptyDelta()
  let bytes = 0
  for (const item of items) {
    const isFull =
      delta.entriesUpserted.length === SYNC_ENTRIES_PER_MESSAGE ||
      bytes + item.bytes > SYNC_MESSAGE_BYTES
    if (isFull && bytes > 0) {
      yield delta
      delta = emptyDelta()
      bytes = 0
    }
    item.put(delta)
    bytes += item.bytes
  }
  if (bytes > 0) yield delta
}

function emptyDelta(): Delta {
  return {
    entriesUpserted: [],
    entryIdsRemoved: [],
    bundlesUpserted: [],
    trustDomainsRemoved: [],
  }
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
