/**
 * The datastore: PostgreSQL behind every port of server/ports.ts, the authorities and the ledger.
 * Opening it brings the schema up to date and refuses a database that is not ours.
 */
import pg from 'pg'
import { SignetError } from '../../base/error.ts'
import { LEDGER_PARTITION_WEEKS } from '../../base/limits.ts'
import type { Clock, EpochSeconds, Log, Metrics, Random } from '../../base/ports.ts'
import type { AuthorityStore } from '../../ca/authority/authority.ts'
import type { AgentStore, BundleStore, ChangeLog, EntryStore, JoinTokenStore } from '../ports.ts'
import { type AgentFeed, createAgentStore } from './agent/agent-store.ts'
import { createAuthorityStore } from './authority-store.ts'
import { createBundleStore } from './bundle/bundle-store.ts'
import { createChangeLog, pruneChangeLog } from './change-log/change-log.ts'
import { listenForChanges } from './change-log/listener.ts'
import { parseConnectionString } from './connection-string.ts'
import type { StoreContext } from './context.ts'
import { type Database, openDatabase, openJobPool, sessionConfig } from './database.ts'
import { createEntryStore, type EntryFeed } from './entry/entry-store.ts'
import { createJoinTokenStore } from './join-token-store.ts'
import { createLedger, type StoredLedger } from './ledger/ledger.ts'
import { dropLedgerPartitions } from './ledger/retention.ts'
import { migrate } from './migrate.ts'
import { toSetupError } from './postgres-error.ts'

export interface DatastoreOptions {
  /** Either an address or a connection string. */
  readonly poolConfig?: pg.ClientConfig
  readonly connectionString?: string
  readonly maxOpenConns?: number | undefined
  /** Bare name. A database of another trust domain is refused. */
  readonly trustDomain: string
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  readonly metrics: Metrics
  /** Use the database even though SPIRE's tables are in it. */
  readonly fresh?: boolean
}

export interface Datastore extends AsyncDisposable {
  readonly entries: EntryStore & EntryFeed
  readonly agents: AgentStore & AgentFeed
  readonly joinTokens: JoinTokenStore
  readonly bundles: BundleStore
  readonly authorities: AuthorityStore
  readonly ledger: StoredLedger
  readonly changeLog: ChangeLog
  readonly maintenance: Maintenance
  /** Rejects with unavailable when PostgreSQL does not answer. */
  ping(): Promise<void>
  /** A small pool of its own for the job runner, which closes it. */
  openJobPool(): pg.Pool
  close(): Promise<void>
}

/** What jobs do to the database itself. */
export interface Maintenance {
  /** Rows deleted. */
  pruneChangeLog(now: EpochSeconds, keepSeconds: number): Promise<number>
  /** Partitions made. */
  createLedgerPartitions(now: EpochSeconds): Promise<number>
  /** Partitions dropped: those of SVIDs that all expired before. */
  dropLedgerPartitions(expiredBefore: EpochSeconds): Promise<number>
}

export async function openDatastore(options: DatastoreOptions): Promise<Datastore> {
  const config = options.poolConfig ?? parseConnectionString(options.connectionString ?? '')
  await prepareDatabase(config, options)
  const db = openDatabase(config, options)
  const context: StoreContext = { ...options, db }
  const ledger = createLedger({ ...options, db, config })
  let closed: Promise<void> | undefined
  const close = () => {
    closed ??= (async () => {
      await ledger[Symbol.asyncDispose]()
      await db[Symbol.asyncDispose]()
    })()
    return closed
  }
  return {
    entries: createEntryStore(context),
    agents: createAgentStore(context),
    joinTokens: createJoinTokenStore(context),
    bundles: createBundleStore(context),
    authorities: createAuthorityStore(context),
    ledger,
    changeLog: createChangeLog(db, (wake) => listenForChanges(config, options, wake)),
    maintenance: createMaintenance(db),
    ping: async () => {
      await db.query('select 1')
    },
    openJobPool: () => openJobPool(config, options.log),
    close,
    [Symbol.asyncDispose]: close,
  }
}

function createMaintenance(db: Database): Maintenance {
  return {
    pruneChangeLog: (now, keepSeconds) => pruneChangeLog(db, now, keepSeconds),
    createLedgerPartitions: async (now) => {
      const { rows } = await db.query<{ made: number }>(CREATE_PARTITIONS, [
        now,
        LEDGER_PARTITION_WEEKS,
      ])
      return rows[0]?.made ?? 0
    },
    dropLedgerPartitions: (expiredBefore) => dropLedgerPartitions(db, expiredBefore),
  }
}

const CREATE_PARTITIONS = 'select signet.create_ledger_partitions($1, $2) as made'

async function prepareDatabase(config: pg.ClientConfig, options: DatastoreOptions): Promise<void> {
  const client = new pg.Client({ ...sessionConfig(config), application_name: 'signet setup' })
  client.on('error', () => {})
  try {
    await client.connect()
    if (options.fresh !== true) await refuseSpireTables(client)
    await migrate(client)
    await claimDeployment(client, options.trustDomain)
    await client.query(CREATE_PARTITIONS, [options.clock.nowSeconds(), LEDGER_PARTITION_WEEKS])
  } catch (thrown) {
    throw toSetupError(thrown)
  } finally {
    await client.end().catch(() => {})
  }
}

/** features.md §7.4. A database that is already ours may hold anything else. */
async function refuseSpireTables(client: pg.ClientBase): Promise<void> {
  const { rows } = await client.query<{ name: string }>(
    `select name from unnest(array['registered_entries', 'attested_node_entries', 'bundles',
       'migrations']) as name
     where to_regclass(name) is not null and to_regclass('signet.deployment') is null`,
  )
  if (rows.length === 0) return
  throw new SignetError(
    'failed_precondition',
    'spire_database',
    `the database holds SPIRE's tables (${rows.map((row) => row.name).join(', ')}); ` +
      'give Signet another one, or start with -fresh to begin anew beside them',
  )
}

async function claimDeployment(client: pg.ClientBase, trustDomain: string): Promise<void> {
  await client.query(
    'insert into signet.deployment (trust_domain) values ($1) on conflict do nothing',
    [trustDomain],
  )
  const { rows } = await client.query<{ trust_domain: string }>(
    'select trust_domain from signet.deployment',
  )
  const stored = rows[0]?.trust_domain
  if (stored === trustDomain) return
  throw new SignetError(
    'failed_precondition',
    'other_trust_domain',
    `the database belongs to trust domain ${JSON.stringify(stored)}, not to ` +
      `${JSON.stringify(trustDomain)}`,
  )
}
