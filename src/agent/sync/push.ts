/**
 * The client half of `signet.sync.v1`: what one message after the other makes of the state the
 * agent holds. Messages without cursor are parts of one change and are gathered; the one with a
 * cursor applies them together. A count that does not fit, or a page out of place, is answered by
 * asking for everything again: a cursor grants nothing and missing one loses nothing.
 */
import { SignetError } from '../../base/error.ts'
import { ENTRIES_PER_AGENT_MAX } from '../../base/limits.ts'
import type { Log } from '../../base/ports.ts'
import type { Bundle } from '../../spiffe/bundle.ts'
import type { SyncRequest, SyncResponse } from '../../wire/gen/signet/sync/v1/sync.ts'
import type { BidiCall } from '../../wire/transport/bidi.ts'
import type { AuthorizedEntry } from '../entry.ts'
import { bundleFromProto } from './convert.ts'
import { parseEntries } from './entry-sync.ts'

export type PushStream = BidiCall<SyncRequest, SyncResponse>

/** One change, complete. */
export interface PushChange {
  /** True: replaces everything held before. */
  readonly snapshot: boolean
  readonly upserts: readonly AuthorizedEntry[]
  readonly removals: readonly string[]
  readonly bundles: readonly Bundle[]
  readonly trustDomainsRemoved: readonly string[]
  readonly cursor: string
}

export interface PushAssembler {
  /** A complete change when this message ends one; undefined for a part or a heartbeat. */
  accept(message: SyncResponse): PushChange | undefined
}

interface Draft {
  snapshot: boolean
  upserts: Map<string, AuthorizedEntry>
  removals: Set<string>
  bundles: Map<string, Bundle>
  trustDomainsRemoved: Set<string>
  /** As received, malformed ones included: what SnapshotEnd counts. */
  entryCount: number
  bundleCount: number
}

export function createPushAssembler(log: Log): PushAssembler {
  let draft: Draft | undefined
  return {
    accept(message) {
      if (message.heartbeat !== undefined) return undefined
      if (message.snapshotBegin !== undefined) draft = emptyDraft(true)
      else if (message.snapshotPage !== undefined) {
        if (!draft?.snapshot) throw broken('snapshot page outside of a snapshot')
        addPage(draft, message.snapshotPage.entries, message.snapshotPage.bundles, log)
      } else if (message.snapshotEnd !== undefined) {
        if (!draft?.snapshot) throw broken('end of a snapshot that did not begin')
        const { entryCount, bundleCount } = message.snapshotEnd
        if (draft.entryCount !== entryCount || draft.bundleCount !== bundleCount) {
          throw broken('snapshot is incomplete')
        }
      } else if (message.delta !== undefined) {
        if (draft?.snapshot) throw broken('delta inside of a snapshot')
        draft ??= emptyDraft(false)
        addDelta(draft, message.delta, log)
      }
      if (message.cursor === '' || draft === undefined) return undefined
      const complete = draft
      draft = undefined
      return toChange(complete, message.cursor)
    },
  }
}

function addPage(
  draft: Draft,
  entries: Parameters<typeof parseEntries>[0],
  bundles: Parameters<typeof parseBundles>[0],
  log: Log,
): void {
  draft.entryCount += entries.length
  if (draft.entryCount > ENTRIES_PER_AGENT_MAX) throw broken('too many entries')
  draft.bundleCount += bundles.length
  for (const entry of parseEntries(entries, log)) {
    draft.removals.delete(entry.id)
    draft.upserts.set(entry.id, entry)
  }
  for (const bundle of parseBundles(bundles, log)) {
    draft.trustDomainsRemoved.delete(bundle.trustDomain)
    draft.bundles.set(bundle.trustDomain, bundle)
  }
}

/** Removals come first: a part may remove an entry and the next bring it back. */
function addDelta(draft: Draft, delta: NonNullable<SyncResponse['delta']>, log: Log): void {
  for (const id of delta.entryIdsRemoved) {
    draft.upserts.delete(id)
    draft.removals.add(id)
  }
  for (const trustDomain of delta.trustDomainsRemoved) {
    draft.bundles.delete(trustDomain)
    draft.trustDomainsRemoved.add(trustDomain)
  }
  addPage(draft, delta.entriesUpserted, delta.bundlesUpserted, log)
}

/** Malformed bundles are skipped: what is known of that trust domain stays. */
function parseBundles(
  protos: readonly Parameters<typeof bundleFromProto>[0][],
  log: Log,
): Bundle[] {
  const bundles: Bundle[] = []
  for (const proto of protos) {
    try {
      bundles.push(bundleFromProto(proto))
    } catch (error) {
      if (!(error instanceof SignetError)) throw error
      log.warn(
        'Received malformed bundle from SPIRE server; are the server and agent versions compatible?',
        { trust_domain_id: proto.trustDomain, error: error.message },
      )
    }
  }
  return bundles
}

function toChange(draft: Draft, cursor: string): PushChange {
  return {
    snapshot: draft.snapshot,
    upserts: [...draft.upserts.values()],
    removals: [...draft.removals],
    bundles: [...draft.bundles.values()],
    trustDomainsRemoved: [...draft.trustDomainsRemoved],
    cursor,
  }
}

function emptyDraft(snapshot: boolean): Draft {
  return {
    snapshot,
    upserts: new Map(),
    removals: new Set(),
    bundles: new Map(),
    trustDomainsRemoved: new Set(),
    entryCount: 0,
    bundleCount: 0,
  }
}

function broken(text: string): SignetError {
  return new SignetError('internal', 'push_protocol_broken', text)
}
