/**
 * SyncAuthorizedEntries (api.md §7.3): SPIRE's agents poll with it every five seconds. One
 * snapshot per stream; a small set goes whole in one message, a large one as revisions first, and
 * then as the entries the agent asks for.
 *
 * Differs from SPIRE: pages also end by size, because 500 entries with many selectors exceed the
 * 4 MiB that gRPC clients take, and SPIRE's agents then never sync again.
 */
import { SYNC_PAGE_BYTES, SYNC_PAGE_SIZE } from '../../../../base/limits.ts'
import type { RegistrationEntry } from '../../../../spiffe/registration-entry.ts'
import { entryToProto } from '../../../../wire/convert/entry.ts'
import type {
  SyncAuthorizedEntriesRequest,
  SyncAuthorizedEntriesResponse,
} from '../../../../wire/gen/spire/api/server/entry/v1/entry.ts'
import type { EntryMask } from '../../../../wire/gen/spire/api/types/entry.ts'
import { type CallContext, callingAgent } from '../../context.ts'
import { invalidArgument } from '../../failure.ts'
import type { HandlerPorts } from '../../ports.ts'
import type { Stream } from '../../route.ts'

export type SyncStream = Stream<SyncAuthorizedEntriesRequest, SyncAuthorizedEntriesResponse>

export async function syncAuthorizedEntries(
  ports: Pick<HandlerPorts, 'entries'>,
  stream: SyncStream,
  context: CallContext,
): Promise<void> {
  const entries = ports.entries.authorizedEntries(callingAgent(context).id)
  const mask = await receiveMask(stream)
  const pages = pagesOf(entries)
  if (pages.length === 1) {
    await stream.send(entriesMessage(pages[0]!, mask, false))
  } else {
    await sendRevisions(stream, entries)
    await serveEntries(stream, entries, mask, context)
  }
  context.audit.success()
}

async function receiveMask(stream: SyncStream): Promise<EntryMask | undefined> {
  const first = await stream.receive()
  if (first === undefined) throw invalidArgument('missing request')
  if (first.ids.length > 0) {
    throw invalidArgument('specifying IDs on initial request is not supported')
  }
  if (first.outputMask !== undefined && !first.outputMask.revisionNumber) {
    throw invalidArgument('revision number cannot be masked')
  }
  return first.outputMask
}

async function sendRevisions(
  stream: SyncStream,
  entries: readonly RegistrationEntry[],
): Promise<void> {
  for (let start = 0; start < entries.length; start += SYNC_PAGE_SIZE) {
    const page = entries.slice(start, start + SYNC_PAGE_SIZE)
    const entryRevisions = page.map(({ id, revisionNumber, createdAt }) => ({
      id,
      revisionNumber,
      createdAt: BigInt(createdAt),
    }))
    const more = start + SYNC_PAGE_SIZE < entries.length
    await stream.send({ entryRevisions, entries: [], more })
  }
}

/** Answers each request for ids on its own, until the agent is done or gone. */
async function serveEntries(
  stream: SyncStream,
  entries: readonly RegistrationEntry[],
  mask: EntryMask | undefined,
  context: CallContext,
): Promise<void> {
  const byId = new Map(entries.map((entry) => [entry.id, entry]))
  for (;;) {
    const request = await receiveOrDone(stream, context)
    if (request === undefined) return
    const found = [...new Set(request.ids)].sort().flatMap((id) => byId.get(id) ?? [])
    const pages = pagesOf(found)
    for (const [i, page] of pages.entries()) {
      await stream.send(entriesMessage(page, mask, i < pages.length - 1))
    }
  }
}

/** An agent that has what it needs may cancel instead of half-closing. */
async function receiveOrDone(
  stream: SyncStream,
  context: CallContext,
): Promise<SyncAuthorizedEntriesRequest | undefined> {
  try {
    return await stream.receive()
  } catch (thrown) {
    if (context.signal.aborted) return undefined
    throw thrown
  }
}

/** At least one page, so that an empty set is answered as well. */
function pagesOf(entries: readonly RegistrationEntry[]): RegistrationEntry[][] {
  const pages: RegistrationEntry[][] = [[]]
  let bytes = 0
  for (const entry of entries) {
    const size = sizeEstimate(entry)
    const page = pages[pages.length - 1]!
    if (page.length === SYNC_PAGE_SIZE || (page.length > 0 && bytes + size > SYNC_PAGE_BYTES)) {
      pages.push([entry])
      bytes = size
    } else {
      page.push(entry)
      bytes += size
    }
  }
  return pages
}

/**
 * At least what the entry takes on the wire, without encoding it: text is three bytes a unit at
 * most.
 */
function sizeEstimate(entry: RegistrationEntry): number {
  let units = entry.id.length + entry.hint.length
  units += entry.spiffeId.toString().length + entry.parentId.toString().length
  let fields = 40
  for (const { type, value } of entry.selectors) {
    units += type.length + value.length
    fields += 3
  }
  for (const name of entry.dnsNames) units += name.length
  for (const name of entry.federatesWith) units += name.length
  fields += entry.dnsNames.length + entry.federatesWith.length
  return units * 3 + fields * 6
}

function entriesMessage(
  page: readonly RegistrationEntry[],
  mask: EntryMask | undefined,
  more: boolean,
): SyncAuthorizedEntriesResponse {
  return { entryRevisions: [], entries: page.map((entry) => entryToProto(entry, mask)), more }
}
