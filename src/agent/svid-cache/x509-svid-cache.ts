/**
 * Entries, their X509-SVIDs and who listens to them (api.md §11.7). Entries are matched to
 * workloads through indexes; listeners with the same selectors share one group and so one view,
 * and the view object is what answers are encoded from once.
 *
 * Owned by the event loop: every method runs to its end, listeners are called from `flush` only,
 * which runs once per turn however much changed (newest state wins).
 */
import type { EpochSeconds } from '../../base/ports.ts'
import type { Bundle } from '../../spiffe/bundle.ts'
import { type Selector, selectorKey } from '../../spiffe/selector.ts'
import { type AuthorizedEntry, byEntryId, type EntryDelta } from '../entry.ts'
import {
  type CachedX509Svid,
  type Identity,
  identityAfter,
  isAlive,
  madeDue,
  replacedSoon,
  sameSpiffeId,
} from './identity.ts'
import { SubsetIndex, SupersetIndex } from './selector-index.ts'
import { type TrustBundle, TrustBundles } from './trust-bundles.ts'

/** What one set of selectors is entitled to. Immutable; a new object whenever something differs. */
export interface WorkloadView {
  /** By entry ID; the first is the default. Hints are not yet deduplicated. */
  readonly identities: readonly Identity[]
  readonly bundle: TrustBundle
  /** Of the trust domains that the identities federate with and whose bundle is known. */
  readonly federatedBundles: readonly TrustBundle[]
}

export interface DueEntry {
  readonly entry: AuthorizedEntry
  /** Of the SVID to be replaced; undefined when there is none. */
  readonly expiresAt: EpochSeconds | undefined
  readonly reason: 'missing' | 'outdated' | 'expiring' | 'prefetch'
}

export interface X509SvidCacheOptions {
  readonly bundle: Bundle
  /** Soft: SVIDs with a listener are never evicted. */
  readonly sizeMax: number
  readonly now: () => EpochSeconds
  /** Called when a listener waits for an SVID that is not there. */
  readonly onMissing: () => void
  /** Arranges for `flush` to run soon; tests call `flush` themselves. */
  readonly scheduleFlush: (flush: () => void) => void
}

interface Entry {
  /** As it is now. */
  entry: AuthorizedEntry
  /** Of the same SPIFFE ID as `entry`. */
  identity: Identity | undefined
  readonly groups: Set<Group>
  /** Order of the last subscription, 0 for never: least recently *subscribed* leave first. */
  subscribedAt: number
}

interface Group {
  readonly key: string
  readonly selectors: ReadonlySet<string>
  readonly entries: Set<Entry>
  readonly listeners: Set<Listener>
  view: WorkloadView | undefined
}

interface Listener {
  readonly onView: (view: WorkloadView) => void
  delivered: WorkloadView | undefined
}

export class X509SvidCache {
  readonly bundles: TrustBundles
  readonly #options: X509SvidCacheOptions
  readonly #entries = new Map<string, Entry>()
  readonly #byEntrySelectors = new SubsetIndex<Entry>()
  readonly #groups = new Map<string, Group>()
  readonly #byGroupSelectors = new SupersetIndex<Group>()
  readonly #dirty = new Set<Group>()
  #flushScheduled = false
  #svidCount = 0
  #subscriptions = 0

  constructor(options: X509SvidCacheOptions) {
    this.#options = options
    this.bundles = new TrustBundles(options.bundle)
  }

  get svidCount(): number {
    return this.#svidCount
  }

  get entryCount(): number {
    return this.#entries.size
  }

