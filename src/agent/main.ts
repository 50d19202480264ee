/**
 * The composition root of the agent: builds the leaves first, then what stands on them, and runs it
 * until told to stop. `runAgent` resolves after a graceful stop and rejects with what went wrong.
 */
import { mkdir } from 'node:fs/promises'
import type { NodeAttestorAgent, WorkloadAttestor } from '../attestors/contract.ts'
import { createUnixWorkloadAttestor } from '../attestors/workload/unix/attestor.ts'
import { configurePlugin, type Reconfigurables } from '../base/config/reconfigure.ts'
import type { ConfigFiles } from '../base/config/types.ts'
import { SignetError } from '../base/error.ts'
import type { Health } from '../base/http-health.ts'
import { createAccountNames } from '../base/os/account-names.ts'
import { disableCoreDumps, setNonDumpable } from '../base/os/hardening.ts'
import type { Clock, Log, Metrics, Random } from '../base/ports.ts'
import type { Bundle } from '../spiffe/bundle.ts'
import { isUnknownAuthority } from '../wire/transport/channel.ts'
import { parseCertificate } from '../x509/certificate.ts'
import { countCall } from './call-counter.ts'
import type { AgentConfig, AgentPluginConfig } from './config.ts'
import { createAgentHealth, type Standing } from './health.ts'
import { createNodeAttestor } from './node/attestors.ts'
import { loadBootstrapBundle } from './node/bootstrap-bundle.ts'
import { AgentIdentity } from './node/identity.ts'
import { memoryKeyStore, openDiskKeyStore } from './node/key-store.ts'
import { type Bootstrap, createBootstrap } from './node/rebootstrap.ts'
import { type AgentStorage, openAgentStorage } from './node/storage.ts'
import { attestWithRetries, supervise, waitForFirstSync } from './runtime.ts'
import { type AgentService, createAgentService } from './service.ts'
import {
  type CacheSnapshot,
  createSealedCache,
  noSealedCache,
  type SealedCache,
} from './svid-cache/persistence.ts'
import { errorText } from './sync/server-client.ts'
import { fetchWorkloadApiBundle, fetchWorkloadApiSvid } from './sync/workload-api-source.ts'
import { createWorkloadAttestation } from './workload-api/attestation.ts'
import { startSockets } from './workload-api/servers.ts'

export interface AgentPorts {
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  readonly metrics: Metrics
  /** As PostStatus reports it. */
  readonly version: string
  /** Aborts for a graceful stop. */
  readonly signal: AbortSignal
  /** Gets the check `agent`. */
  readonly health: Pick<Health, 'add'>
  /** Of `plugin_data_file`. */
  readonly files: Pick<ConfigFiles, 'readText'>
  /** Gets what SIGUSR1 reconfigures. */
  readonly reconfigurables: Reconfigurables
}

const DATA_DIR_MODE = 0o755

