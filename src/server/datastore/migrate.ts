/**
 * Brings a database to the schema of this program: forward-only steps, each in one transaction,
 * safe with any number of servers starting at once (an advisory lock lets one work while the others
 * wait).
 */
import type pg from 'pg'
import { SignetError } from '../../base/error.ts'
import { MIGRATIONS } from './gen/sql.ts'

/** xid8, pg_snapshot and `gen_random_uuid` came with 13; 14 is the oldest tested. */
const SERVER_VERSION_MIN = 140_000
/** Any constant nobody else in the database uses. */
const MIGRATION_LOCK = 5_143_201_997

export const SCHEMA_VERSION = MIGRATIONS.length

/** On a connection of its own: it holds a session lock and sets no timeouts back. */
export async function migrate(client: pg.ClientBase): Promise<void> {
  await checkServerVersion(client)
  if ((await currentVersion(client)) === SCHEMA_VERSION) return
  await client.query('set statement_timeout = 0')
  await client.query('set lock_timeout = 0')
  await client.query('select pg_advisory_lock($1)', [MIGRATION_LOCK])
  try {
    const from = await currentVersion(client)
    for (const step of MIGRATIONS) {
      if (step.version > from) await applyStep(client, step)
    }
  } finally {
    await client.query('select pg_advisory_unlock($1)', [MIGRATION_LOCK])
    await client.query('reset statement_timeout')
    await client.query('reset lock_timeout')
  }
}

async function checkServerVersion(client: pg.ClientBase): Promise<void> {
  const { rows } = await client.query<{ server_version_num: string }>('show server_version_num')
  const version = Number(rows[0]?.server_version_num)
  if (version >= SERVER_VERSION_MIN) return
  throw new SignetError(
    'failed_precondition',
    'postgres_too_old',
    `PostgreSQL ${Math.floor(version / 10_000)} is too old: 14 or newer is needed`,
  )
}

/** 0 for an empty database. Refuses a schema that a newer program made. */
async function currentVersion(client: pg.ClientBase): Promise<number> {
  const found = await client.query<{ there: boolean }>(
    "select to_regclass('signet.schema_migration') is not null as there",
  )
  if (found.rows[0]?.there !== true) return 0
  const { rows } = await client.query<{ version: number }>(
    'select coalesce(max(version), 0)::integer as version from signet.schema_migration',
  )
  const version = rows[0]?.version ?? 0
  if (version <= SCHEMA_VERSION) return version
  throw new SignetError(
    'failed_precondition',
    'schema_too_new',
    `the database has schema version ${version}, this program knows ${SCHEMA_VERSION}: ` +
      'a newer release has upgraded it',
  )
}

async function applyStep(
  client: pg.ClientBase,
  step: { readonly version: number; readonly sql: string },
): Promise<void> {
  await client.query('begin')
  try {
    await client.query(step.sql)
    await client.query(
      `create table if not exists signet.schema_migration (
         version integer primary key, applied_at timestamptz not null default now())`,
    )
    await client.query('insert into signet.schema_migration (version) values ($1)', [step.version])
    await client.query('commit')
  } catch (thrown) {
    await client.query('rollback')
    throw thrown
  }
}
