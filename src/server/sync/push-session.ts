/**
 * What one agent's stream has sent and still owes: the state between a cursor and the next message.
 * Pure of I/O. Remembers what it owes as a set of ids, never as entries: a reader that is slow gets
 * the latest state when it is ready, not what happened meanwhile.
 */
import { SYNC_DIRTY_ENTRIES_MAX } from '../../base/limits.ts'
import type { Bundle } from '../../spiffe/bundle.ts'
import type { RegistrationEntry } from '../../spiffe/registration-entry.ts'
import type { SpiffeId } from '../../spiffe/spiffe-id.ts'
import type { Hello, SyncResponse } from '../../wire/gen/signet/sync/v1/sync.ts'
import type { EntryLookup } from '../lookups.ts'
import { type CursorCodec, type CursorPosition, trustDomainsDigest } from './cursor.ts'
import { deltaMessages, snapshotMessages } from './pages.ts'

export interface SessionSources {
  readonly entries: Pick<EntryLookup, 'authorizedEntries' | 'authorizedEntry'>
  readonly bundle: (trustDomain: string) => Bundle | undefined
  readonly ownTrustDomain: string
  readonly cursors: CursorCodec
  /** Number of the last change that `entries` and `bundle` hold. */
  readonly sequence: () => number
  /** What a returning agent has missed; undefined when that is no longer known. */
  readonly missedSince: (agentId: string, sequence: number) => ReadonlySet<string> | undefined
  /** Has this bundle changed since? */
  readonly bundleChangedSince: (trustDomain: string, sequence: number) => boolean
}

export class PushSession {
  readonly #sources: SessionSources
  readonly #agentId: SpiffeId
  #owesSnapshot = true
  #owesBundles = false
  /** A returning agent is told where it stands even when nothing changed. */
  #owesCursor = false
  #dirty = new Set<string>()
  /** Bundles the agent holds, by trust domain, as sent. */
  readonly #held = new Map<string, Bundle>()
  /** Of the trust domains in `#held`; undefined once they may have changed. */
  #heldDigest: Uint8Array | undefined
  /** Entries with federation, and how many of them use each foreign trust domain. */
  readonly #federating = new Map<string, readonly string[]>()
  readonly #uses = new Map<string, number>()

  constructor(sources: SessionSources, agentId: SpiffeId) {
    this.#sources = sources
    this.#agentId = agentId
  }

