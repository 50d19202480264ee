/**
 * `Ledger` on PostgreSQL: group commits of binary COPY on one connection (design.md §3, I3).
 *
 * A group goes out at the end of the event loop's turn that brings `LEDGER_GROUP_ROWS` rows, or
 * after `LEDGER_GROUP_MS`, and does not wait for the group before it. When as many groups as
 * allowed are under way, what arrives gathers into one larger group: the slower the disk, the
 * larger the groups.
 */
import type pg from 'pg'
import { SignetError } from '../../../base/error.ts'
import {
  LEDGER_COPY_ROWS_MAX,
  LEDGER_GROUP_MS,
  LEDGER_GROUP_ROWS,
  LEDGER_GROUPS_IN_FLIGHT_MAX,
  LEDGER_QUEUE_ROWS_MAX,
} from '../../../base/limits.ts'
import type { Clock, Log, Metrics } from '../../../base/ports.ts'
import type { Ledger, LedgerRow } from '../../../ca/ledger.ts'
import type { Database } from '../database.ts'
import { poisonsConnection, unavailable } from '../postgres-error.ts'
import { type CopyConnection, openCopyConnection } from './copy-connection.ts'
import { CopyEncoder } from './copy-encoder.ts'

const RECONNECT_PAUSE_MS = 500
const ANSWER_MS_MAX = 20_000
const WATCH_MS = 1_000
/** Failure records are best effort: beyond this many unwritten ones they are only logged. */
const FAILURES_UNDER_WAY_MAX = 16

export interface StoredLedger extends Ledger, AsyncDisposable {
  /** Was a certificate or token with this serial number ever recorded? */
  hasSerial(serialNumber: Uint8Array): Promise<boolean>
}

export interface LedgerOptions {
  readonly db: Database
  readonly config: pg.ClientConfig
  readonly clock: Clock
  readonly log: Log
  readonly metrics: Metrics
}

export function createLedger(options: LedgerOptions): StoredLedger {
  const writer = new GroupWriter(options)
  let failuresUnderWay = 0
  return {
    record: (rows) => writer.record(rows),
    recordFailure: (rows, reason) => {
      options.log.error('SVID not released', { reason, count: rows.length })
      if (failuresUnderWay >= FAILURES_UNDER_WAY_MAX) return
      failuresUnderWay++
      insertFailures(options.db, rows, reason)
        .catch((error) => options.log.error('Ledger failure not recorded', { error }))
        .finally(() => {
          failuresUnderWay--
        })
    },
    hasSerial: async (serialNumber) => {
      const { rows } = await options.db.query<{ found: boolean }>(
        'select exists (select from signet.ledger where serial_number = $1) as found',
        [Buffer.from(serialNumber)],
      )
      return rows[0]?.found === true
    },
    [Symbol.asyncDispose]: () => writer.close(),
  }
}

async function insertFailures(
  db: Database,
  rows: readonly LedgerRow[],
  reason: string,
): Promise<void> {
  const records = rows.map((row) => ({
    kind: row.kind,
    cluster_id: row.clusterId,
    authority_id: row.authorityId,
    serial_number: `\\x${Buffer.from(row.serialNumber).toString('hex')}`,
    request_id: row.requestId,
  }))
  await db.query(
    `insert into signet.ledger_failure
       (kind, cluster_id, authority_id, serial_number, request_id, reason)
     select kind, cluster_id, authority_id, serial_number, request_id, $2
     from json_to_recordset($1::json) as f(kind signet.ledger_kind, cluster_id integer,
       authority_id bigint, serial_number bytea, request_id text)`,
    [JSON.stringify(records), reason],
  )
}

interface Item {
  readonly rows: readonly LedgerRow[]
  readonly resolve: () => void
  readonly reject: (error: unknown) => void
}

/** A buffer belongs to a group until the group is answered. */
interface Slot {
  readonly encoder: CopyEncoder
  sentAtMs: number | undefined
}

/** Owns the queue, the connection and the groups under way. */
class GroupWriter {
  readonly #options: LedgerOptions
  readonly #slots: readonly Slot[]
  readonly #watch: Disposable
  #queue: Item[] = []
  #queuedRows = 0
  /** The window of the queue's first item is running. */
  #windowOpen = false
  /** The queue goes out at the end of this turn. */
  #flushing = false
  #connection: CopyConnection | undefined
  #connecting: Promise<void> | undefined
  #nextConnectMs = 0
  #closed = false

