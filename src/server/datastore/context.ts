/** What every store is built from, and the records that go with every change. */
import type { Clock, Random } from '../../base/ports.ts'
import type { Actor } from '../ports.ts'
import type { Database, Queryable } from './database.ts'

export interface StoreContext {
  readonly db: Database
  readonly clock: Clock
  readonly random: Random
  readonly trustDomain: string
}

export type ChangeKind = 'entry' | 'agent' | 'bundle' | 'authority' | 'cluster'

/** Parameters of `audit` rows: the first three of every statement that writes them. */
export function actorValues(actor: Actor): readonly [string, string, string] {
  return [actor.kind, actor.id, actor.requestId]
}

/** In the same transaction as the change: readers of the log learn of it with its commit. */
export async function logChange(
  tx: Queryable,
  kind: ChangeKind,
  ids: readonly string[],
): Promise<void> {
  if (ids.length === 0) return
  await tx.query('insert into signet.change_log (kind, ids) values ($1, $2)', [kind, ids])
}

export interface AuditRecord {
  readonly action: string
  readonly objectId: string
  readonly before?: unknown
  readonly after?: unknown
}

/** For changes of one object; batches write theirs in the statement that makes the change. */
export async function audit(tx: Queryable, actor: Actor, record: AuditRecord): Promise<void> {
  const json = (value: unknown) => (value === undefined ? null : JSON.stringify(value))
  await tx.query(
    `insert into signet.audit (actor_kind, actor_id, request_id, action, object_id, before, after)
     values ($1, $2, $3, $4, $5, $6::json, $7::json)`,
    [
      ...actorValues(actor),
      record.action,
      record.objectId,
      json(record.before),
      json(record.after),
    ],
  )
}
