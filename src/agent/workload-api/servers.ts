/**
 * The agent's two sockets: the public one for workloads (Workload API, Health, reflection) and the
 * admin one (Debug, Health). Each is a grpc-js server without port of its own, fed by our listener.
 */
import { Server } from '@grpc/grpc-js'
import {
  HTTP2_SESSION_MEGABYTES_MAX,
  WORKLOAD_REQUEST_BYTES_MAX,
  WORKLOAD_STREAMS_PER_CONNECTION_MAX,
} from '../../base/limits.ts'
import type { Clock, Log, Metrics } from '../../base/ports.ts'
import { HealthService } from '../../wire/gen/grpc/health/v1/health.ts'
import { ServerReflectionService as ReflectionV1 } from '../../wire/gen/grpc/reflection/v1/reflection.ts'
import { ServerReflectionService as ReflectionV1Alpha } from '../../wire/gen/grpc/reflection/v1alpha/reflection.ts'
import { DebugService } from '../../wire/gen/spire/api/agent/debug/v1/debug.ts'
import { limitHeaderLists } from '../../wire/transport/header-limit.ts'
import type { AgentConfig, WorkloadRateLimit } from '../config.ts'
import type { AgentService } from '../service.ts'
import type { WorkloadAttestation } from './attestation.ts'
import { listenUnix, type UnixListener, type WorkloadConnection } from './connections.ts'
import { type DebugFacts, debugImplementation } from './debug.ts'
import { createWorkloadApi, type WorkloadApiOptions } from './handlers.ts'
import { healthImplementation } from './health.ts'
import { createRateLimiter } from './rate-limit.ts'
import { createReflection, reflectionImplementation } from './reflection.ts'
import { prepareAdminSocket, preparePublicSocket } from './socket-places.ts'
import { createJwtSvidValidator } from './validate-jwt-svid.ts'

/** SPIRE's modes: everybody may ask for an identity, only the owner and group administrate. */
const PUBLIC_MODE = 0o777
const ADMIN_MODE = 0o770
/** Until the last answers are written out: a session that is closed before cancels them instead. */
const FLUSH_MS = 100
const CLOSE_GRACE_MS = 500

const WORKLOAD_API = 'SpiffeWorkloadAPI'
const OTHER_PUBLIC_SERVICES = [
  'grpc.health.v1.Health',
  'grpc.reflection.v1.ServerReflection',
  'grpc.reflection.v1alpha.ServerReflection',
]

interface SocketOptions {
  readonly path: string
  readonly attestation: WorkloadAttestation
  readonly isServing: () => Promise<boolean>
  readonly clock: Clock
  readonly log: Log
  readonly metrics: Metrics
}

export interface PublicServerOptions extends SocketOptions {
  /** Undefined: switched off, for agents that serve something else here. */
  readonly workloadApi:
    | Omit<WorkloadApiOptions, 'connection' | 'clock' | 'log' | 'metrics'>
    | undefined
}

export async function startPublicServer(options: PublicServerOptions): Promise<AsyncDisposable> {
  const { path, log, clock } = options
  const server = createServer()
  let find: (peer: string) => WorkloadConnection | undefined = () => undefined
  const api =
    options.workloadApi &&
    createWorkloadApi({ ...options.workloadApi, ...options, connection: (peer) => find(peer) })
  if (api !== undefined) server.addService(api.service, api.implementation)
  server.addService(HealthService, healthImplementation(options))
  const reflection = reflectionImplementation(
    createReflection([...(api === undefined ? [] : [WORKLOAD_API]), ...OTHER_PUBLIC_SERVICES]),
  )
  server.addService(ReflectionV1, reflection)
  server.addService(ReflectionV1Alpha, reflection)
  await preparePublicSocket(path)
  const listener = await listenUnix({ ...options, mode: PUBLIC_MODE, server })
  find = (peer) => listener.connection(peer)
  const fields = { network: 'unix', address: path, apis: 'Workload API' }
  log.info('Starting agent APIs', fields)
  return {
    async [Symbol.asyncDispose]() {
      log.info('Stopping agent APIs', fields)
      api?.shutdown()
      await stop(server, listener, clock)
    },
  }
}

