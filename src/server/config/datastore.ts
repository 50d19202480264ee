/**
 * `DataStore "sql"` (features.md §2.5). PostgreSQL is the only engine: `postgres` is used, `sqlite3`
 * means the embedded one, `mysql` is refused with what to do.
 */
import { notYet, refuse } from '../../base/config/document.ts'
import { anything, flag, section, text, whole } from '../../base/config/fields.ts'
import { readPluginData } from '../../base/config/plugins.ts'
import { readDurationMs } from '../../base/config/shared.ts'
import type { PluginConfig } from '../../base/config/types.ts'
import { isRawObject } from '../../base/hcl/value.ts'
import type { DataStoreConfig } from './types.ts'

/** SPIRE's default; a pool this large is a cap, not a promise. */
const DEFAULT_MAX_OPEN_CONNS = 100

const SQL = section({
  database_type: anything,
  connection_string: text,
  ro_connection_string: text,
  root_ca_path: text,
  client_cert_path: text,
  client_key_path: text,
  max_open_conns: whole,
  max_idle_conns: whole,
  conn_max_lifetime: text,
  disable_migration: flag,
  log_sql: flag,
}).unwrap()

/** Who sets these for PostgreSQL believes in a TLS that is not there: what would make it so. */
const MYSQL_ONLY = [
  ['root_ca_path', 'sslmode=verify-full and sslrootcert'],
  ['client_cert_path', 'sslcert'],
  ['client_key_path', 'sslkey'],
] as const

type Sql = ReturnType<typeof readSql>

export interface DataStoreContext {
  readonly fresh: boolean
  /** Has the embedded database run in this data directory before? */
  isStarted(): boolean
  sizeOf(path: string): number
}

export function readDataStore(
  plugin: PluginConfig | undefined,
  context: DataStoreContext,
  notices: string[],
): DataStoreConfig {
  if (plugin === undefined) return { kind: 'embedded' }
  const sql = readSql(plugin)
  if (sql.disable_migration) {
    throw refuse(
      'disable_migration is not supported: Signet always brings its own schema up to date',
    )
  }
  noticeTuning(sql, notices)
  switch (databaseType(sql.database_type)) {
    case 'postgres':
      return readPostgres(sql)
    case 'sqlite3':
      refuseSpireFile(sql.connection_string ?? '', context)
      notices.push(
        'DataStore "sql" with sqlite3 means the embedded PostgreSQL in data_dir; the SQLite file is not used',
      )
      return { kind: 'embedded' }
    case 'mysql':
    case 'aws_mysql':
      throw refuse(
        'database_type "mysql" is not supported: use "postgres", or drop the DataStore block for the embedded PostgreSQL',
      )
    case 'aws_postgres':
      throw notYet('database_type "aws_postgres" (IAM authentication)')
  }
}

function readSql(plugin: PluginConfig) {
  return readPluginData(plugin, SQL)
}

type DatabaseType = 'postgres' | 'sqlite3' | 'mysql' | 'aws_postgres' | 'aws_mysql'

function databaseType(raw: unknown): DatabaseType {
  const name = isRawObject(raw) ? Object.keys(raw)[0] : raw
  switch (name) {
    case 'postgres':
    case 'sqlite3':
    case 'mysql':
    case 'aws_postgres':
    case 'aws_mysql':
      return name
    case undefined:
    case '':
      throw refuse('datastore-sql: database_type must be set')
    default:
      throw refuse(`datastore-sql: unsupported database_type: ${String(name)}`)
  }
}

function readPostgres(sql: Sql): DataStoreConfig {
  if (!sql.connection_string) throw refuse('datastore-sql: connection_string must be set')
  const maxOpenConns = sql.max_open_conns || DEFAULT_MAX_OPEN_CONNS
  if (maxOpenConns < 0) throw refuse('datastore-sql: max_open_conns must not be negative')
  return {
    kind: 'postgres',
    connectionString: sql.connection_string,
    maxOpenConns,
  }
}

/** Starting empty beside a fleet's registrations would look like losing them. */
function refuseSpireFile(connectionString: string, context: DataStoreContext): void {
  const path = connectionString.replace(/^file:/, '').replace(/\?.*$/s, '')
  if (context.fresh || path === '' || path === ':memory:' || context.isStarted()) return
  if (context.sizeOf(path) === 0) return
  throw refuse(
    `${path} holds the data of a SPIRE server, which cannot be imported yet: start with -fresh to leave it alone and begin empty`,
  )
}

function noticeTuning(sql: Sql, notices: string[]): void {
  if (sql.conn_max_lifetime) {
    readDurationMs(
      `failed to parse conn_max_lifetime ${JSON.stringify(sql.conn_max_lifetime)}`,
      sql.conn_max_lifetime,
    )
  }
  if (sql.log_sql) {
    notices.push(
      'DataStore "sql": log_sql has no meaning here and is ignored; set log_statement in PostgreSQL',
    )
  }
  for (const key of ['conn_max_lifetime', 'max_idle_conns'] as const) {
    if (sql[key]) notices.push(`DataStore "sql": ${key} has no meaning here and is ignored`)
  }
  if (sql.ro_connection_string) {
    // Differs from SPIRE: its caches are rebuilt by listing everything, which a replica can bear.
    // Ours follow the change log, and a replica that lags would hide a ban or bring it back.
    notices.push(
      'DataStore "sql": ro_connection_string is not used: all reads go to the primary, and caches ' +
        'follow its change log',
    )
  }
  for (const [key, option] of MYSQL_ONLY) {
    if (!sql[key]) continue
    notices.push(
      `DataStore "sql": ${key} is for MySQL only and is ignored, as in SPIRE; ` +
        `for PostgreSQL set ${option} in connection_string`,
    )
  }
}
