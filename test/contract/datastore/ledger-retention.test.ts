/** What the maintenance job keeps of the ledger, on real PostgreSQL with a clock that tests set. */
import pg from 'pg'
import { expect, test } from 'vitest'
import { maintenanceJobs } from '../../../src/server/jobs/maintenance.ts'
import { createMemoryMetrics } from '../../fakes/memory-log.ts'
import { createTestClock, ledgerRow, NOW, TD } from '../../rigs/datastore.ts'
import { useEmptiedDatastore } from '../../rigs/emptied.ts'
import { silentLog } from '../../rigs/silent-log.ts'

const { empty, database } = useEmptiedDatastore()

const DAY = 86_400
const WEEK = 7 * DAY
/** Every partition ends on such a second. */
const WEEK_END = (Math.floor(NOW / WEEK) + 1) * WEEK
const KEEP = 30 * DAY

const numbers = async (sql: string) => (await database.query(sql)).rows.map((row) => Number(row.n))
const expiries = () => numbers('select not_after as n from signet.ledger order by 1')
const tables = async () =>
  (
    await database.query(
      `select relname as t from pg_inherits join pg_class on pg_class.oid = inhrelid
       where inhparent = 'signet.ledger'::regclass`,
    )
  ).rows.map((row) => row.t as string)

async function setUp(now = NOW) {
  const datastore = await empty()
  await datastore.maintenance.createLedgerPartitions(NOW)
  const clock = createTestClock(now)
  const options = {
    ...datastore,
    trustDomain: TD,
    clock,
    log: silentLog,
    metrics: createMemoryMetrics(),
  }
  const job = maintenanceJobs(options).find(({ name }) => name === 'drop_ledger_partitions')!
  return { ...datastore, clock, run: () => job.run(new AbortController().signal) }
}

const serial = (n: number) => Uint8Array.of(1, n)

test('a partition goes 30 days after its last second, whole, and not before', async () => {
  const { ledger, clock, run } = await setUp()
  const rows = [NOW, WEEK_END - 1, WEEK_END, WEEK_END + 5 * WEEK]
  await ledger.record(rows.map((notAfter, i) => ledgerRow({ notAfter, serialNumber: serial(i) })))
  const before = await tables()

  clock.now = WEEK_END + KEEP - 1
  await run()
  expect(await expiries()).toEqual(rows)
  expect(await tables()).toEqual(before)

  clock.now = WEEK_END + KEEP
  await run()
  expect(await expiries()).toEqual(rows.slice(2))
  expect([...(await tables()), 'ledger_20270114'].sort()).toEqual(before.sort())
  expect([await ledger.hasSerial(serial(1)), await ledger.hasSerial(serial(2))]).toEqual([
    false,
    true,
  ])
})

test('all weeks of a long pause go at once; the default partition stays and is cleared', async () => {
  const { ledger, maintenance, clock, run } = await setUp()
  const far = WEEK_END + 100 * WEEK
  await ledger.record([
    ledgerRow({ notAfter: NOW }),
    ledgerRow({ notAfter: WEEK_END + 3 * WEEK }),
    ledgerRow({ notAfter: WEEK_END + 20 * WEEK }),
    ledgerRow({ notAfter: far }),
  ])
  clock.now = far
  await maintenance.createLedgerPartitions(far)
  await run()
  expect(await expiries()).toEqual([far])
  expect(await tables()).toContain('ledger_default')
  // Afterwards rows of the dropped weeks are still taken: nothing is refused for want of a partition.
  await ledger.record([ledgerRow({ notAfter: NOW })])
  expect(await expiries()).toEqual([NOW, far])
})

test('a failure is forgotten with the row it takes back', async () => {
  const { ledger, clock, run } = await setUp()
  await database.query(
    `insert into signet.ledger_failure
       (recorded_at, kind, cluster_id, authority_id, serial_number, request_id, reason)
     select to_timestamp(${NOW}), 'x509_workload', 1, 1, s, '', 'r'
     from unnest(array['\\x0101', '\\x0102', '\\x0103']::bytea[]) as s`,
  )
  await ledger.record([
    ledgerRow({ notAfter: WEEK_END - 1, serialNumber: serial(1) }),
    ledgerRow({ notAfter: WEEK_END + 60 * WEEK, serialNumber: serial(2) }),
  ])
  const failures = () =>
    numbers('select get_byte(serial_number, 1) as n from signet.ledger_failure order by 1')
  clock.now = NOW + KEEP
  await run()
  expect(await failures()).toEqual([1, 2, 3])
  clock.now = WEEK_END + KEEP
  await run()
  expect(await failures()).toEqual([2])
})

test('a long reader is not waited for: the job fails, issuance goes on, the next run does it', async () => {
  const { ledger, clock, run } = await setUp()
  clock.now = WEEK_END + KEEP
  const reader = new pg.Client({ ...database.poolConfig })
  await reader.connect()
  try {
    await reader.query('begin')
    await reader.query('select count(*) from signet.ledger')
    await expect(run()).rejects.toMatchObject({ kind: 'unavailable' })
    await ledger.record([ledgerRow({ notAfter: NOW + 30 * DAY })])
  } finally {
    await reader.query('rollback')
    await reader.end()
  }
  await run()
  expect(await tables()).not.toContain('ledger_20270114')
})