export interface AdminServerOptions extends SocketOptions {
  /** Of the public socket; empty when there is none. */
  readonly publicPath: string
  readonly debugFacts: () => DebugFacts
}

export async function startAdminServer(options: AdminServerOptions): Promise<AsyncDisposable> {
  const { log, clock } = options
  const path = await prepareAdminSocket(options.path, options.publicPath, log)
  const server = createServer()
  server.addService(DebugService, debugImplementation(options, options.debugFacts))
  server.addService(HealthService, healthImplementation(options))
  const listener = await listenUnix({ ...options, path, mode: ADMIN_MODE, server })
  log.info('Starting Admin APIs', { network: 'unix', address: path })
  return {
    async [Symbol.asyncDispose]() {
      log.info('Stopping Admin APIs')
      await stop(server, listener, clock)
      log.info('Admin APIs have stopped')
    },
  }
}

function createServer(): Server {
  const server = new Server({
    'grpc.max_receive_message_length': WORKLOAD_REQUEST_BYTES_MAX,
    'grpc.max_concurrent_streams': WORKLOAD_STREAMS_PER_CONNECTION_MAX,
    'grpc-node.max_session_memory': HTTP2_SESSION_MEGABYTES_MAX,
    'grpc.enable_channelz': 0,
  })
  limitHeaderLists(server)
  return server
}

async function stop(server: Server, listener: UnixListener, clock: Clock): Promise<void> {
  await clock.sleep(FLUSH_MS)
  const closed = new Promise<void>((resolve) => server.tryShutdown(() => resolve()))
  await Promise.race([closed, clock.sleep(CLOSE_GRACE_MS)])
  server.forceShutdown()
  await listener[Symbol.asyncDispose]()
}

export interface SocketPorts {
  readonly clock: Clock
  readonly log: Log
  readonly metrics: Metrics
}

/** What the configuration asks for; none is a valid answer. */
export async function startSockets(
  config: AgentConfig,
  ports: SocketPorts,
  attestation: WorkloadAttestation,
  service: AgentService,
  isServing: () => Promise<boolean>,
): Promise<AsyncDisposable[]> {
  const { clock, log, metrics } = ports
  const endpoints = log.with({ subsystem_name: 'endpoints' })
  const startMs = clock.monotonicMs()
  const shared = { attestation, isServing, clock, log: endpoints, metrics }
  const open: AsyncDisposable[] = []
  const isPublic = !(config.disableWorkloadApi && config.disableSdsApi)
  if (!isPublic) {
    log.info('Skipping agent APIs because public endpoint is disabled', {
      apis: 'Workload and SDS APIs',
    })
  } else {
    const workloadApi = {
      cache: service.cache,
      jwtSvids: service.jwtSvids,
      validator: createJwtSvidValidator(clock, config.trustDomain, config.allowedForeignJwtClaims),
      rateLimiter: createRateLimiter(rateLimits(config.rateLimit), ports),
      allowUnauthenticatedVerifiers: config.allowUnauthenticatedVerifiers,
      logSelectors: config.logSelectors,
    }
    open.push(
      await startPublicServer({
        ...shared,
        path: config.socketPath,
        workloadApi: config.disableWorkloadApi ? undefined : workloadApi,
      }),
    )
  }
  if (config.adminSocketPath !== '') {
    const debugFacts = () => ({
      chain: service.identity.svid.chain,
      roots: service.roots(),
      uptimeSeconds: (clock.monotonicMs() - startMs) / 1000,
      x509SvidCount: service.cache.svidCount,
      jwtSvidCount: service.jwtCache.size,
      lastSyncSuccess: service.synchronizer.lastSuccess,
    })
    const publicPath = isPublic ? config.socketPath : ''
    const path = config.adminSocketPath
    open.push(await startAdminServer({ ...shared, path, publicPath, debugFacts }))
  }
  return open
}

function rateLimits(config: WorkloadRateLimit): Record<string, number> {
  return {
    '/SpiffeWorkloadAPI/FetchX509SVID': config.fetchX509Svid,
    '/SpiffeWorkloadAPI/FetchJWTSVID': config.fetchJwtSvid,
    '/SpiffeWorkloadAPI/FetchX509Bundles': config.fetchX509Bundles,
    '/SpiffeWorkloadAPI/FetchJWTBundles': config.fetchJwtBundles,
  }
}
