/**
 * The push streams of one server: hears what changed in the entry and bundle caches, marks whom it
 * concerns, and ends streams whose agent may no longer be served. Owns the order of changes
 * (`sequence`) that cursors name.
 */
import { SignetError } from '../../base/error.ts'
import { SYNC_CHECK_MS, SYNC_CONFIRM_MS_MAX, SYNC_WAKES_PER_TURN } from '../../base/limits.ts'
import type { Clock, Metrics, Random } from '../../base/ports.ts'
import type { AttestedAgent } from '../../spiffe/attested-agent.ts'
import { SpiffeId } from '../../spiffe/spiffe-id.ts'
import type { TrustDomain } from '../../spiffe/trust-domain.ts'
import type { Hello } from '../../wire/gen/signet/sync/v1/sync.ts'
import type { EntryCache, EntryCacheEvent } from '../entry-cache/entry-cache.ts'
import type { AgentStore } from '../ports.ts'
import { AckBook } from './ack-book.ts'
import type { BundleCache } from './bundle-cache.ts'
import { CursorCodec } from './cursor.ts'
import type { SessionSources } from './push-session.ts'
import type { Subscriber } from './subscriber.ts'
import { TouchHistory } from './touch-history.ts'

export interface SyncDeps {
  readonly clock: Clock
  readonly random: Random
  readonly metrics: Metrics
  readonly trustDomain: TrustDomain
  readonly entries: EntryCache
  readonly bundles: BundleCache
  /** Asked only when the entry cache does not confirm an agent. */
  readonly store: Pick<AgentStore, 'getAgent'>
}

export class SyncHub implements Disposable {
  readonly cursors: CursorCodec
  readonly acks: AckBook
  readonly #deps: SyncDeps
  readonly #history = new TouchHistory()
  /** One stream per agent: the newest. */
  readonly #subscribers = new Map<string, Subscriber>()
  /** When each bundle changed last. */
  readonly #bundleChanges = new Map<string, number>()
  readonly #watches: Disposable[]
  /** To be woken, some each turn of the event loop. */
  readonly #waking = new Set<Subscriber>()
  #sequence = 0
  #isStopping = false

