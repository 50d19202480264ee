/**
 * The server's state: the database (embedded or configured), the authorities on it, the caches and
 * the feed that keeps them. Opened in order, closed in reverse.
 */
import { toSignetError } from '../base/error.ts'
import { countCall } from '../base/metrics.ts'
import type { Clock, Log, Metrics, Random } from '../base/ports.ts'
import { codeNameOf } from '../wire/status.ts'
import { type AgentCache, createAgentCache } from './agent-cache.ts'
import { type AuthorityStack, createAuthorityStack } from './authority-stack.ts'
import { type ChangeConsumer, type ChangeFeed, createChangeFeed } from './change-feed.ts'
import type { ServerConfig } from './config/types.ts'
import { type Datastore, openDatastore } from './datastore/datastore.ts'
import { startEmbeddedPostgres } from './datastore/embedded.ts'
import { createEntryCache, type EntryCache } from './entry-cache/entry-cache.ts'
import { meterStores } from './metered-stores.ts'
import type { Change } from './ports.ts'
import { type BundleCache, createBundleCache } from './sync/bundle-cache.ts'

export interface StatePorts {
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  readonly metrics: Metrics
}

export interface ServerState extends AuthorityStack {
  readonly datastore: Datastore
  readonly entries: EntryCache
  readonly bundles: BundleCache
  readonly agents: AgentCache
  readonly feed: ChangeFeed
  /** Called after the authorities were read again. */
  onAuthorities(listener: () => void): void
}

/** With authorities made or found, and every cache loaded. */
export async function openState(config: ServerConfig, ports: StatePorts): Promise<ServerState> {
  await using opened = new AsyncDisposableStack()
  const datastore = meterStores(opened.use(await openDatabase(config, ports, opened)), ports)
  const stack = opened.use(await createAuthorityStack(config, ports, datastore))
  await stack.rotator.step()
  const { trustDomain } = config
  const entries = createEntryCache({
    trustDomain,
    clock: ports.clock,
    source: { ...datastore.entries, ...datastore.agents },
  })
  const bundles = createBundleCache({ trustDomain, source: datastore.bundles })
  const listeners: (() => void)[] = []
  const feed = createChangeFeed({
    ...ports,
    log: ports.log.with({ subsystem_name: 'change_feed' }),
    changeLog: datastore.changeLog,
    consumers: [
      // Before the bundles: what a door finds published it must also find alive.
      authorityConsumer(stack, ports.log, () => {
        for (const listener of listeners) listener()
      }),
      bundleConsumer(bundles),
      entryConsumer(entries, ports),
    ],
  })
  await feed.start()
  const agents = createAgentCache({
    clock: ports.clock,
    rows: entries,
    store: datastore.agents,
    feed,
    maxStalenessMs: config.maxAttestedNodeInfoStalenessMs,
  })
  const closing = opened.move()
  return {
    ...stack,
    datastore,
    entries,
    bundles,
    agents,
    feed,
    onAuthorities: (listener) => void listeners.push(listener),
    [Symbol.asyncDispose]: () => closing.disposeAsync(),
  }
}

/** The embedded server, when there is one, is disposed of after the datastore on it. */
async function openDatabase(
  config: ServerConfig,
  ports: StatePorts,
  opened: AsyncDisposableStack,
): Promise<Datastore> {
  const log = ports.log.with({ subsystem_name: 'sql' })
  const common = {
    ...ports,
    log,
    trustDomain: config.trustDomain.name,
    fresh: config.fresh,
  }
  if (config.dataStore.kind === 'postgres') {
    const { connectionString, maxOpenConns } = config.dataStore
    return openDatastore({ ...common, connectionString, maxOpenConns })
  }
  const embedded = opened.use(
    await startEmbeddedPostgres({ ...ports, log, dataDir: config.dataDir }),
  )
  return openDatastore({ ...common, poolConfig: embedded.poolConfig })
}

function bundleConsumer(bundles: BundleCache): ChangeConsumer {
  return {
    name: 'bundles',
    load: () => bundles.load(),
    handleChanges: (changes) => bundles.handleChanges(changes),
  }
}

/** SPIRE's gauges where the two caches have the same parts. */
function entryConsumer(
  entries: EntryCache,
  { clock, metrics }: Pick<StatePorts, 'clock' | 'metrics'>,
): ChangeConsumer {
  entries.onChange(() => {
    const counts = entries.counts()
    metrics.gauge('node.agents_by_id_cache.count', counts.agents)
    metrics.gauge('entry.nodealiases_by_entryid_cache.count', counts.aliases)
    metrics.gauge('entry.entries_by_entryid_cache.count', counts.entries)
  })
  return {
    name: 'entries',
    async load(position) {
      const done = countCall(metrics, clock, 'entry.cache.reload')
      try {
        await entries.load(position)
        done('OK')
      } catch (thrown) {
        done(codeNameOf(toSignetError(thrown).kind))
        throw thrown
      }
    },
    handleChanges: entries.handleChanges,
  }
}

function authorityConsumer(
  { authorities }: AuthorityStack,
  log: Log,
  onReloaded: () => void,
): ChangeConsumer {
  const reload = async () => {
    try {
      await authorities.reload()
    } catch (error) {
      // A key that can't be opened must not hold up entries, agents and bundles; the rotator's
      // next tick and the health check report it.
      log.error('Authorities could not be read in full', { error })
    }
    onReloaded()
  }
  return {
    name: 'authorities',
    load: reload,
    handleChanges: async (changes) => {
      if (changes.some(isAuthority)) await reload()
    },
  }
}

function isAuthority({ kind }: Change): boolean {
  return kind === 'authority' || kind === 'cluster'
}
