/** The Entry service (api.md §7.3), but for the sync stream. */
import type { Outcome } from '../../../../base/error.ts'
import { SignetError } from '../../../../base/error.ts'
import type { RegistrationEntry } from '../../../../spiffe/registration-entry.ts'
import {
  checkEntryPatch,
  checkNewEntry,
  entryFromProto,
  entryPatchFromProto,
  entryToProto,
} from '../../../../wire/convert/entry.ts'
import { prefixed } from '../../../../wire/convert/prefixed.ts'
import type {
  BatchCreateEntryRequest,
  BatchCreateEntryResponse,
  BatchDeleteEntryRequest,
  BatchDeleteEntryResponse,
  BatchUpdateEntryRequest,
  BatchUpdateEntryResponse,
  CountEntriesRequest,
  CountEntriesResponse,
  GetAuthorizedEntriesRequest,
  GetAuthorizedEntriesResponse,
  GetEntryRequest,
  ListEntriesRequest,
  ListEntriesResponse,
} from '../../../../wire/gen/spire/api/server/entry/v1/entry.ts'
import type { Entry, EntryMask } from '../../../../wire/gen/spire/api/types/entry.ts'
import { itemStatus, runBatch } from '../../batch.ts'
import { type CallContext, callingAgent } from '../../context.ts'
import { attempt, failed, filterFor, invalidArgument, notFound } from '../../failure.ts'
import { checkBatch, pageOf } from '../../page.ts'
import type { HandlerPorts } from '../../ports.ts'
import { entryAuditFields, entryFilterFields } from './audit-fields.ts'
import { entryFilterFromProto } from './filter.ts'

type EntryPorts = Pick<HandlerPorts, 'trustDomain' | 'entryStore' | 'entries'>

export function createEntryHandlers(ports: EntryPorts) {
  return {
    countEntries: (request: CountEntriesRequest, context: CallContext) =>
      countEntries(ports, request, context),
    listEntries: (request: ListEntriesRequest, context: CallContext) =>
      listEntries(ports, request, context),
    getEntry: (request: GetEntryRequest, context: CallContext) => getEntry(ports, request, context),
    batchCreateEntry: (request: BatchCreateEntryRequest, context: CallContext) =>
      batchCreateEntry(ports, request, context),
    batchUpdateEntry: (request: BatchUpdateEntryRequest, context: CallContext) =>
      batchUpdateEntry(ports, request, context),
    batchDeleteEntry: (request: BatchDeleteEntryRequest, context: CallContext) =>
      batchDeleteEntry(ports, request, context),
    getAuthorizedEntries: (request: GetAuthorizedEntriesRequest, context: CallContext) =>
      getAuthorizedEntries(ports, request, context),
  }
}

async function countEntries(
  ports: EntryPorts,
  request: CountEntriesRequest,
  context: CallContext,
): Promise<CountEntriesResponse> {
  context.audit.add(() => entryFilterFields(request.filter, ports.trustDomain))
  const what = 'failed to count entries'
  const filter = filterFor(what, () => entryFilterFromProto(request.filter, ports.trustDomain))
  const count = await attempt(what, ports.entryStore.countEntries(filter))
  context.audit.success()
  return { count }
}

async function listEntries(
  ports: EntryPorts,
  request: ListEntriesRequest,
  context: CallContext,
): Promise<ListEntriesResponse> {
  context.audit.add(() => entryFilterFields(request.filter, ports.trustDomain))
  const what = 'failed to list entries'
  const filter = filterFor(what, () => entryFilterFromProto(request.filter, ports.trustDomain))
  const page = await attempt(what, ports.entryStore.listEntries(filter, pageOf(request)))
  context.audit.success()
  const entries = page.rows.map((entry) => entryToProto(entry, request.outputMask))
  return { entries, nextPageToken: page.nextToken }
}

async function getEntry(
  ports: EntryPorts,
  request: GetEntryRequest,
  context: CallContext,
): Promise<Entry> {
  if (request.id === '') throw invalidArgument('missing ID')
  context.audit.add(() => ({ entry_id: request.id }))
  const entry = await attempt('failed to fetch entry', ports.entryStore.getEntry(request.id))
  if (entry === undefined) throw notFound('entry not found')
  context.audit.success()
  return entryToProto(entry, request.outputMask)
}

