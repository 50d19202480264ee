/**
 * What an attested agent consists of, wired: caches, the client of the server, synchronizer,
 * renewer and taint. Nothing runs yet.
 */
import type { Clock, Log, Metrics, Random } from '../base/ports.ts'
import type { Bundle } from '../spiffe/bundle.ts'
import type { AgentConfig } from './config.ts'
import type { AgentIdentity } from './node/identity.ts'
import type { Bootstrap } from './node/rebootstrap.ts'
import type { AgentStorage } from './node/storage.ts'
import { JwtSvidCache } from './svid-cache/jwt-svid-cache.ts'
import { createJwtSvidFetcher, type JwtSvidFetcher } from './svid-cache/jwt-svid-fetcher.ts'
import type { SealedCache } from './svid-cache/persistence.ts'
import { createRenewer, type Renewer } from './svid-cache/renewer.ts'
import { createTaintProcessor } from './svid-cache/taint.ts'
import { X509SvidCache } from './svid-cache/x509-svid-cache.ts'
import { createServerClient, type ServerClient } from './sync/server-client.ts'
import { createSynchronizer, type Synchronizer } from './sync/synchronizer.ts'

export interface AgentService {
  readonly identity: AgentIdentity
  readonly cache: X509SvidCache
  readonly jwtCache: JwtSvidCache
  readonly jwtSvids: JwtSvidFetcher
  readonly client: ServerClient
  readonly synchronizer: Synchronizer
  readonly renewer: Renewer
  readonly roots: () => readonly Uint8Array[]
  /** Removes SVID and sealed cache. */
  readonly forget: () => Promise<void>
}

export interface ServicePorts {
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  readonly metrics: Metrics
  readonly version: string
}

export function createAgentService(
  config: AgentConfig,
  ports: ServicePorts,
  identity: AgentIdentity,
  storage: AgentStorage,
  sealed: SealedCache,
  bootstrap: Pick<Bootstrap, 'succeeded' | 'untrusted'>,
  bundle: Bundle,
): AgentService {
  const log = ports.log.with({ subsystem_name: 'manager' })
  const shared = { ...ports, log }
  const cache = new X509SvidCache({
    bundle,
    sizeMax: config.x509SvidCacheMaxSize,
    now: () => ports.clock.nowSeconds(),
    onMissing: () => renewer.wake(),
    scheduleFlush: (flush) => void setImmediate(flush),
  })
  const roots = () => cache.bundles.own.x509Authorities.map((a) => a.certificate)
  const client = createClient(config, shared, identity, roots)
  const jwtCache = new JwtSvidCache(config.jwtSvidCacheMaxSize)
  const jwtSvids = createJwtSvidFetcher({
    ...shared,
    client,
    cache: jwtCache,
    cacheHitTimeoutMs: config.jwtSvidCacheHitTimeoutMs,
  })
  const renewer: Renewer = createRenewer({
    ...shared,
    cache,
    client,
    keyType: config.workloadX509SvidKeyType,
    policy: { availabilityTargetSeconds: config.availabilityTargetSeconds },
    onStored() {
      ports.metrics.gauge('lru_cache_svid_map_size', cache.svidCount)
      sealed.changed()
    },
  })
  const taint = createTaintProcessor({
    ...shared,
    x509Cache: cache,
    jwtCache,
    ownChain: () => identity.svid.chain,
    onOwnTainted: () => identity.markTainted(),
    onExpired: () => renewer.wake(),
  })
  const synchronizer = createSynchronizer({
    ...shared,
    client,
    cache,
    taint,
    intervalMs: config.syncIntervalMs,
    useSyncAuthorizedEntries: config.useSyncAuthorizedEntries,
    agentVersion: ports.version,
    onOwnBundle: (own) => void keepBundle(storage, client, own, log),
    onApplied() {
      renewer.wake()
      sealed.changed()
    },
    onReached() {
      // What fell due while the server was away waits for nothing more.
      renewer.wake()
      bootstrap.succeeded().catch((error: unknown) => {
        log.error('Could not store bootstrap state', { error: String(error) })
      })
    },
    onUntrusted: (text, hasSynchronized) => bootstrap.untrusted(text, hasSynchronized),
  })
  const forget = async () => {
    await identity.forget()
    await sealed.remove()
  }
  return { identity, cache, jwtCache, jwtSvids, client, synchronizer, renewer, roots, forget }
}

function createClient(
  config: AgentConfig,
  ports: { readonly clock: Clock; readonly log: Log },
  identity: AgentIdentity,
  roots: () => readonly Uint8Array[],
): ServerClient {
  return createServerClient({
    ...ports,
    host: config.serverAddress,
    port: config.serverPort,
    trustDomain: config.trustDomain,
    roots,
    certificate: () => ({
      chain: identity.svid.chain,
      privateKey: identity.svid.key.pkcs8,
    }),
  })
}

/** The next connection is made with the new roots. */
async function keepBundle(
  storage: AgentStorage,
  client: ServerClient,
  own: Bundle,
  log: Log,
): Promise<void> {
  client.release()
  try {
    await storage.update({ bundle: own.x509Authorities.map((a) => a.certificate) })
  } catch (error) {
    log.error('Could not store bundle', { error: String(error) })
  }
}
