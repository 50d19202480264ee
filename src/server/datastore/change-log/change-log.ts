/**
 * `ChangeLog` on PostgreSQL (design.md §4).
 *
 * A row was not seen by snapshot S exactly when its transaction is at or beyond S's xmax, or was
 * running when S was taken (in its xip list). Asking for those, and for nothing older, gives each
 * commit once, skips none, and does not wait for the oldest open transaction, as readers that go by
 * xmin or by sequence number do (SPIRE #6876).
 *
 * A position is `<database>/<snapshot>`. `<database>` hashes the deployment's epoch, PostgreSQL's
 * system identifier and the timeline, so that a position from another database, from before a
 * restore or a failover is refused instead of misread.
 */
import { SignetError } from '../../../base/error.ts'
import { CHANGES_PER_READ_MAX } from '../../../base/limits.ts'
import type { EpochSeconds } from '../../../base/ports.ts'
import type { Change, ChangeLog } from '../../ports.ts'
import type { ChangeKind } from '../context.ts'
import type { Database, Queryable } from '../database.ts'

/** Differs from database to database, and from before to after a failover or restore. */
const DATABASE = `
  substring(encode(sha256(convert_to(concat_ws('/', deployment.epoch,
    (select system_identifier from pg_control_system()),
    substring(pg_walfile_name(pg_current_wal_lsn()) for 8)), 'UTF8')), 'hex') for 16)`

const POSITION = `select ${DATABASE} as database, pg_current_snapshot()::text as snapshot
  from signet.deployment`

/**
 * One statement, so the rows and the new position come from one snapshot. `stale`: the position is
 * from the future (the database went back in time), or something that was pruned is news to it.
 */
const READ = `
  with given as (select $1::pg_snapshot as snapshot), state as (
    select ${DATABASE} as database,
      pg_snapshot_xmax(given.snapshot) > pg_snapshot_xmax(pg_current_snapshot())
      or deployment.pruned_snapshot is not null and (
        pg_snapshot_xmax(given.snapshot) < pg_snapshot_xmax(deployment.pruned_snapshot)
        or exists (select from pg_snapshot_xip(given.snapshot) as open
          where pg_visible_in_snapshot(open, deployment.pruned_snapshot))
      ) as stale
    from signet.deployment, given
  ), news as (
    -- The parameter itself, not given: the planner then sees how few rows are newer, and does
    -- not read the whole table once a second to find nothing.
    select seq, kind, ids from signet.change_log
    where xid >= pg_snapshot_xmax($1::pg_snapshot)
    union all
    select seq, kind, ids from signet.change_log
    where xid = any(array(select pg_snapshot_xip($1::pg_snapshot)))
  )
  select state.database, state.stale, pg_current_snapshot()::text as snapshot,
    coalesce((select json_agg(json_build_object('kind', kind, 'ids', ids) order by seq) from (
      select * from news order by seq limit $2) as limited), '[]') as changes
  from state`

interface PositionRow {
  readonly database: string
  readonly snapshot: string
}

interface ReadRow extends PositionRow {
  readonly stale: boolean
  readonly changes: readonly { readonly kind: ChangeKind; readonly ids: readonly string[] }[]
}

export function createChangeLog(
  db: Database,
  listen: (wake: () => void) => AsyncDisposable,
): ChangeLog {
  return {
    position: async () => {
      const { rows } = await db.query<PositionRow>(POSITION)
      return formatPosition(rows[0]!)
    },
    readSince: (position) => readSince(db, position),
    listen,
  }
}

async function readSince(
  db: Database,
  position: string,
): Promise<{ readonly changes: readonly Change[]; readonly position: string }> {
  const from = parsePosition(position)
  const { rows } = await db.query<ReadRow>(READ, [from.snapshot, CHANGES_PER_READ_MAX + 1])
  const row = rows[0]!
  if (row.database !== from.database || row.stale) throw stale()
  // So far behind that reading everything anew is cheaper than catching up.
  if (row.changes.length > CHANGES_PER_READ_MAX) throw stale()
  const changes = row.changes.flatMap(({ kind, ids }) => ids.map((id): Change => ({ kind, id })))
  return { changes, position: formatPosition(row) }
}

function formatPosition(row: PositionRow): string {
  return `${row.database}/${row.snapshot}`
}

/** Positions come back from agents: PostgreSQL's own parser must not see what is no snapshot. */
function parsePosition(text: string): PositionRow {
  const match = /^([0-9a-f]{16})\/(\d{1,19}:\d{1,19}:(?:\d{1,19}(?:,\d{1,19})*)?)$/.exec(text)
  if (match === null) throw stale()
  const [xmin = '', xmax = '', xips = ''] = match[2]!.split(':')
  const numbers = [xmin, ...xips.split(',').filter((xip) => xip !== ''), xmax].map(BigInt)
  // xmin ≤ xip … < xmax, as a snapshot's text always is.
  if (numbers[0]! < 1n || numbers.some((n, i) => i > 0 && n < numbers[i - 1]!)) throw stale()
  return { database: match[1]!, snapshot: match[2]! }
}

function stale(): SignetError {
  return new SignetError(
    'failed_precondition',
    'stale_position',
    'change log position is not known here: a full read is needed',
  )
}

/**
 * Deletes what every reader can be expected to have read. It goes by snapshots, not by row times:
 * a transaction that took hours and commits now has old rows that nobody has seen yet. Each round
 * sets a mark and wakes the readers, so that also idle ones pass it; `keepSeconds` later the mark
 * becomes the limit of pruning.
 */
export async function pruneChangeLog(
  db: Database,
  now: EpochSeconds,
  keepSeconds: number,
): Promise<number> {
  return await db.transaction(async (tx) => {
    const { rows } = await tx.query<{ ripe: boolean; unmarked: boolean }>(
      `select coalesce(pending_at <= $1, false) as ripe, pending_at is null as unmarked
       from signet.deployment for update`,
      [now - keepSeconds],
    )
    const { ripe, unmarked } = rows[0]!
    if (!ripe && !unmarked) return 0
    const count = ripe ? await deleteUpToMark(tx) : 0
    await tx.query(
      `update signet.deployment set
         pruned_snapshot = case when $2 then pending_snapshot else pruned_snapshot end,
         pending_snapshot = pg_current_snapshot(), pending_at = $1`,
      [now, count > 0],
    )
    await tx.query('notify signet_change')
    return count
  })
}

async function deleteUpToMark(tx: Queryable): Promise<number> {
  const { count } = await tx.query(
    `delete from signet.change_log using signet.deployment
     where xid < pg_snapshot_xmax(pending_snapshot)
       and pg_visible_in_snapshot(xid, pending_snapshot)`,
  )
  return count
}
