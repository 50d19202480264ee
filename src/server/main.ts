/**
 * The composition root of the server: builds the leaves first, then what stands on them, opens the
 * doors and runs until told to stop. `runServer` resolves after a graceful stop and rejects with
 * what went wrong at start.
 */
import type { Reconfigurables } from '../base/config/reconfigure.ts'
import type { ConfigFiles } from '../base/config/types.ts'
import type { Health } from '../base/http-health.ts'
import type { RootLog } from '../base/log.ts'
import { disableCoreDumps, setNonDumpable } from '../base/os/hardening.ts'
import type { Clock, Log, Metrics, Random } from '../base/ports.ts'
import { CLUSTER_DEFAULT } from '../ca/authority/authority.ts'
import { createAuthorize } from './authz/authorize.ts'
import type { ServerConfig } from './config/types.ts'
import { makeDirectory } from './data-dir.ts'
import { type Doors, openDoors } from './doors.ts'
import { addServerChecks } from './health/checks.ts'
import { maintenanceJobs } from './jobs/maintenance.ts'
import { startJobs } from './jobs/runner.ts'
import { ConnectionRegistry } from './listener/connection-registry.ts'
import { createNodeAttestors } from './node-attestors.ts'
import { createRateLimiter, rateLimitsOf } from './rate-limit.ts'
import type { HandlerPorts } from './rpc/ports.ts'
import { createServerSvid, type ServerSvid } from './server-svid.ts'
import { openState, type ServerState } from './state.ts'
import { createSyncService } from './sync/sync-service.ts'
import { createTrustedRoots } from './trusted-roots.ts'

export interface ServerPorts {
  readonly clock: Clock
  readonly random: Random
  readonly log: RootLog
  readonly metrics: Metrics
  readonly health: Health
  /** Of `plugin_data_file`. */
  readonly files: Pick<ConfigFiles, 'readText'>
  /** Gets what SIGUSR1 reconfigures. */
  readonly reconfigurables: Reconfigurables
  readonly version: string
  /** Aborts for a graceful stop. */
  readonly signal: AbortSignal
}

/** As SPIRE makes it. What is secret inside has modes of its own. */
const DATA_DIR_MODE = 0o755
const JOBS_RETRY_MS = 10_000

export async function runServer(config: ServerConfig, ports: ServerPorts): Promise<void> {
  try {
    await serve(config, ports)
  } catch (error) {
    ports.log.error('Fatal run error', { error })
    throw error
  }
}

async function serve(config: ServerConfig, ports: ServerPorts): Promise<void> {
  const { log, signal } = ports
  setNonDumpable()
  disableCoreDumps()
  log.info('Configured', {
    admin_ids: config.adminIds.map(String),
    data_dir: config.dataDir,
    launch_log_level: config.log.level,
    version: ports.version,
  })
  makeDirectory(config.dataDir, DATA_DIR_MODE)
  // The background work ends before what it works on is closed.
  await using state = await openState(config, ports)
  if (signal.aborted) return
  const background = new AbortController()
  const running: Promise<void>[] = []
  try {
    const { svid, doors } = await openService(config, ports, state)
    running.push(
      state.feed.run(background.signal),
      state.rotator.run(background.signal),
      svid.run(background.signal),
      runJobs(config, ports, state, background.signal),
    )
    await aborted(signal)
    await doors.stop()
  } finally {
    background.abort()
    await Promise.all(running)
  }
}

/** Never rejects: a server whose jobs can't start yet serves all the same. */
async function runJobs(
  config: ServerConfig,
  ports: ServerPorts,
  state: ServerState,
  signal: AbortSignal,
): Promise<void> {
  const log = ports.log.with({ subsystem_name: 'jobs' })
  while (!signal.aborted) {
    try {
      await using _jobs = await startMaintenance(config, { ...ports, log }, state)
      await aborted(signal)
    } catch (error) {
      log.warn('Jobs can not be started', { error })
      await ports.clock.sleep(JOBS_RETRY_MS, signal).catch(() => {})
    }
  }
}

