import { describe, expect, test } from 'vitest'
import type { WorkloadView } from '../../../src/agent/svid-cache/x509-svid-cache.ts'
import { utf8 } from '../../../src/base/bytes.ts'
import {
  CACHE_NOW,
  makeBundle,
  makeCache,
  makeSvid,
  put,
  selectors,
  sign,
  store,
} from '../../fakes/agent-cache.ts'
import { makeEntry } from '../../fakes/make-entry.ts'

const UID1 = selectors('unix:uid:1')

function ids(view: WorkloadView | undefined): string[] | undefined {
  return view?.identities.map(({ entry }) => entry.id)
}

function collect() {
  const views: WorkloadView[] = []
  return { views, onView: (view: WorkloadView) => void views.push(view) }
}

describe('a new subscriber', () => {
  test('without a matching entry is answered at once, with no identity', () => {
    const { cache } = makeCache()
    const { views, onView } = collect()
    cache.subscribe(UID1, onView)
    cache.flush()
    expect(views.map(ids)).toEqual([[]])
    expect(views[0]!.bundle.trustDomain).toBe('example.org')
  })

  test('waits until every matching entry has an SVID, and says so', () => {
    const { cache, missing } = makeCache()
    put(cache, makeEntry({ id: 'b' }), makeEntry({ id: 'a' }))
    const { views, onView } = collect()
    cache.subscribe(UID1, onView)
    cache.flush()
    expect(missing.count).toBe(1)
    sign(cache, 'a')
    cache.flush()
    expect(views).toEqual([])
    sign(cache, 'b')
    cache.flush()
    expect(views.map(ids)).toEqual([['a', 'b']])
  })

  test('without selectors gets nothing, however entries are made', () => {
    const { cache } = makeCache()
    put(cache, makeEntry({ id: 'a', selectors: [] }), makeEntry({ id: 'b' }))
    sign(cache, 'a', 'b')
    const { views, onView } = collect()
    cache.subscribe([], onView)
    cache.subscribe(UID1, onView)
    cache.flush()
    expect(views.map(ids)).toEqual([[], ['b']])
  })

  test('waits when the only SVID has expired', () => {
    const rig = makeCache()
    put(rig.cache, makeEntry({ id: 'a' }))
    sign(rig.cache, 'a')
    rig.now = CACHE_NOW + 3600
    const { views, onView } = collect()
    rig.cache.subscribe(UID1, onView)
    rig.cache.flush()
    expect(views).toEqual([])
    expect(rig.cache.due(10).map(({ reason }) => reason)).toEqual(['missing'])
  })
})

