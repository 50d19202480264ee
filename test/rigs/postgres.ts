/**
 * A real PostgreSQL for tests: one server per vitest run (the embedded binaries, fsync off), one
 * database per test file, cloned from a template that holds the migrated schema.
 *
 *   const db = useDatabase()                 // at the top of a test file or describe block
 *   test('…', async () => { await openDatastore({ poolConfig: db.poolConfig, … }) })
 *
 * After the file, connections that a test left open are a failure: leaks hide in fast tests.
 */
import { spawn } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { isMainThread } from 'node:worker_threads'
import pg from 'pg'
import { afterAll, beforeAll } from 'vitest'
import { systemClock } from '../../src/base/clock.ts'
import { createSystemRandom } from '../../src/base/random.ts'
import { migrate } from '../../src/server/datastore/migrate.ts'

export interface TestPoolConfig {
  readonly host: string
  readonly port: number
  readonly user: string
  readonly password: string
  readonly database: string
}

export interface TestDatabase {
  readonly poolConfig: TestPoolConfig
  /** libpq's key=value form, as a connection_string of a configuration file. */
  readonly connectionString: string
  /** One statement on a connection of its own: what a second observer sees. */
  query(text: string, values?: readonly unknown[]): Promise<pg.QueryResult>
}

const TEMPLATE = 'signet_template'
/** Serialises template creation over the workers of a run. */
const TEMPLATE_LOCK = 7_301
const START_MS_MAX = 60_000
const POLL_MS = 25
const random = createSystemRandom()

type ServerConfig = Omit<TestPoolConfig, 'database'>

/** For the whole file (or describe block): created before, dropped and leak-checked after. */
export function useDatabase(options: { readonly migrated?: boolean } = {}): TestDatabase {
  let database: (TestDatabase & AsyncDisposable) | undefined
  beforeAll(async () => {
    database = await createDatabase(options)
  })
  afterAll(async () => {
    await database?.[Symbol.asyncDispose]()
  })
  const here = () => {
    if (database === undefined) throw new Error('the database is there from beforeAll on')
    return database
  }
  return {
    get poolConfig() {
      return here().poolConfig
    },
    get connectionString() {
      return here().connectionString
    },
    query: (text, values) => here().query(text, values),
  }
}

/** A database for one call. */
export async function withDatabase<T>(
  use: (database: TestDatabase) => Promise<T>,
  options: { readonly migrated?: boolean } = {},
): Promise<T> {
  await using database = await createDatabase(options)
  return await use(database)
}

/** `migrated: false` gives an empty one. */
export async function createDatabase(
  options: { readonly migrated?: boolean } = {},
): Promise<TestDatabase & AsyncDisposable> {
  const server = await sharedServer()
  const name = `t_${Buffer.from(random.bytes(8)).toString('hex')}`
  const migrated = options.migrated ?? true
  if (migrated) await ensureTemplate(server)
  const source = migrated ? TEMPLATE : 'template0'
  await run(server, 'postgres', `create database ${name} template ${source} strategy file_copy`)
  const poolConfig: TestPoolConfig = { ...server, database: name }
  const pairs = { ...poolConfig, dbname: name } as Record<string, unknown>
  delete pairs.database
  return {
    poolConfig,
    connectionString: Object.entries(pairs)
      .map(([key, value]) => `${key}='${value}'`)
      .join(' '),
    query: (text, values) => run(server, name, text, values),
    [Symbol.asyncDispose]: () => dropDatabase(server, name),
  }
}

async function dropDatabase(server: ServerConfig, name: string): Promise<void> {
  const left = await openConnections(server, name)
  await run(server, 'postgres', `drop database ${name} with (force)`)
  if (left.length > 0) throw new Error(`connections left open: ${left.join(', ')}`)
}

/** A closed socket takes PostgreSQL a moment to notice. */
async function openConnections(server: ServerConfig, name: string): Promise<readonly string[]> {
  const text = `select application_name, left(query, 60) as query from pg_stat_activity
    where datname = $1 and backend_type = 'client backend'`
  const deadline = systemClock.monotonicMs() + 2_000
  while (true) {
    const { rows } = await run(server, 'postgres', text, [name])
    if (rows.length === 0 || systemClock.monotonicMs() > deadline) {
      return rows.map((row) => `${row.application_name} (${row.query})`)
    }
    await systemClock.sleep(POLL_MS)
  }
}

async function ensureTemplate(server: ServerConfig): Promise<void> {
  const client = new pg.Client({ ...server, database: 'postgres' })
  await client.connect()
  try {
    await client.query('select pg_advisory_lock($1)', [TEMPLATE_LOCK])
    const found = await client.query('select 1 from pg_database where datname = $1', [TEMPLATE])
    if (found.rowCount !== 0) return
    await client.query(`drop database if exists ${TEMPLATE}_new`)
    await client.query(`create database ${TEMPLATE}_new`)
    const inside = new pg.Client({ ...server, database: `${TEMPLATE}_new` })
    await inside.connect()
    try {
      await migrate(inside)
    } finally {
      await inside.end()
    }
    await client.query(`alter database ${TEMPLATE}_new rename to ${TEMPLATE}`)
  } finally {
    await client.end()
  }
}

async function run(
  server: ServerConfig,
  database: string,
  text: string,
  values: readonly unknown[] = [],
): Promise<pg.QueryResult> {
  const client = new pg.Client({ ...server, database })
  await client.connect()
  try {
    return await client.query(text, [...values])
  } finally {
    await client.end()
  }
}

/** The run's main process: a worker's parent (forks), or this process (threads). */
function runPid(): number {
  return isMainThread ? process.ppid : process.pid
}

async function sharedServer(): Promise<ServerConfig> {
  const dir = path.join(tmpdir(), `signet-test-${process.geteuid?.()}-${runPid()}`)
  const file = path.join(dir, 'server.json')
  if (!existsSync(file) && isFirst(dir)) {
    const keeper = path.join(import.meta.dirname, 'postgres-keeper.ts')
    const args = [keeper, dir, String(runPid())]
    const child = spawn(process.execPath, args, { detached: true, stdio: 'ignore' })
    child.unref()
  }
  const deadline = systemClock.monotonicMs() + START_MS_MAX
  while (!existsSync(file)) {
    if (systemClock.monotonicMs() > deadline) throw new Error(`no PostgreSQL in ${dir}`)
    await systemClock.sleep(POLL_MS)
  }
  return JSON.parse(readFileSync(file, 'utf8')) as ServerConfig
}

function isFirst(dir: string): boolean {
  try {
    mkdirSync(dir, { mode: 0o700 })
    return true
  } catch {
    return false
  }
}
