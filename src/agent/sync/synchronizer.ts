/**
 * Keeps entries and bundles as the server has them (api.md §11.3): by the push stream where the
 * server offers it, which is found out by asking, else by polling. One state, applied in one order:
 * bundles, taint, entries.
 *
 * A denial that means something (§11.6) ends `run`; everything else is retried with backoff.
 */
import { SignetError } from '../../base/error.ts'
import { FEDERATED_BUNDLES_PARALLEL, SYNC_HEARTBEAT_MS } from '../../base/limits.ts'
import type { Clock, EpochSeconds, Log, Metrics, Random } from '../../base/ports.ts'
import type { Bundle } from '../../spiffe/bundle.ts'
import { isUnknownAuthority } from '../../wire/transport/channel.ts'
import { type Backoff, createBackoff } from '../backoff.ts'
import { countCall } from '../call-counter.ts'
import { type AuthorizedEntry, type EntryDelta, sameEntry } from '../entry.ts'
import type { TaintProcessor } from '../svid-cache/taint.ts'
import type { X509SvidCache } from '../svid-cache/x509-svid-cache.ts'
import { createPushAssembler, type PushChange, type PushStream } from './push.ts'
import { errorText, prefixedError, type ServerClient } from './server-client.ts'

const POLL_CEILING_INTERVALS = 48
const POLL_CEILING_MS = 8 * 60_000
/** Without an SVID the agent is of no use to anybody: it looks at least this often. */
const EMPTY_INTERVAL_MS = 5_000
/**
 * A server that restarts is back in seconds, and all its agents lost it at the same moment: each
 * comes back somewhere in half to one and a half times the wait, and never waits long, for what it
 * costs a server that is still away is one refused connection.
 */
const PUSH_RETRY_MS = 1_000
const PUSH_RETRY_CEILING_MS = 5_000
const PUSH_RETRY_JITTER = 0.5
/** Two heartbeats and a half: then the stream is taken for dead. */
const PUSH_SILENCE_MS = 2.5 * SYNC_HEARTBEAT_MS

export interface SynchronizerOptions {
  readonly client: Pick<
    ServerClient,
    | 'syncEntries'
    | 'getAuthorizedEntries'
    | 'getBundle'
    | 'getFederatedBundle'
    | 'subscribe'
    | 'release'
  >
  readonly cache: X509SvidCache
  readonly taint: TaintProcessor
  readonly intervalMs: number
  readonly useSyncAuthorizedEntries: boolean
  readonly agentVersion: string
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  readonly metrics: Metrics
  /** The own trust domain's X.509 authorities changed. */
  readonly onOwnBundle: (bundle: Bundle) => void
  /** State was applied: SVIDs may be due. */
  readonly onApplied: () => void
  /** The server was reached and believed: what failed while it was away may be tried again. */
  readonly onReached: () => void
  /** No known authority signed the server's certificate; rejects when that ends `run`. */
  readonly onUntrusted: (text: string, hasSynchronized: boolean) => Promise<void>
}

export interface Synchronizer {
  /** Entries taken from a restored cache, so that they are not asked for again. */
  adopt(entries: readonly AuthorizedEntry[]): void
  /** One complete state from the server; rejects with SignetError. */
  synchronize(): Promise<void>
  /** Until aborted; rejects with the denial that ends it. */
  run(signal: AbortSignal): Promise<void>
  /** Ends a push stream that was opened with a certificate now replaced. */
  reconnect(): void
  /** 0 before the first success. */
  readonly lastSuccess: EpochSeconds
}

export function createSynchronizer(options: SynchronizerOptions): Synchronizer {
  const state: SyncState = {
    known: new Map(),
    cursor: '',
    bundleSequence: 0n,
    pushOffered: undefined,
    lastSuccess: 0,
    stream: undefined,
    reconnecting: false,
    pollBackoff: pollBackoff(options),
  }
  return {
    adopt(entries) {
      for (const entry of entries) state.known.set(entry.id, entry)
    },
    synchronize: () => poll(options, state),
    reconnect() {
      if (state.stream === undefined) return
      state.reconnecting = true
      state.stream.cancel()
    },
    get lastSuccess() {
      return state.lastSuccess
    },
    async run(signal) {
      while (!signal.aborted) {
        if (state.pushOffered === false) await pollLoop(options, state, signal)
        else await pushLoop(options, state, signal)
      }
    },
  }
}