  constructor(options: LedgerOptions) {
    this.#options = options
    this.#slots = Array.from({ length: LEDGER_GROUPS_IN_FLIGHT_MAX }, () => ({
      encoder: new CopyEncoder(),
      sentAtMs: undefined,
    }))
    this.#watch = options.clock.every(WATCH_MS, () => this.#checkAnswers())
  }

  record(rows: readonly LedgerRow[]): Promise<void> {
    if (rows.length === 0) return Promise.resolve()
    if (this.#closed) return Promise.reject(unavailable('ledger_closed', undefined))
    if (this.#queuedRows + rows.length > LEDGER_QUEUE_ROWS_MAX) {
      this.#options.metrics.counter('datastore.ledger.refused', rows.length)
      return Promise.reject(overloaded())
    }
    return new Promise((resolve, reject) => {
      this.#queue.push({ rows, resolve, reject })
      this.#queuedRows += rows.length
      if (this.#queuedRows >= LEDGER_GROUP_ROWS) this.#flushThisTurn()
      else if (!this.#windowOpen) this.#openWindow()
    })
  }

  async close(): Promise<void> {
    this.#closed = true
    this.#watch[Symbol.dispose]()
    this.#rejectQueue(unavailable('ledger_closed', undefined))
    await this.#connecting
    await this.#connection?.close()
  }

  /** What else this turn of the event loop brings goes with it. */
  #flushThisTurn(): void {
    if (this.#flushing) return
    this.#flushing = true
    setImmediate(() => {
      this.#flushing = false
      this.#flush()
    })
  }

  #openWindow(): void {
    this.#windowOpen = true
    void this.#options.clock.sleep(LEDGER_GROUP_MS).then(() => {
      this.#windowOpen = false
      this.#flush()
    })
  }

  #flush(): void {
    while (this.#queue.length > 0) {
      const slot = this.#slots.find((other) => other.sentAtMs === undefined)
      if (slot === undefined) return
      if (this.#connection === undefined) {
        this.#connect()
        return
      }
      void this.#sendGroup(this.#connection, slot, this.#takeGroup())
    }
  }

  #takeGroup(): readonly Item[] {
    let rows = 0
    let count = 0
    for (const item of this.#queue) {
      if (count > 0 && rows + item.rows.length > LEDGER_COPY_ROWS_MAX) break
      rows += item.rows.length
      count++
    }
    this.#queuedRows -= rows
    return this.#queue.splice(0, count)
  }

  async #sendGroup(connection: CopyConnection, slot: Slot, group: readonly Item[]): Promise<void> {
    if (!(await this.#commit(connection, slot, group))) {
      // One bad row must not fail its neighbours: each caller's rows go alone.
      for (const item of group) await this.#commit(connection, slot, [item])
    }
    slot.sentAtMs = undefined
    this.#flush()
  }

  /** Settles the items; false when nothing was settled because one of several is bad. */
  async #commit(connection: CopyConnection, slot: Slot, group: readonly Item[]): Promise<boolean> {
    const { clock, metrics } = this.#options
    const startMs = clock.monotonicMs()
    slot.sentAtMs = startMs
    try {
      const rows = group.length === 1 ? group[0]!.rows : group.flatMap((item) => item.rows)
      await connection.send(slot.encoder.encode(rows))
    } catch (error) {
      // A demoted or stopping server must not be used again.
      if (poisonsConnection(error)) connection.destroy(error as Error)
      else if (group.length > 1) return false
      for (const item of group) item.reject(error)
      return true
    }
    for (const item of group) item.resolve()
    metrics.sample('datastore.ledger.commit.elapsed_time', clock.monotonicMs() - startMs)
    return true
  }

  /** One attempt for all that wait; while the database is away callers learn it at once. */
  #connect(): void {
    if (this.#connecting !== undefined) return
    const { clock, config, log } = this.#options
    if (clock.monotonicMs() < this.#nextConnectMs) {
      this.#rejectQueue(unavailable('database_connection_lost', undefined))
      return
    }
    this.#connecting = openCopyConnection(config)
      .then((connection) => {
        this.#connection = connection
        void connection.ended.then(() => {
          if (this.#connection === connection) this.#connection = undefined
        })
      })
      .catch((error: unknown) => {
        this.#nextConnectMs = clock.monotonicMs() + RECONNECT_PAUSE_MS
        log.warn('Ledger has no database connection', { error })
        this.#rejectQueue(error)
      })
      .finally(() => {
        this.#connecting = undefined
        this.#flush()
      })
  }

  #rejectQueue(error: unknown): void {
    this.#queuedRows = 0
    for (const item of this.#queue.splice(0)) item.reject(error)
  }

  /** A network that swallows answers must not hold callers for ever. */
  #checkAnswers(): void {
    const limitMs = this.#options.clock.monotonicMs() - ANSWER_MS_MAX
    const late = this.#slots.some((slot) => slot.sentAtMs !== undefined && slot.sentAtMs < limitMs)
    if (late) this.#connection?.destroy(new Error('no answer from the database'))
  }
}

function overloaded(): SignetError {
  return new SignetError('unavailable', 'ledger_overloaded', 'too many SVIDs are being recorded', {
    retryAfterSeconds: 1,
  })
}