  /** Where the agent says it stands. Anything doubtful leaves the snapshot owed. */
  resume(hello: Pick<Hello, 'cursor' | 'bundleSequence'>): void {
    const { cursors, missedSince, entries } = this.#sources
    const agentId = this.#agentId.toString()
    const position = cursors.decode(agentId, hello.cursor)
    if (position === undefined || position.sequence > this.#sources.sequence()) return
    const missed = missedSince(agentId, position.sequence)
    if (missed === undefined) return
    this.#countFederation(entries.authorizedEntries(this.#agentId))
    if (!this.#assumeBundles(position, hello.bundleSequence)) {
      this.#forgetHeld()
      return
    }
    this.#owesSnapshot = false
    this.#owesCursor = true
    this.markEntries(missed)
  }

  markEntries(ids: Iterable<string>): void {
    if (this.#owesSnapshot) return
    for (const id of ids) this.#dirty.add(id)
    if (this.#dirty.size > SYNC_DIRTY_ENTRIES_MAX) this.markAll()
  }

  /** Only those the agent holds or needs are looked at when it comes to sending. */
  markBundles(): void {
    this.#owesBundles = true
  }

  markAll(): void {
    this.#owesSnapshot = true
    this.#dirty = new Set()
  }

  /** Something to send besides a heartbeat? */
  get owes(): boolean {
    return this.#owesSnapshot || this.#owesCursor || this.#owesBundles || this.#dirty.size > 0
  }

  /**
   * The messages that bring the agent to the present state, computed now and encoded as they are
   * taken. Changes from here on are owed anew. Empty when it turns out that nothing changed for it.
   */
  take(): Iterable<SyncResponse> {
    return this.#owesSnapshot ? this.#takeSnapshot() : this.#takeDelta()
  }

  heartbeat(): SyncResponse {
    // With a cursor only when nothing is owed: then the agent stands at the present change.
    return { cursor: this.owes ? '' : this.#cursor(), heartbeat: {} }
  }

  #takeSnapshot(): Iterable<SyncResponse> {
    this.#owesSnapshot = false
    this.#owesCursor = false
    this.#owesBundles = false
    this.#forgetHeld()
    const entries = this.#sources.entries.authorizedEntries(this.#agentId)
    this.#countFederation(entries)
    const { bundles } = this.#takeBundles()
    return snapshotMessages(entries, bundles, this.#cursor())
  }

  #takeDelta(): Iterable<SyncResponse> {
    const dirty = this.#dirty
    const isCursorOwed = this.#owesCursor
    this.#dirty = new Set()
    this.#owesCursor = false
    this.#owesBundles = false
    const upserted: RegistrationEntry[] = []
    const removed: string[] = []
    for (const id of dirty) {
      const entry = this.#sources.entries.authorizedEntry(this.#agentId, id)
      if (entry === undefined) removed.push(id)
      else upserted.push(entry)
      this.#setFederation(id, entry?.federatesWith ?? [])
    }
    const { bundles, domainsRemoved } = this.#takeBundles()
    const count = upserted.length + removed.length + bundles.length + domainsRemoved.length
    if (count === 0 && !isCursorOwed) return []
    return deltaMessages({ upserted, removed, bundles, domainsRemoved }, this.#cursor())
  }

  #cursor(): string {
    this.#heldDigest ??= trustDomainsDigest(this.#held.keys())
    return this.#sources.cursors.encode(this.#agentId.toString(), {
      sequence: this.#sources.sequence(),
      domains: this.#heldDigest,
    })
  }

  /** What differs between the bundles held and those needed; from here on they count as held. */
  #takeBundles(): { bundles: Bundle[]; domainsRemoved: string[] } {
    const needed = this.#neededBundles()
    const bundles = [...needed.values()].filter(
      (bundle) => this.#held.get(bundle.trustDomain) !== bundle,
    )
    const domainsRemoved = [...this.#held.keys()].filter((name) => !needed.has(name))
    for (const bundle of bundles) this.#held.set(bundle.trustDomain, bundle)
    for (const name of domainsRemoved) this.#held.delete(name)
    if (bundles.length + domainsRemoved.length > 0) this.#heldDigest = undefined
    return { bundles, domainsRemoved }
  }

  /** The own one and those that the agent's entries federate with, as far as they are stored. */
  #neededBundles(): Map<string, Bundle> {
    const needed = new Map<string, Bundle>()
    for (const name of [this.#sources.ownTrustDomain, ...this.#uses.keys()]) {
      const bundle = this.#sources.bundle(name)
      if (bundle !== undefined) needed.set(name, bundle)
    }
    return needed
  }

  /** False unless the agent holds just the trust domains it needs now. */
  #assumeBundles(position: CursorPosition, ownSequence: bigint): boolean {
    const needed = this.#neededBundles()
    const digest = trustDomainsDigest(needed.keys())
    if (Buffer.compare(digest, position.domains) !== 0) return false
    for (const [name, bundle] of needed) {
      const isStale =
        this.#sources.bundleChangedSince(name, position.sequence) ||
        (name === this.#sources.ownTrustDomain && bundle.sequenceNumber !== ownSequence)
      // Held in an unknown version: a placeholder that is never the stored object.
      this.#held.set(name, isStale ? { ...bundle } : bundle)
    }
    this.#owesBundles = true
    return true
  }

  #countFederation(entries: readonly RegistrationEntry[]): void {
    for (const entry of entries) {
      if (entry.federatesWith.length > 0) this.#setFederation(entry.id, entry.federatesWith)
    }
  }

  #setFederation(entryId: string, names: readonly string[]): void {
    for (const name of this.#federating.get(entryId) ?? []) {
      const uses = this.#uses.get(name)! - 1
      if (uses === 0) this.#uses.delete(name)
      else this.#uses.set(name, uses)
    }
    if (names.length === 0) this.#federating.delete(entryId)
    else this.#federating.set(entryId, names)
    for (const name of names) this.#uses.set(name, (this.#uses.get(name) ?? 0) + 1)
  }

  #forgetHeld(): void {
    this.#held.clear()
    this.#heldDigest = undefined
    this.#federating.clear()
    this.#uses.clear()
  }
}