interface SyncState {
  readonly known: Map<string, AuthorizedEntry>
  cursor: string
  bundleSequence: bigint
  /** undefined: not yet found out. */
  pushOffered: boolean | undefined
  lastSuccess: EpochSeconds
  stream: PushStream | undefined
  /** The stream was ended by us, to open it again. */
  reconnecting: boolean
  readonly pollBackoff: Backoff
}

/** Does the server's refusal concern the agent itself rather than this one call? */
export function isAgentDenial(error: unknown): error is SignetError {
  return error instanceof SignetError && error.denial !== undefined
}

function pollBackoff({ random, intervalMs }: SynchronizerOptions): Backoff {
  const ceilingMs = Math.min(POLL_CEILING_INTERVALS * intervalMs, POLL_CEILING_MS)
  return createBackoff(random, intervalMs, ceilingMs)
}

/** Until a poll fails: what answers after that may be another server, so push is tried again. */
async function pollLoop(
  options: SynchronizerOptions,
  state: SyncState,
  signal: AbortSignal,
): Promise<void> {
  const { clock, log, cache } = options
  const wait = (ms: number) => clock.sleep(ms, signal).catch(() => {})
  // Having just learned that it must poll, the agent does so at once.
  for (let waitMs = 0; ; ) {
    if (waitMs > 0) await wait(waitMs)
    if (signal.aborted) return
    try {
      await poll(options, state)
      options.onReached()
      state.pollBackoff.reset()
      waitMs = state.pollBackoff.next()
      if (cache.svidCount === 0) waitMs = Math.min(waitMs, EMPTY_INTERVAL_MS)
    } catch (error) {
      log.error('Synchronize failed', { error: errorText(error) })
      if (isAgentDenial(error)) throw error
      await checkTrust(options, state, error)
      await wait(state.pollBackoff.next())
      state.pushOffered = undefined
      return
    }
  }
}

async function checkTrust(
  options: SynchronizerOptions,
  state: SyncState,
  error: unknown,
): Promise<void> {
  if (!isUnknownAuthority(error)) return
  await options.onUntrusted(errorText(error), state.lastSuccess > 0)
}

function poll(options: SynchronizerOptions, state: SyncState): Promise<void> {
  return countCall(options, 'manager.sync.fetch_entries_updates', async () => {
    const delta = await fetchEntries(options, state)
    const known = new Map(state.known)
    applyToMap(known, delta)
    const own = await options.client.getBundle()
    const wanted = new Set([...known.values()].flatMap((entry) => entry.federatesWith))
    const federated = await fetchFederatedBundles(options, [...wanted])
    await apply(options, state, delta, {
      bundles: [own, ...federated],
      keep: new Set(federated.map((bundle) => bundle.trustDomain)),
    })
  })
}

async function fetchEntries(options: SynchronizerOptions, state: SyncState): Promise<EntryDelta> {
  const { client, log } = options
  try {
    if (options.useSyncAuthorizedEntries) return await client.syncEntries(state.known)
    const upserts = await client.getAuthorizedEntries()
    const ids = new Set(upserts.map((entry) => entry.id))
    return { upserts, removals: [...state.known.keys()].filter((id) => !ids.has(id)) }
  } catch (error) {
    log.error('Failed to fetch authorized entries', { error: errorText(error) })
    throw prefixedError('failed to fetch authorized entries', error)
  }
}

async function fetchFederatedBundles(
  { client, log }: SynchronizerOptions,
  trustDomains: readonly string[],
): Promise<Bundle[]> {
  const bundles: Bundle[] = []
  const queue = [...trustDomains]
  const worker = async () => {
    for (let td = queue.pop(); td !== undefined; td = queue.pop()) {
      const bundle = await client.getFederatedBundle(td)
      if (bundle === undefined) {
        log.warn('Federated bundle not found', { trust_domain_id: `spiffe://${td}` })
      } else bundles.push(bundle)
    }
  }
  await Promise.all(Array.from({ length: FEDERATED_BUNDLES_PARALLEL }, worker))
  return bundles
}