  constructor(deps: SyncDeps) {
    this.#deps = deps
    this.cursors = new CursorCodec(deps.random)
    this.acks = new AckBook(deps.clock)
    this.#watches = [
      deps.entries.onChange((event) => this.#onEntries(event)),
      deps.bundles.onChange((names) => this.#onBundles(names)),
      deps.clock.every(SYNC_CHECK_MS, () => {
        for (const subscriber of this.#subscribers.values()) subscriber.check()
      }),
    ]
  }

  sources(): SessionSources {
    return {
      entries: this.#deps.entries,
      cursors: this.cursors,
      bundle: (name) => this.#deps.bundles.get(name),
      ownTrustDomain: this.#deps.trustDomain.name,
      sequence: () => this.#sequence,
      missedSince: (agentId, sequence) => this.#history.since(agentId, sequence),
      bundleChangedSince: (name, sequence) => (this.#bundleChanges.get(name) ?? 0) > sequence,
    }
  }

  /** From here on the subscriber hears of changes. */
  add(subscriber: Subscriber, hello: Hello): void {
    if (this.#isStopping) throw stopping()
    const key = subscriber.agentId.toString()
    const older = this.#subscribers.get(key)
    older?.end(new SignetError('aborted', 'replaced', 'replaced by a newer stream'))
    this.#subscribers.set(key, subscriber)
    subscriber.session.resume(hello)
    this.acks.connected(key, hello)
    this.#countStreams()
  }

  remove(subscriber: Subscriber): void {
    const key = subscriber.agentId.toString()
    if (this.#subscribers.get(key) !== subscriber) return
    this.#subscribers.delete(key)
    this.#countStreams()
    if (this.#deps.entries.agent(subscriber.agentId) === undefined) this.acks.forget(key)
    else this.acks.disconnected(key)
  }

  /**
   * Ends the stream unless its agent may be served. The cache may confirm, never deny: it may lag
   * behind an attestation at another server, and an agent that is told it is not attested gives up
   * its identity. A store that does not answer in time ends the stream as well, as unavailable: a
   * ban must bite within a second.
   */
  async confirm(subscriber: Subscriber): Promise<void> {
    const cached = this.#deps.entries.agent(subscriber.agentId)
    if (subscriber.denialOf(cached) === undefined) return
    try {
      const denial = subscriber.denialOf(await this.#readAgent(subscriber))
      if (denial !== undefined) subscriber.deny(denial)
    } catch (cause) {
      const text = 'agent could not be confirmed'
      subscriber.end(new SignetError('unavailable', 'agent_unconfirmed', text, { cause }))
    }
  }

  [Symbol.dispose](): void {
    this.#isStopping = true
    for (const watch of this.#watches) watch[Symbol.dispose]()
    for (const subscriber of this.#subscribers.values()) subscriber.end(stopping())
  }

  async #readAgent(subscriber: Subscriber): Promise<AttestedAgent | undefined> {
    const answered = new AbortController()
    const late = this.#deps.clock.sleep(SYNC_CONFIRM_MS_MAX, answered.signal).then(() => {
      throw new SignetError('unavailable', 'store_slow', 'agent could not be read in time')
    })
    late.catch(() => {})
    try {
      return await Promise.race([this.#deps.store.getAgent(subscriber.agentId), late])
    } finally {
      answered.abort()
    }
  }

  #onEntries(event: EntryCacheEvent): void {
    if (event.reloaded) {
      this.#onReload()
      return
    }
    if (event.touched.length > 0) {
      this.#sequence += 1
      this.#history.record(this.#sequence, event.touched)
    }
    for (const agentId of event.agentIds) this.#onAgent(agentId)
    for (const { agentIds, entryIds } of event.touched) {
      for (const agentId of agentIds) {
        const subscriber = this.#subscribers.get(agentId)
        if (subscriber === undefined) continue
        subscriber.session.markEntries(entryIds)
        this.#wakeSoon(subscriber)
      }
    }
  }

  /** What agents were sent before may be of a database that is no more. */
  #onReload(): void {
    this.cursors.startRun()
    this.#history.clear()
    for (const subscriber of this.#subscribers.values()) {
      subscriber.session.markAll()
      void this.confirm(subscriber)
      this.#wakeSoon(subscriber)
    }
  }

  #onAgent(agentId: string): void {
    const subscriber = this.#subscribers.get(agentId)
    if (subscriber !== undefined) void this.confirm(subscriber)
    else if (this.acks.get(agentId) && !this.#isKnown(agentId)) this.acks.forget(agentId)
  }

  #isKnown(agentId: string): boolean {
    return this.#deps.entries.agent(SpiffeId.parse(agentId)) !== undefined
  }

  #onBundles(names: readonly string[]): void {
    this.#sequence += 1
    for (const name of names) this.#bundleChanges.set(name, this.#sequence)
    for (const subscriber of this.#subscribers.values()) {
      subscriber.session.markBundles()
      this.#wakeSoon(subscriber)
    }
  }

  /**
   * A change that concerns ten thousand agents must not keep calls waiting until all have been
   * written to; what else happens in between is pushed with it.
   */
  #wakeSoon(subscriber: Subscriber): void {
    if (this.#waking.size === 0) setImmediate(() => this.#wakeSome())
    this.#waking.add(subscriber)
  }

  #wakeSome(): void {
    let count = 0
    for (const subscriber of this.#waking) {
      this.#waking.delete(subscriber)
      subscriber.wake()
      if (++count === SYNC_WAKES_PER_TURN) break
    }
    if (this.#waking.size > 0) setImmediate(() => this.#wakeSome())
  }

  #countStreams(): void {
    this.#deps.metrics.gauge('sync.streams', this.#subscribers.size)
  }
}

function stopping(): SignetError {
  return new SignetError('unavailable', 'stopping', 'server is shutting down')
}