describe('a subscriber that has its view', () => {
  function subscribed() {
    const rig = makeCache()
    put(rig.cache, makeEntry({ id: 'a', federatesWith: ['other.org'] }))
    sign(rig.cache, 'a')
    const seen = collect()
    const subscription = rig.cache.subscribe(UID1, seen.onView)
    rig.cache.flush()
    expect(seen.views).toHaveLength(1)
    return { ...rig, ...seen, subscription }
  }

  test('hears of a renewed SVID once, however often it changed in between', () => {
    const { cache, views } = subscribed()
    for (const leaf of ['one', 'two', 'three']) {
      store(cache, { a: makeSvid({ chain: [utf8(leaf)] }) })
    }
    cache.flush()
    expect(views).toHaveLength(2)
    expect(views[1]!.identities[0]!.svid.chain).toEqual([utf8('three')])
  })

  test.each([
    ['an entry of others', () => makeEntry({ id: 'z', selectors: ['unix:uid:2'] })],
    ['the same entry again', () => makeEntry({ id: 'a', federatesWith: ['other.org'] })],
    [
      'an entry that asks for more than it has',
      () => makeEntry({ id: 'z', selectors: ['unix:uid:1', 'unix:gid:1'] }),
    ],
  ])('hears nothing of %s', (_what, entry) => {
    const { cache, views } = subscribed()
    put(cache, entry())
    cache.flush()
    expect(views).toHaveLength(1)
  })

  test('hears of a hint that changed once, with the SVID of the new revision', () => {
    const { cache, views } = subscribed()
    put(
      cache,
      makeEntry({ id: 'a', federatesWith: ['other.org'], hint: 'new', revisionNumber: 1n }),
    )
    cache.flush()
    expect(views).toHaveLength(1)
    expect(cache.viewOf(UID1).identities[0]!.entry.hint).toBe('')
    store(cache, { a: makeSvid({ chain: [utf8('next')], revisionNumber: 1n }) })
    cache.flush()
    expect(views).toHaveLength(2)
    expect(views[1]!.identities[0]!.entry.hint).toBe('new')
  })

  test('hears at once of a hint that no new SVID will come with', () => {
    const { cache, views } = subscribed()
    put(cache, makeEntry({ id: 'a', federatesWith: ['other.org'], hint: 'internal' }))
    cache.flush()
    expect(views[1]!.identities[0]!.entry.hint).toBe('internal')
  })

  test('loses its identity when the entry goes', () => {
    const { cache, views } = subscribed()
    cache.applyEntries({ upserts: [], removals: ['a'] })
    cache.flush()
    expect(views.map(ids)).toEqual([['a'], []])
  })

  test('keeps what it has while the replacement of its only entry is being signed', () => {
    const { cache, views } = subscribed()
    cache.applyEntries({ upserts: [makeEntry({ id: 'b' })], removals: ['a'] })
    cache.flush()
    expect(views.map(ids)).toEqual([['a']])
    sign(cache, 'b')
    cache.flush()
    expect(views.map(ids)).toEqual([['a'], ['b']])
  })

  test('never gets the SVID of an entry deleted and made anew under one ID', () => {
    const { cache, views } = subscribed()
    put(cache, makeEntry({ id: 'a', spiffe: '/other', createdAt: CACHE_NOW + 5 }))
    cache.flush()
    expect(cache.viewOf(UID1).identities).toEqual([])
    expect(views).toHaveLength(1)
    expect(cache.due(10).map(({ entry }) => entry.id)).toEqual(['a'])
  })

  test('hears of its own bundle, of federated ones it uses, and of no other', () => {
    const { cache, views } = subscribed()
    cache.applyBundles([makeBundle('third.org')])
    cache.flush()
    expect(views).toHaveLength(1)
    cache.applyBundles([makeBundle('other.org')])
    cache.flush()
    expect(views[1]!.federatedBundles.map((bundle) => bundle.trustDomain)).toEqual(['other.org'])
    cache.applyBundles([makeBundle('example.org', 'new root')])
    cache.flush()
    expect(views[2]!.bundle.x509).toEqual(utf8('new root'))
    cache.applyBundles([], new Set())
    cache.flush()
    expect(views[3]!.federatedBundles).toEqual([])
  })

  test('does not hear of a sequence number that moved without any key', () => {
    const { cache, views } = subscribed()
    expect([...cache.applyBundles([makeBundle('example.org', undefined, 9n)])]).toEqual([])
    cache.flush()
    expect(views).toHaveLength(1)
  })

  test('hears nothing after it left', () => {
    const { cache, views, subscription } = subscribed()
    subscription[Symbol.dispose]()
    sign(cache, 'a')
    cache.applyBundles([makeBundle('example.org', 'new root')])
    cache.flush()
    expect(views).toHaveLength(1)
  })
})

