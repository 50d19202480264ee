/** A network between us and PostgreSQL that loses answers (F03, F08): nobody waits for ever. */
import { expect, test } from 'vitest'
import { toHex } from '../../../src/base/bytes.ts'
import { openDatabase } from '../../../src/server/datastore/database.ts'
import {
  ACTOR,
  createTestClock,
  draft,
  ledgerRow,
  openTestDatastore,
} from '../../rigs/datastore.ts'
import { useDatabase } from '../../rigs/postgres.ts'
import { startProxy } from '../../rigs/postgres-proxy.ts'
import { silentLog } from '../../rigs/silent-log.ts'
import { until } from '../../rigs/until.ts'

const database = useDatabase()

/** Tickers run when the test says so; waiting is counted from a time that the test moves. */
function createTickedClock() {
  const ticks = new Set<() => void>()
  let aheadMs = 0
  const base = createTestClock()
  return {
    clock: {
      ...base,
      monotonicMs: () => base.monotonicMs() + aheadMs,
      every: (_ms: number, fn: () => void) => {
        ticks.add(fn)
        return { [Symbol.dispose]: () => void ticks.delete(fn) }
      },
    },
    tick: (ms: number) => {
      aheadMs += ms
      for (const fn of ticks) fn()
    },
  }
}

test('the answer to a commit is lost: refused, though the row may exist; then all goes on', async () => {
  await using proxy = await startProxy(database.poolConfig)
  await using datastore = await openTestDatastore({ poolConfig: { ...proxy.poolConfig } })
  await datastore.ledger.record([ledgerRow()])
  proxy.swallowReplies()
  const lost = ledgerRow()
  const recorded = datastore.ledger.record([lost])
  const stored = () =>
    database.query("select from signet.ledger where encode(serial_number, 'hex') = $1", [
      toHex(lost.serialNumber),
    ])
  await until('the row', async () => (await stored()).rowCount === 1)
  proxy.forwardReplies()
  proxy.cut()
  await expect(recorded).rejects.toMatchObject({
    kind: 'unavailable',
    code: 'database_connection_lost',
  })
  await until('a ledger row', () => datastore.ledger.record([ledgerRow()]).then(() => true))
})

test('a ledger that gets no answer at all gives up', async () => {
  await using proxy = await startProxy(database.poolConfig)
  const { clock, tick } = createTickedClock()
  await using datastore = await openTestDatastore({ poolConfig: { ...proxy.poolConfig }, clock })
  await datastore.ledger.record([ledgerRow()])
  proxy.swallowReplies()
  const lost = ledgerRow()
  const recorded = datastore.ledger.record([lost])
  recorded.catch(() => {})
  await until('the row under way', async () => {
    const found = await database.query('select from signet.ledger where serial_number = $1', [
      Buffer.from(lost.serialNumber),
    ])
    return found.rowCount === 1
  })
  tick(21_000)
  await expect(recorded).rejects.toMatchObject({ kind: 'unavailable' })
  proxy.forwardReplies()
  await until('a ledger row', () => datastore.ledger.record([ledgerRow()]).then(() => true))
})

test('a listener that has become deaf connects anew', async () => {
  await using proxy = await startProxy(database.poolConfig)
  const { clock, tick } = createTickedClock()
  await using direct = await openTestDatastore({ poolConfig: { ...database.poolConfig } })
  await using datastore = await openTestDatastore({ poolConfig: { ...proxy.poolConfig }, clock })
  let wakes = 0
  await using _listener = datastore.changeLog.listen(() => {
    wakes++
  })
  await until('the first wake', () => wakes === 1)
  tick(15_000)
  await direct.entries.createEntries([draft()], ACTOR)
  await until('a wake by a commit', () => wakes === 2)
  proxy.swallowReplies()
  tick(15_000)
  await until('a heartbeat on its way', async () => {
    const { rowCount } = await database.query(
      `select from pg_stat_activity where application_name = 'signet notifications'
       and query = 'select 1' and datname = current_database()`,
    )
    return (rowCount ?? 0) > 0
  })
  proxy.forwardReplies()
  // The answer is lost for good; ten seconds later the connection is given up.
  await until('a wake by a new connection', () => wakes === 3)
})

test('a transaction whose connection falls silent half way is not waited for twice', async () => {
  await using proxy = await startProxy(database.poolConfig)
  await using db = openDatabase({ ...proxy.poolConfig }, { log: silentLog })
  const id = crypto.randomUUID()
  const started = performance.now()
  const written = db.transaction(async (tx) => {
    await tx.query("insert into signet.change_log (kind, ids) values ('entry', array[$1])", [id])
    proxy.swallowReplies()
    await tx.query('select 1')
  })
  await expect(written).rejects.toMatchObject({ kind: 'unavailable' })
  // Callers give up after 30 s; the answer alone is waited for 20 s.
  expect(performance.now() - started).toBeLessThan(28_000)
  proxy.forwardReplies()
  await db.transaction((tx) => tx.query('select 1'))
  const stored = await database.query('select from signet.change_log where ids = array[$1]', [id])
  expect(stored.rowCount).toBe(0)
})
