import { describe, expect, test } from 'vitest'
import { JwtSvidCache } from '../../../src/agent/svid-cache/jwt-svid-cache.ts'
import { createJwtSvidFetcher } from '../../../src/agent/svid-cache/jwt-svid-fetcher.ts'
import type { FetchedJwtSvid } from '../../../src/agent/sync/server-client.ts'
import { type ErrorKind, SignetError } from '../../../src/base/error.ts'
import { FakeClock } from '../../fakes/fake-clock.ts'
import { makeEntry } from '../../fakes/make-entry.ts'
import { createMemoryLog, createMemoryMetrics } from '../../fakes/memory-log.ts'
import { createSeededRandom } from '../../fakes/seeded-random.ts'

const ENTRY = makeEntry({ id: 'a', spiffe: '/a' })
const ID = 'spiffe://example.org/a'
const TTL = 300

function rig(answer: (call: number) => FetchedJwtSvid | Error) {
  const clock = new FakeClock()
  const cache = new JwtSvidCache(10)
  const log = createMemoryLog()
  const metrics = createMemoryMetrics()
  const calls: { entryId: string; timeoutMs: number }[] = []
  const fetcher = createJwtSvidFetcher({
    client: {
      async newJwtSvid(entryId, _audience, timeoutMs) {
        calls.push({ entryId, timeoutMs })
        const result = answer(calls.length)
        if (result instanceof Error) throw result
        return result
      },
    },
    cache,
    cacheHitTimeoutMs: 10_000,
    clock,
    random: createSeededRandom(),
    log,
    metrics,
  })
  return { fetcher, metrics, cache, clock, log, calls }
}

const header = (kid: string) =>
  Buffer.from(JSON.stringify({ alg: 'ES256', kid })).toString('base64url')

function svid(n: number, clock: FakeClock, kid = 'key'): FetchedJwtSvid {
  const issuedAt = clock.nowSeconds()
  return { token: `${header(kid)}.${n}.s`, spiffeId: ID, issuedAt, expiresAt: issuedAt + TTL }
}

const failure = (kind: ErrorKind, grpcCode?: number) =>
  new SignetError(kind, 'grpc', 'no luck', { fields: { grpcCode } })