async function pushLoop(
  options: SynchronizerOptions,
  state: SyncState,
  signal: AbortSignal,
): Promise<void> {
  const { clock, log } = options
  const backoff = createBackoff(
    options.random,
    PUSH_RETRY_MS,
    PUSH_RETRY_CEILING_MS,
    PUSH_RETRY_JITTER,
  )
  while (!signal.aborted) {
    try {
      await pushOnce(options, state, signal, () => {
        backoff.reset()
        options.onReached()
      })
    } catch (error) {
      if (signal.aborted) return
      if (state.reconnecting) {
        // Ended by ourselves, to be opened again at once.
      } else if (error instanceof SignetError && error.kind === 'unimplemented') {
        state.pushOffered = false
        log.debug('Server offers no push stream; polling')
        return
      } else if (isAgentDenial(error)) {
        log.error('Synchronize failed', { error: errorText(error) })
        throw error
      } else {
        log.warn('Push stream ended', { error: errorText(error) })
        options.client.release()
        await checkTrust(options, state, error)
      }
    }
    if (state.reconnecting) state.reconnecting = false
    else await clock.sleep(backoff.next(), signal).catch(() => {})
  }
}

/** One stream, from Hello to its end. */
async function pushOnce(
  options: SynchronizerOptions,
  state: SyncState,
  signal: AbortSignal,
  onReached: () => void,
): Promise<void> {
  const stream = options.client.subscribe()
  const cancel = () => stream.cancel()
  signal.addEventListener('abort', cancel, { once: true })
  state.stream = stream
  const watch = silenceWatch(options.clock, cancel)
  const assembler = createPushAssembler(options.log)
  try {
    const { cursor, bundleSequence } = state
    stream.send({ hello: { cursor, bundleSequence, agentVersion: options.agentVersion } })
    for (let first = true; ; first = false) {
      const message = await stream.receive()
      if (message === undefined) return
      watch.touch()
      state.pushOffered = true
      if (first) onReached()
      const change = assembler.accept(message)
      if (change !== undefined) await applyChange(options, state, change)
      if (message.cursor === '') continue
      if (change === undefined) reportSync(options, state, NO_DELTA)
      // A heartbeat with a cursor says that what is held is still all there is.
      state.cursor = message.cursor
      state.lastSuccess = options.clock.nowSeconds()
      stream.send({ ack: { cursor: state.cursor, bundleSequence: state.bundleSequence } })
    }
  } catch (error) {
    // Whatever did not fit: start from everything.
    if (error instanceof SignetError && error.code === 'push_protocol_broken') state.cursor = ''
    throw error
  } finally {
    watch[Symbol.dispose]()
    signal.removeEventListener('abort', cancel)
    state.stream = undefined
    stream.cancel()
  }
}

async function applyChange(
  options: SynchronizerOptions,
  state: SyncState,
  change: PushChange,
): Promise<void> {
  const ids = new Set(change.upserts.map((entry) => entry.id))
  const removals = change.snapshot
    ? [...state.known.keys()].filter((id) => !ids.has(id))
    : change.removals
  const known = change.snapshot ? [] : options.cache.bundles.all().map((b) => b.trustDomain)
  const removed = new Set(change.trustDomainsRemoved)
  const keep = [...known, ...change.bundles.map((bundle) => bundle.trustDomain)]
  await apply(
    options,
    state,
    { upserts: change.upserts.filter((entry) => isNews(state.known, entry)), removals },
    { bundles: change.bundles, keep: new Set(keep.filter((td) => !removed.has(td))) },
  )
  state.cursor = change.cursor
}