  entries(): AuthorizedEntry[] {
    return [...this.#entries.values()].map((record) => record.entry).sort(byEntryId)
  }

  /** All that is held, the least recently used first. */
  identities(): Identity[] {
    return [...this.#entries.values()].sort(byUse).flatMap(({ identity }) => identity ?? [])
  }

  /** SVIDs that should have been renewed by now. */
  get dueCount(): number {
    const now = this.#options.now()
    let count = 0
    for (const { identity } of this.#entries.values()) {
      if (identity !== undefined && now >= identity.svid.renewAt) count++
    }
    return count
  }

  applyEntries(delta: EntryDelta): void {
    for (const id of delta.removals) this.#removeEntry(id)
    for (const entry of delta.upserts) this.#putEntry(entry)
    this.#evict()
    this.#signalMissing()
  }

  /** `retain`, when given, is the complete list of federated bundles to keep. */
  applyBundles(bundles: readonly Bundle[], retain?: ReadonlySet<string>): ReadonlySet<string> {
    const changed = this.bundles.put(bundles)
    if (retain !== undefined) for (const td of this.bundles.retain(retain)) changed.add(td)
    if (changed.size === 0) return changed
    const own = changed.has(this.bundles.own.trustDomain)
    for (const group of this.#groups.values()) {
      if (own || federatesWithAny(group, changed)) this.#markDirty(group)
    }
    return changed
  }

  storeSvids(identities: Iterable<Identity>): void {
    for (const identity of identities) {
      const record = this.#entries.get(identity.entry.id)
      // The entry went away, or names another workload, since its SVID was asked for.
      if (record === undefined || !sameSpiffeId(record.entry, identity.entry)) continue
      this.#setIdentity(record, identity)
      for (const group of record.groups) this.#markDirty(group)
    }
    this.#evict()
  }

  /**
   * Takes up what `identities` gave before a restart, in that order of use: the most recently used
   * are kept, up to the size limit.
   */
  restoreSvids(identities: readonly Identity[]): void {
    for (const { entry } of identities) {
      const record = this.#entries.get(entry.id)
      if (record !== undefined) record.subscribedAt = ++this.#subscriptions
    }
    this.storeSvids(identities)
  }

  /** Makes SVIDs due at once; they are served until their successors are there. */
  expireSvids(chains: ReadonlySet<CachedX509Svid['chain']>): number {
    let count = 0
    for (const record of this.#entries.values()) {
      if (record.identity === undefined || !chains.has(record.identity.svid.chain)) continue
      record.identity = madeDue(record.identity)
      count++
    }
    return count
  }

  matchingEntries(selectors: readonly Selector[]): AuthorizedEntry[] {
    return this.#byEntrySelectors
      .within(keysOf(selectors))
      .map((record) => record.entry)
      .sort(byEntryId)
  }

  /** What these selectors get right now, without waiting for anything. */
  viewOf(selectors: readonly Selector[]): WorkloadView {
    return this.#compose(this.#byEntrySelectors.within(keysOf(selectors)))
  }

  /**
   * Calls `onView` with the first complete view and then with every different one. The first waits
   * until every matching entry has an SVID; with no matching entry it comes at once, empty.
   */
  subscribe(selectors: readonly Selector[], onView: (view: WorkloadView) => void): Disposable {
    const group = this.#groupOf(keysOf(selectors))
    const listener: Listener = { onView, delivered: undefined }
    group.listeners.add(listener)
    this.#subscriptions++
    for (const record of group.entries) record.subscribedAt = this.#subscriptions
    this.#markDirty(group)
    if (this.#isMissing(group)) this.#options.onMissing()
    return {
      [Symbol.dispose]: () => {
        group.listeners.delete(listener)
        if (group.listeners.size === 0) this.#dropGroup(group)
      },
    }
  }

  /**
   * What should be signed now, most urgent first: what listeners wait for, then outdated and
   * expiring SVIDs by their expiry, then entries to prefetch up to the size limit.
   */
  due(limit: number): DueEntry[] {
    const now = this.#options.now()
    const missing: DueEntry[] = []
    const stale: DueEntry[] = []
    const prefetch: DueEntry[] = []
    for (const { entry, identity, groups } of this.#entries.values()) {
      const svid = identity?.svid
      if (svid === undefined || svid.notAfter <= now) {
        if (groups.size > 0) missing.push({ entry, expiresAt: svid?.notAfter, reason: 'missing' })
        else if (svid !== undefined || !entry.disableX509SvidPrefetch) {
          prefetch.push({ entry, expiresAt: svid?.notAfter, reason: 'prefetch' })
        }
      } else if (svid.revisionNumber !== entry.revisionNumber) {
        stale.push({ entry, expiresAt: svid.notAfter, reason: 'outdated' })
      } else if (now >= svid.renewAt) {
        stale.push({ entry, expiresAt: svid.notAfter, reason: 'expiring' })
      }
    }
    stale.sort((a, b) => (a.expiresAt ?? 0) - (b.expiresAt ?? 0))
    const room = Math.max(0, this.#options.sizeMax - this.#svidCount - missing.length)
    return [...missing, ...stale, ...prefetch.slice(0, room)].slice(0, limit)
  }

  /** Brings every listener of a changed group up to date. */
  flush(): void {
    this.#flushScheduled = false
    const groups = [...this.#dirty]
    this.#dirty.clear()
    for (const group of groups) this.#deliver(group)
  }

  #deliver(group: Group): void {
    const view = this.#compose(group.entries, group.view?.identities)
    if (group.view === undefined || !sameView(group.view, view)) group.view = view
    const missing = this.#isMissing(group)
    // Entries replaced by others whose SVIDs are on their way: an empty answer now would end the
    // stream and make the workload lose an identity that it is entitled to.
    if (missing && view.identities.length === 0) return
    for (const listener of [...group.listeners]) {
      if (listener.delivered === undefined && missing) continue
      if (listener.delivered === group.view) continue
      listener.delivered = group.view
      listener.onView(group.view)
    }
  }

  /** `shown` is what listeners have: nothing of it goes for just as long as signing takes. */
  #compose(records: Iterable<Entry>, shown: readonly Identity[] = []): WorkloadView {
    const now = this.#options.now()
    const identities: Identity[] = []
    const waiting: AuthorizedEntry[] = []
    const trustDomains = new Set<string>()
    for (const { entry, identity } of records) {
      if (isAlive(identity, now)) {
        identities.push(identity)
        for (const trustDomain of entry.federatesWith) trustDomains.add(trustDomain)
      } else waiting.push(entry)
    }
    for (const identity of replacedSoon(shown, identities, waiting)) {
      if (!isAlive(identity, now)) continue
      identities.push(identity)
      for (const trustDomain of identity.entry.federatesWith) trustDomains.add(trustDomain)
    }
    identities.sort((a, b) => byEntryId(a.entry, b.entry))
    const federatedBundles = [...trustDomains]
      .sort()
      .flatMap((trustDomain) => this.bundles.get(trustDomain) ?? [])
    return { identities, bundle: this.bundles.own, federatedBundles }
  }

  #isMissing(group: Group): boolean {
    const now = this.#options.now()
    for (const { identity } of group.entries) if (!isAlive(identity, now)) return true
    return false
  }

  #signalMissing(): void {
    const groups = [...this.#groups.values()]
    if (groups.some((group) => this.#isMissing(group))) this.#options.onMissing()
  }

  #putEntry(entry: AuthorizedEntry): void {
    const known = this.#entries.get(entry.id)
    if (known === undefined) {
      const record: Entry = { entry, identity: undefined, groups: new Set(), subscribedAt: 0 }
      this.#entries.set(entry.id, record)
      this.#link(record)
      return
    }
    const before = known.entry
    known.entry = entry
    if (known.identity !== undefined) {
      this.#setIdentity(known, identityAfter(known.identity, before, entry))
    }
    if (sameSelectors(before, entry)) {
      for (const group of known.groups) this.#markDirty(group)
    } else {
      this.#unlink(known)
      this.#link(known)
    }
  }

  #removeEntry(id: string): void {
    const record = this.#entries.get(id)
    if (record === undefined) return
    this.#setIdentity(record, undefined)
    this.#unlink(record)
    this.#entries.delete(id)
  }

  #link(record: Entry): void {
    const keys = keysOf(record.entry.selectors)
    this.#byEntrySelectors.set(record, keys)
    for (const group of this.#byGroupSelectors.containing(keys)) {
      group.entries.add(record)
      record.groups.add(group)
      this.#markDirty(group)
    }
  }

  #unlink(record: Entry): void {
    this.#byEntrySelectors.delete(record)
    for (const group of record.groups) {
      group.entries.delete(record)
      this.#markDirty(group)
    }
    record.groups.clear()
  }

