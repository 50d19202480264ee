/**
 * Updates entries: fields that a patch leaves out keep their value, the revision grows on every
 * success. Similar entries are not looked for: SPIRE allows an update to make them.
 */
import { type Outcome, SignetError } from '../../../base/error.ts'
import { mixedSelectorTypes, type RegistrationEntry } from '../../../spiffe/registration-entry.ts'
import type { Actor, EntryPatch } from '../../ports.ts'
import { actorValues } from '../context.ts'
import type { Queryable } from '../database.ts'
import { badText, repetition } from './create-entries.ts'
import { federatedBundleMissing, lockBundles } from './federation.ts'
import {
  DRAFT_COLUMNS,
  ENTRY_COLUMNS,
  type EntryRow,
  holdsNul,
  toDraftRow,
  toEntry,
} from './row.ts'

/** Runs inside `tx`; ids are distinct. */
export async function updateEntries(
  tx: Queryable,
  patches: readonly EntryPatch[],
  actor: Actor,
): Promise<Outcome<RegistrationEntry>[]> {
  const items = patches.map((patch) => ({ patch, row: toDraftRow(patch) }))
  const stored = await lockBundles(tx, new Set(patches.flatMap((p) => p.federatesWith ?? [])))
  const refused = new Map<string, SignetError>()
  for (const { patch, row } of items) {
    const missing = patch.federatesWith?.find((name) => !stored.has(name))
    if (missing !== undefined) refused.set(patch.id, federatedBundleMissing(missing))
    if (holdsNul(row)) refused.set(patch.id, badText())
  }
  const before = await lockEntries(tx, patches)
  for (const { patch } of items) {
    const entry = before.get(patch.id)
    if (entry === undefined) continue
    const repeated = repetition(patch)
    if (repeated !== undefined) refused.set(patch.id, repeated)
    if (!storable(entry, patch)) refused.set(patch.id, mixedSelectorTypes())
  }
  const open = items.filter((item) => !refused.has(item.patch.id))
  const updated = await update(
    tx,
    open.map((item) => item.row),
    actor,
  )
  return patches.map((patch) => {
    const entry = updated.get(patch.id)
    if (entry !== undefined) return { ok: true, value: entry }
    return { ok: false, error: refused.get(patch.id) ?? entryNotFound() }
  })
}

interface Locked {
  readonly id: string
  readonly store_svid: boolean
  /** Different types of its selectors. */
  readonly types: number
}

/** In one order everywhere, so that two batches can't hold each other's rows. */
async function lockEntries(
  tx: Queryable,
  patches: readonly EntryPatch[],
): Promise<ReadonlyMap<string, Locked>> {
  const { rows } = await tx.query<Locked>(
    `select id, store_svid,
       (select count(distinct split_part(s, ':', 1)) from unnest(selectors) as s)::integer as types
     from signet.entry where id = any($1) order by row_id for update`,
    [patches.map(({ id }) => id).filter((id) => !id.includes('\0'))],
  )
  return new Map(rows.map((row) => [row.id, row]))
}

/**
 * Of the entry as it will be.
 * Differs from SPIRE: it looks at the stored selectors only when the update names them, and so
 * lets an update that sets `store_svid` alone make an entry that no update could.
 */
function storable(entry: Locked, { selectors, storeSvid }: EntryPatch): boolean {
  if (!(storeSvid ?? entry.store_svid)) return true
  if (selectors === undefined && storeSvid === undefined) return true
  return (selectors ? new Set(selectors.map(({ type }) => type)).size : entry.types) <= 1
}

async function update(
  tx: Queryable,
  rows: readonly ReturnType<typeof toDraftRow>[],
  actor: Actor,
): Promise<ReadonlyMap<string, RegistrationEntry>> {
  if (rows.length === 0) return new Map()
  const result = await tx.query<EntryRow>(UPDATE, [...actorValues(actor), JSON.stringify(rows)])
  return new Map(result.rows.map((row) => [row.id, toEntry(row)]))
}

const kept = (column: string) => `${column} = coalesce(p.${column}, e.${column})`

const UPDATE = `
  with patch as materialized (
    select d.* from json_to_recordset($4::json) as d(${DRAFT_COLUMNS})
  ), before as materialized (
    select e.id, signet.entry_json(e) as json from signet.entry as e
    where e.id in (select id from patch)
  ), changed as (
    update signet.entry as e set
      ${[
        'spiffe_id',
        'parent_id',
        'selectors',
        'x509_svid_ttl_seconds',
        'jwt_svid_ttl_seconds',
        'federates_with',
        'admin',
        'downstream',
        'expires_at',
        'dns_names',
        'store_svid',
        'hint',
        'disable_x509_svid_prefetch',
        'jwt_svid_include_jti',
      ]
        .map(kept)
        .join(',\n      ')},
      revision_number = e.revision_number + 1,
      similar_hash = n.hash,
      twin = case when n.hash = e.similar_hash then e.twin else (
        select coalesce(max(other.twin) + 1, 0) from signet.entry as other
        where other.similar_hash = n.hash) end
    from patch as p
    join signet.entry as o on o.id = p.id
    cross join lateral (select signet.similar_hash(
      coalesce(p.spiffe_id, o.spiffe_id), coalesce(p.parent_id, o.parent_id),
      coalesce(p.selectors, o.selectors)) as hash) as n
    where e.id = p.id
    returning e.*
  ), logged as (
    insert into signet.change_log (kind, ids)
    select 'entry', array_agg(id) from changed having count(*) > 0
  ), audited as (
    insert into signet.audit (actor_kind, actor_id, request_id, action, object_id, before, after)
    select $1, $2, $3, 'entry.update', changed.id, before.json, signet.entry_json(changed)
    from changed join before on before.id = changed.id
  )
  select ${ENTRY_COLUMNS} from changed`

export function entryNotFound(): SignetError {
  return new SignetError('not_found', 'entry_not_found', 'entry not found')
}
