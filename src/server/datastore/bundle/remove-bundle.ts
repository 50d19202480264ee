/** Deletes bundles with what hangs on them, and prunes expired authorities. */
import { SignetError } from '../../../base/error.ts'
import type { EpochSeconds } from '../../../base/ports.ts'
import type { Actor } from '../../ports.ts'
import { audit, logChange } from '../context.ts'
import type { Queryable } from '../database.ts'
import { deleteEntries } from '../entry/delete-entries.ts'
import { updateEntries } from '../entry/update-entries.ts'
import { lockBundle, summarise } from './row.ts'
import { bumpSequence, bundleNotFound } from './write-bundle.ts'

export async function deleteBundle(
  tx: Queryable,
  trustDomain: string,
  mode: 'restrict' | 'delete' | 'dissociate',
  actor: Actor,
): Promise<void> {
  // The lock waits for transactions that are giving entries this trust domain, and stops new ones.
  const bundle = await lockBundle(tx, trustDomain)
  if (bundle === undefined) throw bundleNotFound()
  const { rows } = await tx.query<{ id: string; federates_with: readonly string[] }>(
    `select id, to_json(federates_with) as federates_with from signet.entry
     where federates_with <> '{}' and federates_with @> array[$1::text]`,
    [trustDomain],
  )
  const ids = rows.map((row) => row.id)
  if (ids.length > 0 && mode === 'restrict') {
    throw new SignetError(
      'failed_precondition',
      'bundle_in_use',
      // SPIRE's store says so, its prefix included.
      `datastore-sql: cannot delete bundle; federated with ${ids.length} registration entries`,
    )
  }
  if (mode === 'delete') await deleteEntries(tx, ids, actor)
  if (mode === 'dissociate') {
    const patches = rows.map((row) => ({
      id: row.id,
      federatesWith: row.federates_with.filter((name) => name !== trustDomain),
    }))
    await updateEntries(tx, patches, actor)
  }
  await tx.query('delete from signet.bundle where row_id = $1', [bundle.rowId])
  await logChange(tx, 'bundle', [trustDomain])
  await audit(tx, actor, {
    action: 'bundle.delete',
    objectId: trustDomain,
    before: summarise(bundle),
  })
}

/** A kind that has only expired authorities keeps them all: an empty set would revoke everything. */
const pruneKind = (table: string) => `
  delete from ${table} as gone
  where gone.bundle_row_id = $1 and gone.expires_at > 0 and gone.expires_at < $2
    and exists (select from ${table} as kept where kept.bundle_row_id = $1
      and not (kept.expires_at > 0 and kept.expires_at < $2))`

export async function pruneBundle(
  tx: Queryable,
  trustDomain: string,
  expiredBefore: EpochSeconds,
  actor: Actor,
): Promise<boolean> {
  const before = await lockBundle(tx, trustDomain)
  if (before === undefined) return false
  let removed = 0
  for (const table of ['signet.bundle_x509_authority', 'signet.bundle_jwt_authority']) {
    removed += (await tx.query(pruneKind(table), [before.rowId, expiredBefore])).count
  }
  if (removed === 0) return false
  await bumpSequence(tx, before.rowId)
  await logChange(tx, 'bundle', [trustDomain])
  await audit(tx, actor, {
    action: 'bundle.prune',
    objectId: trustDomain,
    before: summarise(before),
    after: { removed },
  })
  return true
}