  #groupOf(selectors: ReadonlySet<string>): Group {
    const key = [...selectors].sort().join('\0')
    const known = this.#groups.get(key)
    if (known !== undefined) return known
    const entries = new Set(this.#byEntrySelectors.within(selectors))
    const group: Group = { key, selectors, entries, listeners: new Set(), view: undefined }
    for (const record of entries) record.groups.add(group)
    this.#groups.set(key, group)
    this.#byGroupSelectors.set(group, selectors)
    return group
  }

  #dropGroup(group: Group): void {
    this.#groups.delete(group.key)
    this.#byGroupSelectors.delete(group)
    this.#dirty.delete(group)
    for (const record of group.entries) record.groups.delete(group)
  }

  #setIdentity(record: Entry, identity: Identity | undefined): void {
    if (record.identity !== undefined) this.#svidCount--
    if (identity !== undefined) this.#svidCount++
    record.identity = identity
  }

  #evict(): void {
    let excess = this.#svidCount - this.#options.sizeMax
    if (excess <= 0) return
    const idle = [...this.#entries.values()]
      .filter((record) => record.identity !== undefined && record.groups.size === 0)
      .sort(byUse)
    for (const record of idle) {
      if (excess-- <= 0) break
      this.#setIdentity(record, undefined)
    }
  }

  #markDirty(group: Group): void {
    this.#dirty.add(group)
    if (this.#flushScheduled) return
    this.#flushScheduled = true
    this.#options.scheduleFlush(() => this.flush())
  }
}

