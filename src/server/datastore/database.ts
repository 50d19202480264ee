/**
 * The pool of connections and the one way to run statements on it: every statement is bounded in
 * time, every error is a SignetError, a transaction is retried only where PostgreSQL says that
 * nothing happened.
 */
import pg from 'pg'
import { assert } from '../../base/assert.ts'
import { DATABASE_CONNECTIONS_DEFAULT } from '../../base/limits.ts'
import type { Log } from '../../base/ports.ts'
import { isRetryable, poisonsConnection, toStoreError, unavailable } from './postgres-error.ts'

/** What the stores need of `pg`: one statement, parameters apart from its text. */
export interface Queryable {
  query<Row extends object>(text: string, values?: readonly unknown[]): Promise<Rows<Row>>
}

interface Rows<Row> {
  readonly rows: readonly Row[]
  /** Rows returned or changed. */
  readonly count: number
  /** `SELECT`, `COMMIT` … */
  readonly command: string
}

export interface Database extends Queryable, AsyncDisposable {
  /** `work` may run several times; READ COMMITTED. */
  transaction<T>(work: (tx: Queryable) => Promise<T>): Promise<T>
}

const STATEMENT_MS_MAX = 15_000
const LOCK_MS_MAX = 5_000
const IDLE_IN_TRANSACTION_MS_MAX = 10_000
/** Longer than the server's own limit: it catches a network that swallows answers. */
const ANSWER_MS_MAX = 20_000
const CONNECT_MS_MAX = 5_000
const IDLE_MS_MAX = 60_000
const ATTEMPTS_MAX = 4

/** Settings of every connection, also of those outside the pool. */
export function sessionConfig(config: pg.ClientConfig): pg.ClientConfig {
  return {
    application_name: 'signet',
    connectionTimeoutMillis: CONNECT_MS_MAX,
    keepAlive: true,
    statement_timeout: STATEMENT_MS_MAX,
    lock_timeout: LOCK_MS_MAX,
    idle_in_transaction_session_timeout: IDLE_IN_TRANSACTION_MS_MAX,
    types: { getTypeParser },
    ...config,
  }
}

export function openDatabase(
  config: pg.ClientConfig,
  options: { readonly maxOpenConns?: number | undefined; readonly log: Log },
): Database {
  const pool = new pg.Pool({
    ...sessionConfig(config),
    query_timeout: ANSWER_MS_MAX,
    max: options.maxOpenConns ?? DATABASE_CONNECTIONS_DEFAULT,
    idleTimeoutMillis: IDLE_MS_MAX,
    allowExitOnIdle: true,
  })
  // An idle connection that dies is replaced at the next use; without a listener it ends the process.
  warnOfLoss(pool, options.log, 'Database connection lost')
  return {
    query: (text, values) => withClient(pool, (client) => run(client, text, values)),
    transaction: (work) => runTransaction(pool, work),
    [Symbol.asyncDispose]: () => pool.end(),
  }
}

/** A pool that ends does not wait for PostgreSQL to see it, which may say its own goodbye first. */
function warnOfLoss(pool: pg.Pool, log: Log, message: string): void {
  pool.on('error', (error) => {
    if (!pool.ending) log.warn(message, { error })
  })
}

/** One connection listens, one works, one is to spare. The runner expects the driver's own types. */
const JOB_CONNECTIONS = 3

export function openJobPool(config: pg.ClientConfig, log: Log): pg.Pool {
  const { types: _, ...session } = sessionConfig(config)
  const pool = new pg.Pool({
    ...session,
    application_name: 'signet jobs',
    max: JOB_CONNECTIONS,
    idleTimeoutMillis: IDLE_MS_MAX,
  })
  // A client in use reports its loss through its statements; unheard, the event would end the process.
  pool.on('connect', (client) => client.on('error', () => {}))
  const connect = pool.connect.bind(pool)
  pool.connect = ((done?: ConnectCallback) => {
    if (done === undefined) return connect().then(releaseOnce)
    return connect((error, client, release) => {
      done(error, client && releaseOnce(client), client?.release ?? release)
    })
  }) as typeof pool.connect
  warnOfLoss(pool, log, 'Database connection of jobs lost')
  return pool
}

type ConnectCallback = (
  error: Error | undefined,
  client: pg.PoolClient | undefined,
  release: (error?: Error | boolean) => void,
) => void

/**
 * graphile-worker 0.18 releases the client of its listener twice when it is stopped while the
 * connection is lost; pg-pool throws then, where nobody catches it.
 */
function releaseOnce(client: pg.PoolClient): pg.PoolClient {
  const release = client.release
  let released = false
  client.release = (error) => {
    if (released) return
    released = true
    release.call(client, error)
  }
  return client
}

async function runTransaction<T>(pool: pg.Pool, work: (tx: Queryable) => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await withClient(pool, (client) => runOnce(client, work))
    } catch (thrown) {
      if (attempt === ATTEMPTS_MAX || !isRetryable(thrown)) throw thrown
    }
  }
}

async function runOnce<T>(client: pg.ClientBase, work: (tx: Queryable) => Promise<T>): Promise<T> {
  await run(client, 'begin')
  let result: T
  try {
    result = await work({ query: (text, values) => run(client, text, values) })
  } catch (thrown) {
    // A connection that is lost, or closed for what happened on it, rolls back by itself: one that
    // does not answer would keep the caller waiting as long again.
    if (!poisonsConnection(thrown)) await client.query('rollback').catch(() => {})
    throw thrown
  }
  const { command } = await run(client, 'commit')
  // PostgreSQL answers ROLLBACK to a commit of a failed transaction.
  assert(command === 'COMMIT', 'no statement of a committed transaction failed')
  return result
}

async function withClient<T>(
  pool: pg.Pool,
  use: (client: pg.PoolClient) => Promise<T>,
): Promise<T> {
  const client = await pool.connect().catch((thrown: unknown) => {
    throw isQueueTimeout(thrown) ? unavailable('database_busy', thrown) : toStoreError(thrown)
  })
  let broken = false
  // The pool listens only while a client is idle; a connection lost during a transaction is seen by
  // the next statement.
  const onError = () => {
    broken = true
  }
  client.on('error', onError)
  try {
    return await use(client)
  } catch (thrown) {
    broken ||= poisonsConnection(thrown)
    throw thrown
  } finally {
    client.off('error', onError)
    client.release(broken)
  }
}

/** All connections are in use, and none became free in time: the database itself may be well. */
function isQueueTimeout(thrown: unknown): boolean {
  // pg-pool 3 gives it no code.
  return thrown instanceof Error && thrown.message === 'timeout exceeded when trying to connect'
}

async function run<Row extends object>(
  client: pg.ClientBase,
  text: string,
  values: readonly unknown[] = [],
): Promise<Rows<Row>> {
  try {
    const result = await client.query<Row>(text, [...values])
    return { rows: result.rows, count: result.rowCount ?? 0, command: result.command }
  } catch (thrown) {
    throw toStoreError(thrown)
  }
}

const INT8_OID = 20

/** bigint columns hold seconds and row ids, which a double carries exactly up to 2^53. */
function getTypeParser(oid: number, format?: 'text' | 'binary'): (value: string) => unknown {
  if (oid === INT8_OID && format !== 'binary') return parseInt8
  return pg.types.getTypeParser(oid, format as 'text')
}

function parseInt8(text: string): number {
  const value = Number(text)
  assert(Number.isSafeInteger(value), 'a bigint column holds a safe integer')
  return value
}
