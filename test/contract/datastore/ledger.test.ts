/** The ledger on PostgreSQL: rows as given, committed when resolved, grouped, bounded. */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { LEDGER_QUEUE_ROWS_MAX } from '../../../src/base/limits.ts'
import type { LedgerKind, LedgerRow } from '../../../src/ca/ledger.ts'
import { ledgerRow, NOW } from '../../rigs/datastore.ts'
import { useEmptiedDatastore } from '../../rigs/emptied.ts'
import { until } from '../../rigs/until.ts'

const { empty, database } = useEmptiedDatastore()

const count = async () =>
  (await database.query('select count(*)::integer as n from signet.ledger')).rows[0]?.n

const KINDS: LedgerKind[] = ['x509_workload', 'x509_agent', 'x509_server', 'x509_ca', 'jwt']
const bytes = (size: number) => fc.uint8Array({ minLength: size, maxLength: size })
/** Any text PostgreSQL can hold. */
const text = fc.string({ unit: 'binary', maxLength: 80 }).map((s) => s.replaceAll('\0', ''))
const anyRow: fc.Arbitrary<LedgerRow> = fc.record({
  kind: fc.constantFrom(...KINDS),
  clusterId: fc.integer({ min: 0, max: 2 ** 31 - 1 }),
  authorityId: fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER }),
  serialNumber: bytes(16),
  spiffeId: text,
  entryId: text,
  callerId: text,
  requestId: text,
  notBefore: fc.integer({ min: -(2 ** 40), max: 2 ** 40 }),
  notAfter: fc.integer({ min: -(2 ** 40), max: 2 ** 40 }),
  publicKeySha256: fc.oneof(bytes(0), bytes(32)),
  tbsSha256: bytes(32),
})

// Method: rows of any content go through the encoder into PostgreSQL and are read back as text.
test('every row is stored as it was given', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(anyRow, { minLength: 1, maxLength: 30 }), async (rows) => {
      const { ledger } = await empty()
      await ledger.record(rows)
      const stored = await database.query(
        `select kind, cluster_id, authority_id::text, encode(serial_number, 'hex') as serial,
           spiffe_id, entry_id, caller_id, request_id, not_before::text, not_after::text,
           encode(public_key_sha256, 'hex') as spki, encode(tbs_sha256, 'hex') as tbs
         from signet.ledger`,
      )
      const key = (value: unknown) => JSON.stringify(value)
      expect(stored.rows.map(key).sort()).toEqual(rows.map((row) => key(asText(row))).sort())
    }),
    { numRuns: 25 },
  )
})

function asText(row: LedgerRow) {
  const hex = (value: Uint8Array) => Buffer.from(value).toString('hex')
  return {
    kind: row.kind,
    cluster_id: row.clusterId,
    authority_id: String(row.authorityId),
    serial: hex(row.serialNumber),
    spiffe_id: row.spiffeId,
    entry_id: row.entryId,
    caller_id: row.callerId,
    request_id: row.requestId,
    not_before: String(row.notBefore),
    not_after: String(row.notAfter),
    spki: hex(row.publicKeySha256),
    tbs: hex(row.tbsSha256),
  }
}

test('rows are committed when the call resolves, one by one and in batches', async () => {
  const { ledger } = await empty()
  await ledger.record([])
  await ledger.record([ledgerRow()])
  expect(await count()).toBe(1)
  await ledger.record(Array.from({ length: 500 }, () => ledgerRow()))
  expect(await count()).toBe(501)
  const singles = Array.from({ length: 100 }, () => ledger.record([ledgerRow()]))
  await Promise.all(singles)
  expect(await count()).toBe(601)
})

test('single rows share commits', async () => {
  const { ledger } = await empty()
  await Promise.all(Array.from({ length: 80 }, () => ledger.record([ledgerRow()])))
  const { rows } = await database.query(
    'select count(distinct xmin::text)::integer as commits, count(*)::integer as n from signet.ledger',
  )
  expect(rows[0].n).toBe(80)
  expect(rows[0].commits).toBeLessThanOrEqual(40)
})

test('batches of one turn share a commit', async () => {
  const { ledger } = await empty()
  const batch = () => Array.from({ length: 50 }, () => ledgerRow())
  await Promise.all([ledger.record(batch()), ledger.record(batch())])
  const { rows } = await database.query(
    'select count(distinct xmin::text)::integer as commits, count(*)::integer as n from signet.ledger',
  )
  expect(rows[0]).toEqual({ commits: 1, n: 100 })
})

test('a row that PostgreSQL refuses fails its own call alone', async () => {
  const { ledger } = await empty()
  const results = await Promise.allSettled([
    ledger.record([ledgerRow()]),
    ledger.record([ledgerRow({ requestId: 'nul \0' })]),
    ledger.record([ledgerRow()]),
  ])
  expect(results.map((result) => result.status)).toEqual(['fulfilled', 'rejected', 'fulfilled'])
  expect(await count()).toBe(2)
})

test('serial numbers are found', async () => {
  const { ledger } = await empty()
  const row = ledgerRow()
  await ledger.record([row])
  expect(await ledger.hasSerial(row.serialNumber)).toBe(true)
  expect(await ledger.hasSerial(new Uint8Array(16))).toBe(false)
  expect(await ledger.hasSerial(new Uint8Array(0))).toBe(false)
})

test('a failure is a second row', async () => {
  const { ledger } = await empty()
  const row = ledgerRow({ requestId: 'r9' })
  ledger.recordFailure([row], 'signing failed')
  const read = () => database.query('select request_id, reason from signet.ledger_failure')
  await until('the failure row', async () => (await read()).rowCount === 1)
  expect((await read()).rows).toEqual([{ request_id: 'r9', reason: 'signing failed' }])
})

test('the queue is bounded: at the limit taken, one more refused', async () => {
  const { ledger } = await empty()
  const full = Array.from({ length: LEDGER_QUEUE_ROWS_MAX }, () => ledgerRow())
  const overfull = ledger.record([...full, ledgerRow()])
  await expect(overfull).rejects.toMatchObject({
    kind: 'unavailable',
    code: 'ledger_overloaded',
    retryAfterSeconds: 1,
  })
  await ledger.record(full)
  expect(await count()).toBe(LEDGER_QUEUE_ROWS_MAX)
})

test('rows lie in the partition of their expiry; those far away in the default one', async () => {
  const { ledger, maintenance } = await empty()
  await ledger.record([ledgerRow(), ledgerRow({ notAfter: NOW + 400 * 86_400 })])
  const where = async () =>
    (
      await database.query(
        'select relname as t from signet.ledger join pg_class on pg_class.oid = ledger.tableoid order by not_after',
      )
    ).rows.map((row) => row.t)
  expect(await where()).toEqual(['ledger_20270114', 'ledger_default'])
  expect(await maintenance.createLedgerPartitions(NOW)).toBe(0)
  // A year on its week is made, and the row moves there.
  expect(await maintenance.createLedgerPartitions(NOW + 400 * 86_400)).toBe(6)
  expect((await where())[1]).toBe('ledger_20280217')
})
