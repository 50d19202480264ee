/**
 * Creates entries: one statement per batch makes the rows, their audit records and the change-log
 * row. An item that meets a similar entry or a taken id is left out and explained afterwards.
 */
import { type Outcome, SignetError } from '../../../base/error.ts'
import type { EpochSeconds } from '../../../base/ports.ts'
import type { RegistrationEntry } from '../../../spiffe/registration-entry.ts'
import { selectorKey } from '../../../spiffe/selector.ts'
import type { Actor, EntryDraft, EntryPatch } from '../../ports.ts'
import { actorValues } from '../context.ts'
import type { Queryable } from '../database.ts'
import { federatedBundleMissing, lockBundles } from './federation.ts'
import {
  DRAFT_COLUMNS,
  type DraftRow,
  ENTRY_COLUMNS,
  type EntryRow,
  holdsNul,
  toDraftRow,
  toEntry,
} from './row.ts'

/** A clash whose other side vanishes before it is read is tried again this often. */
const ROUNDS_MAX = 5

interface Item {
  readonly draft: EntryDraft
  readonly row: DraftRow
  outcome: Outcome<RegistrationEntry> | undefined
  /** Why it can't be stored, unless a similar entry is: that is said first. */
  refusal: SignetError | undefined
}

/** Runs inside `tx`; `drafts` have their ids. */
export async function createEntries(
  tx: Queryable,
  drafts: readonly EntryDraft[],
  now: EpochSeconds,
  actor: Actor,
): Promise<Outcome<RegistrationEntry>[]> {
  const items = drafts.map((draft): Item => {
    const row = toDraftRow(draft)
    const outcome = holdsNul(row) ? failure(badText()) : undefined
    return { draft, row, outcome, refusal: repetition(draft) }
  })
  await findMissingBundles(tx, items)
  for (let round = 0; round < ROUNDS_MAX; round++) {
    const open = firstOfEachId(
      items.filter((item) => item.outcome === undefined && item.refusal === undefined),
    )
    if (open.length === 0) break
    const made = await insert(tx, open, now, actor)
    for (const item of open) {
      if (made.has(item.draft.id)) item.outcome = { ok: true, value: asStored(item, now) }
    }
    await explain(
      tx,
      open.filter((item) => item.outcome === undefined),
    )
  }
  await refuse(tx, items)
  return items.map((item) => item.outcome ?? failure(contended()))
}

/** A similar entry is the first thing to say, as in SPIRE: callers repeat what they made before. */
async function refuse(tx: Queryable, items: readonly Item[]): Promise<void> {
  const open = items.filter((item) => item.outcome === undefined && item.refusal)
  await explain(tx, open)
  for (const item of open) item.outcome ??= failure(item.refusal!)
}

async function findMissingBundles(tx: Queryable, items: readonly Item[]): Promise<void> {
  const open = items.filter((item) => item.outcome === undefined)
  const names = new Set(open.flatMap((item) => item.draft.federatesWith))
  const stored = await lockBundles(tx, names)
  for (const item of open) {
    const missing = item.draft.federatesWith.find((name) => !stored.has(name))
    if (missing !== undefined) item.refusal = federatedBundleMissing(missing)
  }
}

/** A later item with the same id waits for the next round, where it finds the first one. */
function firstOfEachId(items: readonly Item[]): readonly Item[] {
  const seen = new Set<string>()
  return items.filter((item) => !seen.has(item.draft.id) && seen.add(item.draft.id))
}