/** What listeners have now comes last, then by the last subscription; ties by entry ID. */
function byUse(a: Entry, b: Entry): number {
  return (
    Number(a.groups.size > 0) - Number(b.groups.size > 0) ||
    a.subscribedAt - b.subscribedAt ||
    byEntryId(a.entry, b.entry)
  )
}

function keysOf(selectors: readonly Selector[]): ReadonlySet<string> {
  return new Set(selectors.map(selectorKey))
}

function sameSelectors(a: AuthorizedEntry, b: AuthorizedEntry): boolean {
  if (a.selectors.length !== b.selectors.length) return false
  const keys = keysOf(a.selectors)
  return b.selectors.every((selector) => keys.has(selectorKey(selector)))
}

function federatesWithAny(group: Group, trustDomains: ReadonlySet<string>): boolean {
  for (const { entry } of group.entries) {
    if (entry.federatesWith.some((trustDomain) => trustDomains.has(trustDomain))) return true
  }
  return false
}

/** Bundles and SVIDs are replaced, never changed, so identity of objects decides. */
function sameView(a: WorkloadView, b: WorkloadView): boolean {
  return (
    a.bundle === b.bundle &&
    a.identities.length === b.identities.length &&
    a.federatedBundles.length === b.federatedBundles.length &&
    a.federatedBundles.every((bundle, i) => bundle === b.federatedBundles[i]) &&
    a.identities.every((identity, i) => {
      const other = b.identities[i]!
      return identity.svid.chain === other.svid.chain && sameAnswer(identity.entry, other.entry)
    })
  )
}

/** The parts of an entry that an answer shows. */
function sameAnswer(a: AuthorizedEntry, b: AuthorizedEntry): boolean {
  return (
    a === b ||
    (a.id === b.id && sameSpiffeId(a, b) && a.hint === b.hint && a.createdAt === b.createdAt)
  )
}
