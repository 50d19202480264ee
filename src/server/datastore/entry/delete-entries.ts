/** Deletes entries, by id or because they are expired. */
import type { EpochSeconds } from '../../../base/ports.ts'
import type { Actor } from '../../ports.ts'
import { actorValues } from '../context.ts'
import type { Queryable } from '../database.ts'

const deleteWhere = (where: string, action: string) => `
  with gone as (
    delete from signet.entry where ${where} returning *
  ), logged as (
    insert into signet.change_log (kind, ids)
    select 'entry', array_agg(id) from gone having count(*) > 0
  ), audited as (
    insert into signet.audit (actor_kind, actor_id, request_id, action, object_id, before)
    select $1, $2, $3, '${action}', id, signet.entry_json(gone) from gone
  )
  select id from gone`

/** Locked in one order everywhere, so that two batches can't hold each other's rows. */
const lockedRows = (where: string) =>
  `row_id = any(array(select row_id from signet.entry where ${where} order by row_id for update))`

const DELETE = deleteWhere(lockedRows('id = any($4::text[])'), 'entry.delete')

/** The ids that were there. */
export async function deleteEntries(
  tx: Queryable,
  ids: readonly string[],
  actor: Actor,
): Promise<ReadonlySet<string>> {
  const storable = ids.filter((id) => !id.includes('\0'))
  const { rows } = await tx.query<{ id: string }>(DELETE, [...actorValues(actor), storable])
  return new Set(rows.map((row) => row.id))
}

const PRUNE = deleteWhere(
  lockedRows(`row_id = any(array(
    select row_id from signet.entry where expires_at > 0 and expires_at < $4
    order by expires_at limit $5))`),
  'entry.prune',
)

/** At most `limit`; how many. */
export async function pruneEntries(
  tx: Queryable,
  now: EpochSeconds,
  limit: number,
  actor: Actor,
): Promise<number> {
  const { rows } = await tx.query(PRUNE, [...actorValues(actor), now, limit])
  return rows.length
}

/** Of a join-token agent: its automatic alias (api.md §7.1 DeleteAgent). */
const DELETE_ALIAS = deleteWhere(
  lockedRows('parent_id = $4 and selectors = array[$5::text]'),
  'entry.delete',
)

export async function deleteAlias(tx: Queryable, agentId: string, actor: Actor): Promise<void> {
  await tx.query(DELETE_ALIAS, [...actorValues(actor), agentId, `spiffe_id:${agentId}`])
}