async function insert(
  tx: Queryable,
  items: readonly Item[],
  now: EpochSeconds,
  actor: Actor,
): Promise<ReadonlySet<string>> {
  const { rows } = await tx.query<{ id: string }>(
    `with draft as materialized (
       select d.*, signet.similar_hash(d.spiffe_id, d.parent_id, d.selectors) as similar_hash
       from rows from (json_to_recordset($4::json) as (${DRAFT_COLUMNS})) with ordinality as d
     ), made as (
       insert into signet.entry (id, spiffe_id, parent_id, selectors, x509_svid_ttl_seconds,
         jwt_svid_ttl_seconds, federates_with, admin, downstream, expires_at, dns_names, store_svid,
         hint, created_at, disable_x509_svid_prefetch, jwt_svid_include_jti, similar_hash)
       select id, spiffe_id, parent_id, selectors, x509_svid_ttl_seconds,
         jwt_svid_ttl_seconds, federates_with, admin, downstream, expires_at, dns_names, store_svid,
         hint, $5, disable_x509_svid_prefetch, jwt_svid_include_jti, similar_hash
       from draft
       -- The index alone would miss a twin that an update made, see entry.twin.
       where not exists (
         select from signet.entry as e where e.similar_hash = draft.similar_hash)
       order by ordinality
       on conflict do nothing
       returning *
     ), logged as (
       insert into signet.change_log (kind, ids)
       select 'entry', array_agg(id) from made having count(*) > 0
     ), audited as (
       insert into signet.audit (actor_kind, actor_id, request_id, action, object_id, after)
       select $1, $2, $3, 'entry.create', id, signet.entry_json(made) from made
     )
     select id from made`,
    [...actorValues(actor), JSON.stringify(items.map((item) => item.row)), now],
  )
  return new Set(rows.map((row) => row.id))
}

/** Names the entry in the way, seen by a later statement than the one that met it. */
async function explain(tx: Queryable, items: readonly Item[]): Promise<void> {
  if (items.length === 0) return
  const { rows } = await tx.query<EntryRow>(
    `select ${ENTRY_COLUMNS} from signet.entry
     where id = any($2) or similar_hash in (
       select signet.similar_hash(d.spiffe_id, d.parent_id, d.selectors)
       from json_to_recordset($1::json) as d(${DRAFT_COLUMNS}))
     order by twin desc`,
    [JSON.stringify(items.map((item) => item.row)), items.map((item) => item.draft.id)],
  )
  const similar = new Map(rows.map((row) => [similarKey(row), row]))
  const ids = new Set(rows.map((row) => row.id))
  for (const item of items) {
    const twin = similar.get(similarKey(item.row))
    if (twin !== undefined) {
      item.outcome = { ok: false, error: similarEntry(), value: toEntry(twin) }
    } else if (ids.has(item.draft.id)) item.outcome = failure(idTaken())
  }
}

/** As `signet.similar_hash` sees them. */
function similarKey(row: Pick<DraftRow | EntryRow, 'spiffe_id' | 'parent_id' | 'selectors'>) {
  return JSON.stringify([row.spiffe_id, row.parent_id, [...(row.selectors ?? [])].sort()])
}

function asStored(item: Item, now: EpochSeconds): RegistrationEntry {
  return {
    ...item.draft,
    federatesWith: item.row.federates_with ?? [],
    revisionNumber: 0n,
    createdAt: now,
  }
}

function failure(error: SignetError): Outcome<RegistrationEntry> {
  return { ok: false, error }
}

function similarEntry(): SignetError {
  return new SignetError('already_exists', 'similar_entry', 'similar entry already exists')
}

function idTaken(): SignetError {
  return new SignetError('already_exists', 'entry_id_taken', 'an entry with this ID already exists')
}

/**
 * The same selector or DNS name twice: SPIRE's tables refuse it, and who compares what is stored
 * with what he asked for would never find them equal. Its code; its words name the tables.
 */
export function repetition(entry: Pick<EntryPatch, 'selectors' | 'dnsNames'>) {
  if (isRepetitive(entry.selectors?.map(selectorKey))) return repeated('selector')
  if (isRepetitive(entry.dnsNames)) return repeated('DNS name')
  return undefined
}

function isRepetitive(values: readonly string[] = []): boolean {
  return new Set(values).size < values.length
}

function repeated(what: string): SignetError {
  const text = `datastore-sql: entry has the same ${what} twice`
  return new SignetError('already_exists', 'entry_repetitive', text)
}

export function badText(): SignetError {
  return new SignetError('invalid_argument', 'bad_text', 'entry holds a NUL character')
}

function contended(): SignetError {
  return new SignetError('aborted', 'entry_contended', 'entry is being changed by others')
}