describe('a subscriber with several identities', () => {
  function subscribed() {
    const rig = makeCache()
    put(rig.cache, makeEntry({ id: 'a' }), makeEntry({ id: 'c', federatesWith: ['other.org'] }))
    rig.cache.applyBundles([makeBundle('other.org')])
    sign(rig.cache, 'a', 'c')
    const seen = collect()
    rig.cache.subscribe(UID1, seen.onView)
    rig.cache.flush()
    expect(seen.views.map(ids)).toEqual([['a', 'c']])
    return Object.assign(rig, seen)
  }

  const spiffeIds = (view: WorkloadView) => view.identities.map(({ entry }) => entry.spiffeId.path)

  test('has the old SPIFFE ID of an entry until the SVID of the new one is there', () => {
    const { cache, views } = subscribed()
    put(cache, makeEntry({ id: 'a', spiffe: '/new', revisionNumber: 1n }))
    cache.applyBundles([makeBundle('example.org', 'new root')])
    cache.flush()
    expect(cache.due(10).map(({ reason }) => reason)).toEqual(['missing'])
    sign(cache, 'a')
    cache.flush()
    expect(views.map(spiffeIds)).toEqual([
      ['/workload/a', '/workload/c'],
      ['/workload/a', '/workload/c'],
      ['/new', '/workload/c'],
    ])
    expect(views[1]!.bundle.x509).toEqual(utf8('new root'))
  })

  test('a new subscriber gets the new SPIFFE ID or waits', () => {
    const { cache } = subscribed()
    put(cache, makeEntry({ id: 'a', spiffe: '/new', revisionNumber: 1n }))
    const late = collect()
    cache.subscribe(UID1, late.onView)
    cache.flush()
    expect(late.views).toEqual([])
    expect(ids(cache.viewOf(UID1))).toEqual(['c'])
    sign(cache, 'a')
    cache.flush()
    expect(late.views.map(spiffeIds)).toEqual([['/new', '/workload/c']])
  })

  test('keeps the SVID and bundles of an entry replaced by another of the same SPIFFE ID', () => {
    const { cache, views } = subscribed()
    const replacement = makeEntry({ id: 'b', spiffe: '/workload/c', federatesWith: ['other.org'] })
    cache.applyEntries({ upserts: [replacement], removals: ['c'] })
    cache.flush()
    sign(cache, 'b')
    cache.flush()
    expect(views.map(ids)).toEqual([
      ['a', 'c'],
      ['a', 'b'],
    ])
  })

  test('loses at once what nothing replaces, whatever else is being signed', () => {
    const { cache, views } = subscribed()
    cache.applyEntries({ upserts: [makeEntry({ id: 'd' })], removals: ['c'] })
    cache.flush()
    expect(views.map(ids)).toEqual([['a', 'c'], ['a']])
  })

  test('keeps nothing that has expired', () => {
    const rig = subscribed()
    put(rig.cache, makeEntry({ id: 'a', spiffe: '/new', revisionNumber: 1n }))
    rig.now = CACHE_NOW + 3600
    store(rig.cache, { c: makeSvid({ chain: [utf8('c')], notAfter: CACHE_NOW + 7200 }) })
    rig.cache.flush()
    expect(rig.views.map(ids)).toEqual([['a', 'c'], ['c']])
  })

  test('of an entry made anew under its ID and SPIFFE ID keeps the SVID, which is renewed', () => {
    const { cache, views } = subscribed()
    put(cache, makeEntry({ id: 'a', createdAt: CACHE_NOW + 5 }))
    cache.flush()
    expect(views.flatMap(ids)).not.toContainEqual(['c'])
    expect(cache.due(10).map(({ entry, reason }) => [entry.id, reason])).toEqual([
      ['a', 'expiring'],
    ])
  })

  test('never gets an SVID that was asked for before its entry named another workload', () => {
    const { cache, views } = subscribed()
    const { entry: asked } = cache.identities()[0]!
    put(cache, makeEntry({ id: 'a', spiffe: '/new', revisionNumber: 1n }))
    cache.storeSvids([{ entry: asked, svid: makeSvid({ chain: [utf8('late')] }) }])
    cache.flush()
    expect(views).toHaveLength(1)
    expect(ids(cache.viewOf(UID1))).toEqual(['c'])
  })
})

describe('what is due', () => {
  test('first what is waited for, then the soonest to expire, then prefetching', () => {
    const { cache } = makeCache()
    put(
      cache,
      makeEntry({ id: 'prefetch' }),
      makeEntry({ id: 'late' }),
      makeEntry({ id: 'soon' }),
      makeEntry({ id: 'fresh' }),
      makeEntry({ id: 'waited', selectors: ['unix:uid:7'] }),
    )
    store(cache, {
      late: makeSvid({ renewAt: CACHE_NOW, notAfter: CACHE_NOW + 200 }),
      soon: makeSvid({ renewAt: CACHE_NOW, notAfter: CACHE_NOW + 100 }),
      fresh: makeSvid({ renewAt: CACHE_NOW + 0.5 }),
    })
    cache.subscribe(selectors('unix:uid:7'), () => {})
    const due = cache.due(10)
    expect(due.map(({ entry, reason }) => [entry.id, reason])).toEqual([
      ['waited', 'missing'],
      ['soon', 'expiring'],
      ['late', 'expiring'],
      ['prefetch', 'prefetch'],
    ])
    expect(cache.due(2)).toHaveLength(2)
    expect(cache.dueCount).toBe(2)
  })

  test('an SVID of another revision of its entry', () => {
    const { cache } = makeCache()
    put(cache, makeEntry({ id: 'a' }))
    sign(cache, 'a')
    expect(cache.due(10)).toEqual([])
    put(cache, makeEntry({ id: 'a', revisionNumber: 1n }))
    expect(cache.due(10).map(({ reason }) => reason)).toEqual(['outdated'])
  })

  test('entries that opted out of prefetching only when somebody waits', () => {
    const { cache } = makeCache()
    put(cache, makeEntry({ id: 'a', disableX509SvidPrefetch: true }))
    expect(cache.due(10)).toEqual([])
    cache.subscribe(UID1, () => {})
    expect(cache.due(10).map(({ reason }) => reason)).toEqual(['missing'])
  })
})