export async function runAgent(config: AgentConfig, ports: AgentPorts): Promise<void> {
  const { log, signal } = ports
  // It holds the keys of its workloads (I9).
  setNonDumpable()
  disableCoreDumps()
  log.info('Starting agent', { data_dir: config.dataDir, version: ports.version })
  await mkdir(config.dataDir, { recursive: true, mode: DATA_DIR_MODE })
  const storage = await openAgentStorage(config.dataDir)
  const { keyManager } = config
  const keyStore = await countCall(ports, 'agent_key_manager.get_keys', async () =>
    keyManager.kind === 'memory' ? memoryKeyStore() : openDiskKeyStore(keyManager.directory),
  )
  const identity = new AgentIdentity({
    ...ports,
    host: config.serverAddress,
    port: config.serverPort,
    trustDomain: config.trustDomain,
    storage,
    keyStore,
    attestor: nodeAttestor(config, ports),
    policy: { availabilityTargetSeconds: config.availabilityTargetSeconds },
    log: log.with({ subsystem_name: 'attestor' }),
  })
  const bootstrap = createBootstrap({
    ...ports,
    config,
    storage,
    load: (source) =>
      loadBootstrapBundle(source, config.trustDomain, (address, trustDomain) =>
        fetchWorkloadApiBundle(address, trustDomain, ports.clock),
      ),
  })
  let service: AgentService | undefined
  const create = (bundle: Bundle) =>
    createAgentService(config, ports, identity, storage, sealed, bootstrap, bundle)
  const sealed = openSealedCache(config, ports, identity, storage, () => service)
  const attestation = createWorkloadAttestation(workloadAttestors(config, ports), {
    ...ports,
    log: log.with({ subsystem_name: 'workload_attestor' }),
  })
  await using sockets = new AsyncDisposableStack()
  let isServing = false
  const health = createAgentHealth({
    ...ports,
    log: log.with({ subsystem_name: 'endpoints' }),
    socketPath: config.disableWorkloadApi ? '' : config.socketPath,
    standing: () => (isServing ? standingOf(service!) : undefined),
  })
  ports.health.add('agent', health.check)
  const serve = async (started: AgentService) => {
    const open = await startSockets(config, ports, attestation, started, health.isServing)
    for (const one of open) sockets.use(one)
    isServing = true
  }
  try {
    bootstrap.requireReattestable()
    const loaded = identity.load()
    const restored = await sealed.load()
    if (restored !== undefined) {
      service = create(restored.bundles[0]!)
      restore(service, restored, log)
      await serve(service)
    }
    const bundle = await ensureAttested(config, ports, identity, bootstrap, {
      isLoaded: loaded !== undefined,
      // There is something to serve meanwhile.
      msMax: restored !== undefined ? Number.POSITIVE_INFINITY : bootstrap.startMsMax,
    })
    bootstrap.requireReattestable()
    const fresh = service === undefined
    service ??= create(bundle)
    // Attested against roots that the restored cache does not know: those of the server count.
    if (loaded === undefined) service.cache.applyBundles([bundle])
    await operate(ports, service, bootstrap.startMsMax, fresh ? serve : undefined)
  } catch (error) {
    if (!signal.aborted) throw error
  } finally {
    await sealed.flush()
    service?.client.release()
  }
}

/** Attests unless the kept SVID will do; the own bundle as known now. */
async function ensureAttested(
  config: AgentConfig,
  ports: AgentPorts,
  identity: AgentIdentity,
  bootstrap: Bootstrap,
  start: { readonly isLoaded: boolean; readonly msMax: number },
): Promise<Bundle> {
  const log = ports.log.with({ subsystem_name: 'attestor' })
  const fields = { trust_domain_id: config.trustDomain.id }
  let bundle: Bundle | undefined
  const attempt = async () => {
    const roots = await bootstrap.roots()
    log.info(roots === undefined ? 'Bundle is not found' : 'Bundle loaded', fields)
    if (start.isLoaded) {
      // An SVID without the bundle it came with: somebody changed the data directory.
      if (roots === undefined) throw bundleMissing()
      bundle = bundleOf(config.trustDomain.name, roots)
      log.info('SVID loaded', { ...fields, spiffe_id: identity.svid.spiffeId })
      return
    }
    if (roots === undefined) {
      log.warn('Insecure bootstrap enabled; skipping server certificate verification')
    }
    log.info('SVID is not found. Starting node attestation', fields)
    bundle = await attestOnce(identity, bootstrap, roots)
    const { spiffeId, reattestable } = identity.svid
    log.info('Node attestation was successful', { ...fields, spiffe_id: spiffeId, reattestable })
  }
  await attestWithRetries(ports, attempt, { msMax: start.msMax, signal: ports.signal })
  return bundle!
}

async function attestOnce(
  identity: AgentIdentity,
  bootstrap: Bootstrap,
  roots: readonly Uint8Array[] | undefined,
): Promise<Bundle> {
  try {
    const bundle = await identity.attest(roots)
    await bootstrap.succeeded()
    return bundle
  } catch (error) {
    if (isUnknownAuthority(error)) await bootstrap.untrustedAtStart()
    throw error
  }
}