async function batchCreateEntry(
  ports: EntryPorts,
  request: BatchCreateEntryRequest,
  context: CallContext,
): Promise<BatchCreateEntryResponse> {
  checkBatch(request.entries)
  const outcomes = await runBatch(
    request.entries,
    (proto) => {
      const draft = prefixed('failed to convert entry', () =>
        entryFromProto(proto, ports.trustDomain),
      )
      prefixed('failed to create entry', () => checkNewEntry(draft))
      return draft
    },
    async (drafts) => {
      const created = await attempt(
        'failed to create entry',
        ports.entryStore.createEntries(drafts, context.actor),
      )
      return created.map(creation)
    },
  )
  const results = outcomes.map((outcome, i) => {
    const result = entryResult(outcome, request.outputMask, context)
    const error = outcome.ok ? undefined : outcome.error
    context.audit.item(error, () => entryAuditFields(request.entries[i]!))
    return result
  })
  return { results }
}

/**
 * A similar entry is no failure to explain: the text stands alone and the stored entry comes
 * along.
 */
function creation(outcome: Outcome<RegistrationEntry>): Outcome<RegistrationEntry> {
  if (outcome.ok) return outcome
  if (outcome.error.code === 'similar_entry' && outcome.value !== undefined) {
    const error = new SignetError('already_exists', 'similar_entry', 'similar entry already exists')
    return { ok: false, error, value: outcome.value }
  }
  return { ok: false, error: failed('failed to create entry', outcome.error) }
}

async function batchUpdateEntry(
  ports: EntryPorts,
  request: BatchUpdateEntryRequest,
  context: CallContext,
): Promise<BatchUpdateEntryResponse> {
  checkBatch(request.entries)
  const outcomes = await runBatch(
    request.entries,
    (proto) => {
      const patch = prefixed('failed to convert entry', () =>
        entryPatchFromProto(proto, ports.trustDomain, request.inputMask),
      )
      prefixed('failed to update entry', () => checkEntryPatch(patch))
      return patch
    },
    async (patches) => {
      const updated = await attempt(
        'failed to update entry',
        ports.entryStore.updateEntries(patches, context.actor),
      )
      return updated.map((outcome) =>
        outcome.ok ? outcome : { ok: false, error: updateError(outcome.error) },
      )
    },
  )
  const results = outcomes.map((outcome, i) => {
    const result = entryResult(outcome, request.outputMask, context)
    const error = outcome.ok ? undefined : outcome.error
    context.audit.item(error, () => entryAuditFields(request.entries[i]!, request.inputMask))
    return result
  })
  return { results }
}

function updateError(error: SignetError): SignetError {
  const what = 'failed to update entry'
  return error.kind === 'not_found' ? notFound(what) : failed(what, error)
}

function entryResult(
  outcome: Outcome<RegistrationEntry>,
  mask: EntryMask | undefined,
  context: CallContext,
) {
  const entry = outcome.value === undefined ? undefined : entryToProto(outcome.value, mask)
  // AlreadyExists is the normal end of a repeated create: not worth an error line.
  if (!outcome.ok && outcome.error.code === 'similar_entry') {
    return { status: { code: 6, message: outcome.error.message }, entry }
  }
  return { status: itemStatus(context, outcome.ok ? undefined : outcome.error), entry }
}

async function batchDeleteEntry(
  ports: EntryPorts,
  request: BatchDeleteEntryRequest,
  context: CallContext,
): Promise<BatchDeleteEntryResponse> {
  checkBatch(request.ids)
  const outcomes = await runBatch(
    request.ids,
    (id) => {
      if (id === '') throw invalidArgument('missing entry ID')
      return id
    },
    async (ids) => {
      const deletion = ports.entryStore.deleteEntries(ids, context.actor)
      const deleted = await attempt('failed to delete entry', deletion)
      return deleted.map((outcome) =>
        outcome.ok ? outcome : { ok: false as const, error: deletionError(outcome.error) },
      )
    },
  )
  const results = outcomes.map((outcome, i) => {
    const id = request.ids[i]!
    const error = outcome.ok ? undefined : outcome.error
    context.audit.item(error, () => ({ entry_id: id }))
    return { status: itemStatus(context, error), id }
  })
  return { results }
}

function deletionError(error: SignetError): SignetError {
  if (error.kind === 'not_found') return notFound('entry not found')
  return failed('failed to delete entry', error)
}

async function getAuthorizedEntries(
  ports: EntryPorts,
  request: GetAuthorizedEntriesRequest,
  context: CallContext,
): Promise<GetAuthorizedEntriesResponse> {
  const entries = ports.entries.authorizedEntries(callingAgent(context).id)
  context.audit.success()
  return { entries: entries.map((entry) => entryToProto(entry, request.outputMask)) }
}