describe('the size limit', () => {
  const ofUser = (n: number) => makeEntry({ id: `e${n}`, selectors: [`unix:uid:${n}`] })
  const entries = [1, 2, 3].map(ofUser)

  test.each([
    [3, 3],
    [2, 2],
    [1, 1],
  ])('of %d lets %d be prefetched', (sizeMax, prefetched) => {
    const { cache } = makeCache({ sizeMax })
    put(cache, ...entries)
    expect(cache.due(10)).toHaveLength(prefetched)
  })

  test('is soft: what has a listener is signed and never evicted', () => {
    const { cache } = makeCache({ sizeMax: 1 })
    put(cache, ...entries)
    for (const n of [1, 2, 3]) cache.subscribe(selectors(`unix:uid:${n}`), () => {})
    expect(cache.due(10)).toHaveLength(3)
    sign(cache, 'e1', 'e2', 'e3')
    expect(cache.svidCount).toBe(3)
  })

  test('evicts the least recently subscribed without a listener, never-subscribed first', () => {
    const { cache } = makeCache({ sizeMax: 3 })
    put(cache, ...entries, ofUser(4))
    sign(cache, 'e1', 'e2', 'e3')
    const listen = (n: number) => cache.subscribe(selectors(`unix:uid:${n}`), () => {})
    listen(2)[Symbol.dispose]()
    listen(1)[Symbol.dispose]()
    using _four = listen(4)
    sign(cache, 'e4')
    expect(
      cache
        .identities()
        .map(({ entry }) => entry.id)
        .sort(),
    ).toEqual(['e1', 'e2', 'e4'])
    put(cache, ofUser(5))
    using _five = listen(5)
    sign(cache, 'e5')
    expect(
      cache
        .identities()
        .map(({ entry }) => entry.id)
        .sort(),
    ).toEqual(['e1', 'e4', 'e5'])
  })
})

describe('after a restart', () => {
  const four = [1, 2, 3, 4].map((n) => makeEntry({ id: `e${n}`, selectors: [`unix:uid:${n}`] }))

  test('the most recently used SVIDs are there, up to the size limit', () => {
    const { cache } = makeCache()
    put(cache, ...four)
    sign(cache, 'e1', 'e2', 'e3', 'e4')
    const listen = (n: number) => cache.subscribe(selectors(`unix:uid:${n}`), () => {})
    using _one = listen(1)
    listen(3)[Symbol.dispose]()
    listen(2)[Symbol.dispose]()
    const kept = cache.identities()
    // Never used, used once, used last, in use.
    expect(kept.map(({ entry }) => entry.id)).toEqual(['e4', 'e3', 'e2', 'e1'])
    for (const [sizeMax, restored] of [
      [4, ['e4', 'e3', 'e2', 'e1']],
      [3, ['e3', 'e2', 'e1']],
      [1, ['e1']],
    ] as const) {
      const after = makeCache({ sizeMax }).cache
      put(after, ...four)
      after.restoreSvids(kept)
      expect(after.svidCount).toBe(sizeMax)
      expect(after.identities().map(({ entry }) => entry.id)).toEqual(restored)
    }
  })

  test('the order of use goes on', () => {
    const { cache } = makeCache({ sizeMax: 2 })
    put(cache, ...four)
    const svid = makeSvid()
    cache.restoreSvids([four[0]!, four[1]!].map((entry) => ({ entry, svid })))
    using _three = cache.subscribe(selectors('unix:uid:3'), () => {})
    sign(cache, 'e3')
    expect(cache.identities().map(({ entry }) => entry.id)).toEqual(['e2', 'e3'])
  })
})

test('an SVID made due by taint stays served and is not pushed again', () => {
  const { cache } = makeCache()
  put(cache, makeEntry({ id: 'a' }))
  sign(cache, 'a')
  const { views, onView } = collect()
  cache.subscribe(UID1, onView)
  cache.flush()
  expect(cache.expireSvids(new Set([cache.identities()[0]!.svid.chain]))).toBe(1)
  cache.applyEntries({ upserts: [makeEntry({ id: 'a' })], removals: [] })
  cache.flush()
  expect(views).toHaveLength(1)
  expect(cache.due(10).map(({ reason }) => reason)).toEqual(['expiring'])
})
