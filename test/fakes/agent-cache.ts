/** Caches of the agent with plain values: SVIDs that are bytes, bundles with one authority. */
import type { AuthorizedEntry } from '../../src/agent/entry.ts'
import type { CachedX509Svid } from '../../src/agent/svid-cache/identity.ts'
import {
  X509SvidCache,
  type X509SvidCacheOptions,
} from '../../src/agent/svid-cache/x509-svid-cache.ts'
import { utf8 } from '../../src/base/bytes.ts'
import type { Bundle } from '../../src/spiffe/bundle.ts'
import { parseSelector, type Selector } from '../../src/spiffe/selector.ts'

export const CACHE_NOW = 1_800_000_000

export function makeBundle(
  trustDomain: string,
  authority = `root of ${trustDomain}`,
  sequenceNumber = 1n,
): Bundle {
  return {
    trustDomain,
    x509Authorities: [{ certificate: utf8(authority), tainted: false }],
    jwtAuthorities: [],
    refreshHintSeconds: 0,
    sequenceNumber,
  }
}

export function makeSvid(fields: Partial<CachedX509Svid> = {}): CachedX509Svid {
  return {
    chain: [utf8('leaf'), utf8('intermediate')],
    privateKey: utf8('key'),
    notBefore: CACHE_NOW - 10,
    notAfter: CACHE_NOW + 3600,
    renewAt: CACHE_NOW + 1800,
    revisionNumber: 0n,
    ...fields,
  }
}

export interface CacheRig {
  readonly cache: X509SvidCache
  readonly missing: { count: number }
  now: number
}

/** `flush` is the test's to call. */
export function makeCache(options: Partial<X509SvidCacheOptions> = {}): CacheRig {
  const missing = { count: 0 }
  const rig: CacheRig = {
    missing,
    now: CACHE_NOW,
    cache: new X509SvidCache({
      bundle: makeBundle('example.org'),
      sizeMax: 1000,
      now: () => rig.now,
      onMissing: () => void missing.count++,
      scheduleFlush: () => {},
      ...options,
    }),
  }
  return rig
}

export function selectors(...texts: string[]): Selector[] {
  return texts.map(parseSelector)
}

export function put(cache: X509SvidCache, ...entries: AuthorizedEntry[]): void {
  cache.applyEntries({ upserts: entries, removals: [] })
}

/** SVIDs by the ID of their entry, asked for as the entries are now. */
export function store(cache: X509SvidCache, svids: Readonly<Record<string, CachedX509Svid>>): void {
  const entries = cache.entries().filter(({ id }) => svids[id] !== undefined)
  cache.storeSvids(entries.map((entry) => ({ entry, svid: svids[entry.id]! })))
}

export function sign(cache: X509SvidCache, ...ids: string[]): void {
  const signed = cache.entries().filter(({ id }) => ids.includes(id))
  cache.storeSvids(
    signed.map((entry) => {
      const { id, revisionNumber } = entry
      return { entry, svid: makeSvid({ chain: [utf8(`leaf of ${id}`)], revisionNumber }) }
    }),
  )
}
