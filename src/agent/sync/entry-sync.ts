/**
 * The client half of SyncAuthorizedEntries (api.md §7.3): a small set comes whole; of a large one
 * come the revisions first, then the entries that are new or differ are asked for by ID.
 *
 * Only what the agent holds and what the server says decides; the stream is a parameter.
 */
import { SignetError } from '../../base/error.ts'
import { ENTRIES_PER_AGENT_MAX } from '../../base/limits.ts'
import type { Log } from '../../base/ports.ts'
import { AGENT_ENTRY_MASK } from '../../wire/convert/entry.ts'
import type {
  EntryRevision,
  SyncAuthorizedEntriesRequest,
  SyncAuthorizedEntriesResponse,
} from '../../wire/gen/spire/api/server/entry/v1/entry.ts'
import type { Entry as EntryProto } from '../../wire/gen/spire/api/types/entry.ts'
import type { BidiCall } from '../../wire/transport/bidi.ts'
import { type AuthorizedEntry, type EntryDelta, sameEntry } from '../entry.ts'
import { entryFromProto } from './convert.ts'

export type EntryStream = BidiCall<SyncAuthorizedEntriesRequest, SyncAuthorizedEntriesResponse>

const MALFORMED = 'malformed entry from SPIRE server; are the server and agent versions compatible?'

/** What must be done to `known` to hold what the server authorizes now. */
export async function syncEntries(
  stream: EntryStream,
  known: ReadonlyMap<string, AuthorizedEntry>,
  log: Log,
): Promise<EntryDelta> {
  try {
    stream.send({ outputMask: AGENT_ENTRY_MASK, ids: [] })
    const first = await receive(stream)
    if (first.entryRevisions.length === 0) {
      return wholeSetDelta(parseEntries(first.entries, log), known)
    }
    const pageSize = first.entryRevisions.length
    const revisions = await receiveRevisions(stream, first)
    const wanted = staleIds(revisions, known, log)
    const fetched = await fetchEntries(stream, wanted, pageSize, log)
    stream.end()
    return revisionDelta(revisions, fetched, known)
  } finally {
    stream.cancel()
  }
}

async function receiveRevisions(
  stream: EntryStream,
  first: SyncAuthorizedEntriesResponse,
): Promise<EntryRevision[]> {
  const revisions = [...first.entryRevisions]
  for (let more = first.more; more; ) {
    const page = await receive(stream)
    if (page.entries.length > 0)
      throw broken('unexpected entry in response receiving entry revisions')
    revisions.push(...page.entryRevisions)
    if (revisions.length > ENTRIES_PER_AGENT_MAX) throw broken('too many entry revisions')
    more = page.more
  }
  return revisions
}

async function fetchEntries(
  stream: EntryStream,
  wanted: readonly string[],
  pageSize: number,
  log: Log,
): Promise<AuthorizedEntry[]> {
  const fetched: AuthorizedEntry[] = []
  for (let start = 0; start < wanted.length; start += pageSize) {
    stream.send({ outputMask: undefined, ids: wanted.slice(start, start + pageSize) })
    for (let more = true; more; ) {
      const page = await receive(stream)
      if (page.entryRevisions.length > 0) {
        throw broken('unexpected entry revisions in response to requested entries')
      }
      fetched.push(...parseEntries(page.entries, log))
      more = page.more
    }
  }
  return fetched
}

function staleIds(
  revisions: readonly EntryRevision[],
  known: ReadonlyMap<string, AuthorizedEntry>,
  log: Log,
): string[] {
  const wanted: string[] = []
  for (const revision of revisions) {
    if (revision.id === '' || revision.revisionNumber < 0n) {
      log.warn(
        'Received malformed entry revision from SPIRE server; are the server and agent versions compatible?',
        {
          entry: revision.id,
          revision_number: revision.revisionNumber.toString(),
        },
      )
      continue
    }
    if (isStale(known.get(revision.id), revision.revisionNumber, revision.createdAt)) {
      wanted.push(revision.id)
    }
  }
  return wanted.sort()
}

/** Creation time 0 comes from servers that do not send it. */
function isStale(
  entry: AuthorizedEntry | undefined,
  revisionNumber: bigint,
  createdAt: bigint,
): boolean {
  if (entry === undefined || entry.revisionNumber !== revisionNumber) return true
  return createdAt !== 0n && entry.createdAt !== Number(createdAt)
}

function wholeSetDelta(
  entries: readonly AuthorizedEntry[],
  known: ReadonlyMap<string, AuthorizedEntry>,
): EntryDelta {
  const ids = new Set(entries.map((entry) => entry.id))
  return {
    upserts: entries.filter((entry) => {
      const before = known.get(entry.id)
      return before === undefined || !sameEntry(before, entry)
    }),
    removals: [...known.keys()].filter((id) => !ids.has(id)),
  }
}

function revisionDelta(
  revisions: readonly EntryRevision[],
  fetched: readonly AuthorizedEntry[],
  known: ReadonlyMap<string, AuthorizedEntry>,
): EntryDelta {
  const ids = new Set(revisions.map((revision) => revision.id))
  return { upserts: fetched, removals: [...known.keys()].filter((id) => !ids.has(id)) }
}

/** Malformed entries are skipped, never the ones beside them. */
export function parseEntries(protos: readonly EntryProto[], log: Log): AuthorizedEntry[] {
  const entries: AuthorizedEntry[] = []
  for (const proto of protos) {
    try {
      entries.push(entryFromProto(proto))
    } catch (error) {
      if (!(error instanceof SignetError)) throw error
      log.warn(`Received ${MALFORMED}`, { entry: proto.id, error: error.message })
    }
  }
  return entries
}

async function receive(stream: EntryStream): Promise<SyncAuthorizedEntriesResponse> {
  const response = await stream.receive()
  if (response === undefined) throw broken('server ended the stream early')
  return response
}

function broken(text: string): SignetError {
  return new SignetError('internal', 'sync_protocol_broken', text)
}