async function startMaintenance(
  config: ServerConfig,
  ports: Pick<ServerPorts, 'clock' | 'random' | 'metrics'> & { readonly log: Log },
  { datastore, agents }: ServerState,
): Promise<AsyncDisposable> {
  const { nodesExpiredForSeconds, nodesBatchSize, includeTofuNodes } = config.pruning
  const jobs = maintenanceJobs({
    ...datastore,
    ...ports,
    agents: agents.store,
    trustDomain: config.trustDomain.name,
    ...(nodesExpiredForSeconds > 0 && {
      pruneAgents: {
        expiredForSeconds: nodesExpiredForSeconds,
        includeNonReattestable: includeTofuNodes,
        batchSize: nodesBatchSize,
      },
    }),
  })
  const pool = datastore.openJobPool()
  try {
    return await startJobs({ ...ports, pool, jobs })
  } catch (error) {
    await pool.end()
    throw error
  }
}

interface Service {
  readonly svid: ServerSvid
  readonly doors: Doors
}

/** Everything that serves, on top of the state. */
async function openService(
  config: ServerConfig,
  ports: ServerPorts,
  state: ServerState,
): Promise<Service> {
  const { trustDomain } = config
  const { datastore, entries, bundles, agents, issuance, authorities } = state
  const log = ports.log.with({ subsystem_name: 'endpoints' })
  let doors: Doors | undefined
  const ownBundle = () => bundles.get(trustDomain.name)
  const svid = createServerSvid(
    {
      ...ports,
      log: ports.log.with({ subsystem_name: 'svid_rotator' }),
      trustDomain,
      issuance,
      issuers: authorities,
      bundle: ownBundle,
      keyType: config.caKeyType,
    },
    (certificate) => doors?.setCertificate(certificate),
  )
  await svid.step()
  // A new issuer, or a taint, at once; failures are retried by `run`.
  state.onAuthorities(() => void svid.step().catch(() => {}))
  addServerChecks(ports.health, {
    ...state,
    issuers: authorities,
    isServing: () => doors !== undefined,
    jwtSvidsDisabled: config.disableJwtSvids,
  })
  const connections = new ConnectionRegistry()
  const rateLimiter = createRateLimiter(ports, rateLimitsOf(config.rateLimit))
  const authorize = createAuthorize({
    clock: ports.clock,
    agents: agents.lookup,
    store: agents.store,
    trustDomain,
    adminIds: config.adminIds,
    entries,
    ledger: datastore.ledger,
  })
  const sync = createSyncService({ ...ports, trustDomain, entries, bundles, store: agents.store })
  doors = await openDoors({
    config,
    ports: {
      ...ports,
      log,
      connections,
      authorize,
      rateLimiter,
      auditLogEnabled: config.auditLogEnabled,
    },
    handlers: handlerPorts(config, ports, state, svid, connections),
    sync: sync.subscribe,
    trustedRoots: createTrustedRoots(bundles.get, log),
    authorities,
    certificate: svid.current(),
  })
  const open = doors
  return {
    svid,
    doors: {
      setCertificate: open.setCertificate,
      async stop() {
        // Push streams end by themselves only when their agents do.
        sync[Symbol.dispose]()
        await open.stop()
        rateLimiter[Symbol.dispose]()
      },
    },
  }
}

function handlerPorts(
  config: ServerConfig,
  ports: ServerPorts,
  state: ServerState,
  svid: ServerSvid,
  connections: ConnectionRegistry,
): HandlerPorts {
  const { trustDomain } = config
  const { datastore, bundles } = state
  return {
    trustDomain,
    clock: ports.clock,
    random: ports.random,
    entryStore: datastore.entries,
    agentStore: state.agents.store,
    joinTokenStore: datastore.joinTokens,
    bundleStore: datastore.bundles,
    entries: state.entries,
    bundles,
    issuance: state.issuance,
    connections,
    identity: svid,
    logLevel: ports.log,
    nodeAttestors: createNodeAttestors(config.nodeAttestors, {
      ...ports,
      trustDomain,
      joinTokens: datastore.joinTokens,
      ownRoots: () =>
        bundles.get(trustDomain.name)?.x509Authorities.map(({ certificate }) => certificate) ?? [],
    }),
    defaultClusterId: CLUSTER_DEFAULT.id,
    agentSpiffeIdAsSelector: config.agentSpiffeIdAsSelector,
    jwtSvidsDisabled: config.disableJwtSvids,
  }
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve()
    else signal.addEventListener('abort', () => resolve(), { once: true })
  })
}