async function apply(
  options: SynchronizerOptions,
  state: SyncState,
  delta: EntryDelta,
  bundles: { readonly bundles: readonly Bundle[]; readonly keep: ReadonlySet<string> },
): Promise<void> {
  const { cache, log } = options
  const changed = cache.applyBundles(bundles.bundles, bundles.keep)
  const own = cache.bundles.own
  if (changed.has(own.trustDomain)) options.onOwnBundle(own)
  await options.taint.process(own)
  logDelta(log.with({ subsystem_name: 'cache_manager' }), state.known, delta)
  const sizes = sizesOf(state.known, delta)
  countDelta(options.metrics, sizes)
  applyToMap(state.known, delta)
  reportSync(options, state, sizes)
  // What belongs into an SVID store is never served over the Workload API.
  const stored = delta.upserts.filter((entry) => entry.storeSvid).map((entry) => entry.id)
  cache.applyEntries({
    upserts: delta.upserts.filter((entry) => !entry.storeSvid),
    removals: [...delta.removals, ...stored],
  })
  const received = bundles.bundles.find((bundle) => bundle.trustDomain === own.trustDomain)
  if (received !== undefined) state.bundleSequence = received.sequenceNumber
  state.lastSuccess = options.clock.nowSeconds()
  options.metrics.gauge('lru_cache_record_map_size', cache.entryCount)
  options.onApplied()
}

/** A snapshot repeats what is held already. */
function isNews(known: ReadonlyMap<string, AuthorizedEntry>, entry: AuthorizedEntry): boolean {
  const before = known.get(entry.id)
  return before === undefined || !sameEntry(before, entry)
}

function applyToMap(known: Map<string, AuthorizedEntry>, delta: EntryDelta): void {
  for (const id of delta.removals) known.delete(id)
  for (const entry of delta.upserts) known.set(entry.id, entry)
}

function logDelta(log: Log, known: ReadonlyMap<string, AuthorizedEntry>, delta: EntryDelta): void {
  for (const id of delta.removals) {
    log.debug('Entry removed', { entry: id, spiffe_id: known.get(id)?.spiffeId.toString() })
  }
  for (const entry of delta.upserts) {
    const text = known.has(entry.id) ? 'Entry updated' : 'Entry created'
    log.debug(text, { entry: entry.id, spiffe_id: entry.spiffeId.toString() })
  }
}

/** How many entries were not there, were out of date, are there no longer. */
interface DeltaSizes {
  readonly missing: number
  readonly stale: number
  readonly dropped: number
}

const NO_DELTA: DeltaSizes = { missing: 0, stale: 0, dropped: 0 }

function sizesOf(
  known: ReadonlyMap<string, AuthorizedEntry>,
  { upserts, removals }: EntryDelta,
): DeltaSizes {
  const stale = upserts.filter((entry) => known.has(entry.id)).length
  return { missing: upserts.length - stale, stale, dropped: removals.length }
}

function countDelta(metrics: Metrics, { missing, stale, dropped }: DeltaSizes): void {
  metrics.counter('lru_cache_entry_add', missing)
  metrics.counter('lru_cache_entry_update', stale)
  metrics.counter('lru_cache_entry_remove', dropped)
}

/** What the last word of the server came to: a poll of SPIRE's, a change or heartbeat of ours. */
function reportSync(options: SynchronizerOptions, state: SyncState, sizes: DeltaSizes): void {
  const { metrics, cache } = options
  metrics.gauge('sync_bundles_total', cache.bundles.all().length)
  metrics.gauge('sync_entries_total', state.known.size)
  metrics.gauge('sync_entries_missing', sizes.missing)
  metrics.gauge('sync_entries_stale', sizes.stale)
  metrics.gauge('sync_entries_dropped', sizes.dropped)
}

/** Calls `onSilent` when nothing was heard for longer than two heartbeats. */
function silenceWatch(clock: Clock, onSilent: () => void): Disposable & { touch(): void } {
  let heardMs = clock.monotonicMs()
  const timer = clock.every(SYNC_HEARTBEAT_MS / 2, () => {
    if (clock.monotonicMs() - heardMs > PUSH_SILENCE_MS) onSilent()
  })
  return {
    touch() {
      heardMs = clock.monotonicMs()
    },
    [Symbol.dispose]: () => timer[Symbol.dispose](),
  }
}