describe('a JWT-SVID', () => {
  test('in the cache is counted', async () => {
    const r = rig((call) => svid(call, r.clock))
    await r.fetcher.fetch(ENTRY, ['a'])
    await r.fetcher.fetch(ENTRY, ['b'])
    expect(r.metrics.gauges.get('jwt_svid_cache_size')).toBe(2)
  })

  test('is fetched once for an audience in any order, again when half its life is over', async () => {
    const r = rig((n) => svid(n, r.clock))
    const first = await r.fetcher.fetch(ENTRY, ['x', 'y'])
    expect(await r.fetcher.fetch(ENTRY, ['y', 'x'])).toBe(first)
    r.clock.advanceSeconds(TTL * 0.44)
    expect(await r.fetcher.fetch(ENTRY, ['x', 'y'])).toBe(first)
    r.clock.advanceSeconds(TTL * 0.12)
    expect(await r.fetcher.fetch(ENTRY, ['x', 'y'])).not.toBe(first)
    expect(await r.fetcher.fetch(ENTRY, ['x'])).not.toBe(first)
    expect(r.calls).toHaveLength(3)
  })

  test('asked for twice at once is fetched once; of another entry it is another', async () => {
    const r = rig((n) => svid(n, r.clock))
    const twin = makeEntry({ id: 'b', spiffe: '/a' })
    const [one, two, three] = await Promise.all([
      r.fetcher.fetch(ENTRY, ['x']),
      r.fetcher.fetch(ENTRY, ['x']),
      r.fetcher.fetch(twin, ['x']),
    ])
    expect(one).toBe(two)
    expect(three).not.toBe(one)
    expect(r.calls.map(({ entryId }) => entryId)).toEqual(['a', 'b'])
  })

  test('with a jti is never taken from the cache nor kept in it', async () => {
    const r = rig((n) => svid(n, r.clock))
    const entry = makeEntry({ id: 'a', spiffe: '/a', jwtSvidIncludeJti: true })
    const [one, two] = await Promise.all([
      r.fetcher.fetch(entry, ['x']),
      r.fetcher.fetch(entry, ['x']),
    ])
    expect(one).not.toBe(two)
    expect(r.cache.size).toBe(0)
  })

  test('falls back to an unexpired copy, within the shorter patience', async () => {
    const r = rig((n) => (n === 1 ? svid(n, r.clock) : failure('invalid_argument')))
    const first = await r.fetcher.fetch(ENTRY, ['x'])
    r.clock.advanceSeconds(TTL * 0.6)
    expect(await r.fetcher.fetch(ENTRY, ['x'])).toBe(first)
    expect(r.calls.map(({ timeoutMs }) => timeoutMs)).toEqual([30_000, 10_000])
    r.clock.advanceSeconds(TTL * 0.4)
    await expect(r.fetcher.fetch(ENTRY, ['x'])).rejects.toMatchObject({
      kind: 'invalid_argument',
      message: 'failed to fetch JWT SVID: no luck',
    })
  })

  test.each<[ErrorKind, number]>([
    ['canceled', 1],
    ['internal', 2],
    ['invalid_argument', 3],
    ['deadline_exceeded', 4],
    ['not_found', 5],
    ['permission_denied', 7],
    ['resource_exhausted', 8],
    ['unimplemented', 12],
    ['internal', 13],
  ])('is not asked for again after %s', async (kind, code) => {
    const r = rig(() => failure(kind, code))
    await expect(r.fetcher.fetch(ENTRY, ['x'])).rejects.toMatchObject({ kind })
    expect(r.calls).toHaveLength(1)
  })

  test('is asked for again while the server is away, until the time is over', async () => {
    const r = rig(() => failure('unavailable', 14))
    let outcome: unknown
    r.fetcher.fetch(ENTRY, ['x']).catch((error: unknown) => {
      outcome = error
    })
    await r.clock.advanceUntil(() => outcome !== undefined, 100)
    expect(outcome).toMatchObject({ kind: 'unavailable', code: 'jwt_svid_fetch_failed' })
    expect(r.calls.length).toBeGreaterThan(4)
    for (const { timeoutMs } of r.calls) expect(timeoutMs).toBeGreaterThan(0)
  })

  test('comes from a server that is back within the time', async () => {
    const r = rig((n) => (n < 3 ? failure('unavailable', 14) : svid(n, r.clock)))
    let token: string | undefined
    void r.fetcher.fetch(ENTRY, ['x']).then((one) => {
      token = one
    })
    await r.clock.advanceUntil(() => token !== undefined, 100)
    expect(r.calls).toHaveLength(3)
  })

  test('of a tainted key is dropped from the cache', async () => {
    const r = rig((n) => svid(n, r.clock, `key${n}`))
    await r.fetcher.fetch(ENTRY, ['x'])
    const second = await r.fetcher.fetch(ENTRY, ['y'])
    expect(r.cache.dropKeys(new Set(['key1', 'other']))).toEqual(new Map([['key1', 1]]))
    expect(await r.fetcher.fetch(ENTRY, ['y'])).toBe(second)
    await r.fetcher.fetch(ENTRY, ['x'])
    expect(r.calls).toHaveLength(3)
  })

  test('never shows up in the log', async () => {
    const r = rig((n) => (n === 1 ? svid(n, r.clock) : failure('invalid_argument')))
    await r.fetcher.fetch(ENTRY, ['x'])
    r.clock.advanceSeconds(TTL * 0.6)
    const token = await r.fetcher.fetch(ENTRY, ['x'])
    expect(JSON.stringify(r.log.lines)).not.toContain(token)
  })
})
