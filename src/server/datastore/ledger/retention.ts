/**
 * Retention of the ledger: partitions whose whole range has expired long ago are dropped as tables;
 * nothing of the large ones is deleted row by row.
 */
import type { EpochSeconds } from '../../../base/ports.ts'
import type { Database } from '../database.ts'

/**
 * Dropping locks the ledger as a whole, and issuance queues behind the wait for that lock. A long
 * reader (a backup) wins: the next run tries again.
 */
const LOCK_MS_MAX = 500

/** Tables dropped. Rows whose SVID expired before `expiredBefore` may go. */
export async function dropLedgerPartitions(
  db: Database,
  expiredBefore: EpochSeconds,
): Promise<number> {
  const { rows } = await db.query<{ name: string }>(EXPIRED, [expiredBefore])
  for (const { name } of rows) {
    await db.transaction(async (tx) => {
      await tx.query(`set local lock_timeout = ${LOCK_MS_MAX}`)
      // The lock of `create_ledger_partitions`: one of the two changes the set of tables at a time.
      await tx.query("select pg_advisory_xact_lock(hashtextextended('signet.ledger', 0))")
      await tx.query(`drop table if exists signet.${name}`)
    })
  }
  // What no partition was made for in time: backdated rows, and weeks when no server ran.
  await db.query('delete from signet.ledger_default where not_after < $1', [expiredBefore])
  await db.query(FORGET_FAILURES, [expiredBefore])
  return rows.length
}

/** Names come from `create_ledger_partitions` alone; `%I` all the same. */
const EXPIRED = `
  select format('%I', c.relname) as name
  from pg_inherits as i
  join pg_class as c on c.oid = i.inhrelid
  cross join lateral regexp_match(pg_get_expr(c.relpartbound, c.oid), 'TO \\(''?(-?\\d+)') as upper
  where i.inhparent = 'signet.ledger'::regclass and upper[1]::bigint <= $1
  order by upper[1]::bigint`

/** A failure is kept as long as the row it takes back, and for the same time without one. */
const FORGET_FAILURES = `
  delete from signet.ledger_failure as f
  where f.recorded_at < to_timestamp($1)
    and not exists (select from signet.ledger as l where l.serial_number = f.serial_number)`