/** From an attested agent to its end. `serve` opens the sockets if that is still to be done. */
async function operate(
  ports: AgentPorts,
  service: AgentService,
  startMsMax: number,
  serve: ((service: AgentService) => Promise<void>) | undefined,
): Promise<void> {
  const { version } = ports
  const log = ports.log.with({ subsystem_name: 'manager' })
  const own = new AbortController()
  const signal = AbortSignal.any([ports.signal, own.signal])
  // Not waited for: a server that is slow to answer must not hold up synchronization.
  service.client.postStatus(version).catch((error: unknown) => {
    if (signal.aborted) return
    log.error('Failed to post agent status', { agent_version: version, error: errorText(error) })
  })
  const running = supervise({ ...ports, ...service, log }, signal)
  try {
    if (serve !== undefined) {
      const options = { msMax: startMsMax, signal }
      await Promise.race([waitForFirstSync(ports, service.synchronizer, options), running])
      if (!ports.signal.aborted) await serve(service)
    }
    await running
  } finally {
    own.abort()
    await running.catch(() => {})
  }
}

function restore(service: AgentService, snapshot: CacheSnapshot, log: Log): void {
  const { cache, synchronizer } = service
  cache.applyBundles(snapshot.bundles)
  cache.applyEntries({ upserts: snapshot.entries, removals: [] })
  const entries = new Map(snapshot.entries.map((entry) => [entry.id, entry]))
  cache.restoreSvids(
    [...snapshot.svids].flatMap(([id, svid]) => {
      const entry = entries.get(id)
      return entry === undefined ? [] : { entry, svid }
    }),
  )
  synchronizer.adopt(snapshot.entries)
  log.info('Restored the sealed SVID cache', {
    entries: snapshot.entries.length,
    svids: cache.svidCount,
  })
}

function openSealedCache(
  config: AgentConfig,
  ports: AgentPorts,
  identity: AgentIdentity,
  storage: AgentStorage,
  service: () => AgentService | undefined,
): SealedCache {
  if (config.keyManager.kind === 'memory') return noSealedCache
  return createSealedCache({
    ...ports,
    dataDir: config.dataDir,
    // Of the SVID on disk while there is no other: it may have expired, the agent is the same.
    owner: () => {
      const leaf = identity.isAttested ? identity.svid.chain[0] : storage.data.svid[0]
      const agentId = leaf === undefined ? '' : (parseCertificate(leaf).uriNames[0] ?? '')
      return `${config.trustDomain.id}\0${agentId}`
    },
    snapshot: () => snapshotOf(service()!),
  })
}

function standingOf({ cache, synchronizer }: AgentService): Standing {
  return { lastSyncSuccess: synchronizer.lastSuccess, x509SvidsDue: cache.dueCount }
}

function snapshotOf({ cache }: AgentService): CacheSnapshot {
  const { own } = cache.bundles
  return {
    entries: cache.entries(),
    bundles: [own, ...cache.bundles.all().filter((bundle) => bundle !== own)],
    svids: new Map(cache.identities().map(({ entry, svid }) => [entry.id, svid])),
  }
}

function workloadAttestors(config: AgentConfig, ports: AgentPorts): WorkloadAttestor[] {
  return config.workloadAttestors.map((plugin: AgentPluginConfig) => {
    const { type } = plugin
    if (type === 'unix') {
      const log = catalogLog(ports).with({ plugin_name: type, plugin_type: 'WorkloadAttestor' })
      const names = createAccountNames(ports.clock)
      const current = configurePlugin(plugin, { ...ports, log }, (data) => ({
        value: createUnixWorkloadAttestor(data, names),
        files: [],
      }))
      return { name: type, attest: (process) => current().attest(process) }
    }
    const text = `workload attestor ${JSON.stringify(type)} is not supported yet`
    throw new SignetError('invalid_argument', 'unknown_workload_attestor', text)
  })
}

function nodeAttestor(config: AgentConfig, ports: AgentPorts): NodeAttestorAgent {
  const fetchSvid = (address: string) => fetchWorkloadApiSvid(address, ports.clock)
  return createNodeAttestor(config, { ...ports, log: catalogLog(ports), fetchSvid })
}

function catalogLog(ports: AgentPorts): Log {
  return ports.log.with({ subsystem_name: 'catalog' })
}

function bundleMissing(): SignetError {
  const text = 'SVID loaded but no bundle in cache'
  return new SignetError('failed_precondition', 'bundle_missing', text)
}

function bundleOf(trustDomain: string, roots: readonly Uint8Array[]): Bundle {
  return {
    trustDomain,
    x509Authorities: roots.map((certificate) => ({ certificate, tainted: false })),
    jwtAuthorities: [],
    refreshHintSeconds: 0,
    sequenceNumber: 0n,
  }
}
