import { beforeAll, describe, expect, test } from 'vitest'
import { JwtSvidCache } from '../../../src/agent/svid-cache/jwt-svid-cache.ts'
import { chainsTo, createTaintProcessor } from '../../../src/agent/svid-cache/taint.ts'
import type { Bundle } from '../../../src/spiffe/bundle.ts'
import { parseCertificate } from '../../../src/x509/certificate.ts'
import { makeCache, makeSvid, put, selectors, store } from '../../fakes/agent-cache.ts'
import { FakeClock } from '../../fakes/fake-clock.ts'
import { makeEntry } from '../../fakes/make-entry.ts'
import { createMemoryLog, createMemoryMetrics } from '../../fakes/memory-log.ts'
import { makeAuthority, makeLeaf, type TestAuthority } from '../../rigs/certificates.ts'

const URI = 'spiffe://example.org'
let old: TestAuthority
let next: TestAuthority
let intermediate: TestAuthority
let impostor: TestAuthority
beforeAll(async () => {
  old = await makeAuthority('old', URI)
  next = await makeAuthority('next', URI)
  intermediate = await makeAuthority('intermediate', URI, old)
  // The name of a tainted root, another key.
  impostor = await makeAuthority('old', URI)
})

const chainOf = async (issuer: TestAuthority) =>
  (
    await makeLeaf(issuer, {
      uris: [`${URI}/w`],
      intermediates: issuer === intermediate ? [issuer] : [],
    })
  ).chain

function bundleWith(tainted: readonly TestAuthority[], jwt: readonly string[] = []): Bundle {
  return {
    trustDomain: 'example.org',
    x509Authorities: [old, next].map((authority) => ({
      certificate: authority.der,
      tainted: tainted.includes(authority),
    })),
    jwtAuthorities: ['k1', 'k2'].map((keyId) => ({
      keyId,
      publicKey: new Uint8Array(),
      expiresAt: 0,
      tainted: jwt.includes(keyId),
    })),
    refreshHintSeconds: 0,
    sequenceNumber: 1n,
  }
}

async function rig(own: TestAuthority) {
  const { cache } = makeCache()
  put(cache, makeEntry({ id: 'direct' }), makeEntry({ id: 'below' }), makeEntry({ id: 'fine' }))
  store(cache, {
    direct: makeSvid({ chain: await chainOf(old) }),
    below: makeSvid({ chain: await chainOf(intermediate) }),
    fine: makeSvid({ chain: await chainOf(next) }),
  })
  const jwtCache = new JwtSvidCache(10)
  for (const keyId of ['k1', 'k2']) {
    jwtCache.set(keyId, {
      token: keyId,
      spiffeId: '',
      issuedAt: 0,
      expiresAt: 9,
      keyId,
      renewAt: 5,
    })
  }
  const counts = { own: 0, expired: 0 }
  const ownChain = await chainOf(own)
  const log = createMemoryLog()
  const metrics = createMemoryMetrics()
  const processor = createTaintProcessor({
    x509Cache: cache,
    jwtCache,
    ownChain: () => ownChain,
    onOwnTainted: () => void counts.own++,
    onExpired: () => void counts.expired++,
    clock: new FakeClock(),
    log,
    metrics,
  })
  return { processor, cache, jwtCache, counts, log, metrics }
}

describe('a tainted root', () => {
  test('makes what it signed, directly or not, due at once and serves it meanwhile', async () => {
    const r = await rig(next)
    await r.processor.process(bundleWith([old]))
    expect(
      r.cache
        .due(10)
        .map(({ entry }) => entry.id)
        .sort(),
    ).toEqual(['below', 'direct'])
    expect(r.cache.viewOf(selectors('unix:uid:1')).identities).toHaveLength(3)
    expect(r.counts).toEqual({ own: 0, expired: 1 })
    expect(r.metrics.samples.get('cache_manager.tainted_x509_svids.workload')).toEqual([2])
    expect(r.metrics.counters.get('cache_manager.workload.process_tainted_x509_svids')).toBe(1)
    expect(r.log.lines.map(({ message }) => message)).toContain(
      'Scheduled rotation for SVID entries due to tainted X.509 authorities',
    )
  })

  test('that signed the agent’s own SVID rotates that too, once', async () => {
    const r = await rig(old)
    await r.processor.process(bundleWith([old]))
    await r.processor.process(bundleWith([old]))
    expect(r.counts).toEqual({ own: 1, expired: 1 })
  })

  test('that signed nothing here changes nothing', async () => {
    const r = await rig(old)
    await r.processor.process(bundleWith([]))
    expect(r.cache.due(10)).toEqual([])
    expect(r.counts).toEqual({ own: 0, expired: 0 })
    expect(r.metrics.counters.size).toBe(0)
  })

  test('is told by its signature, not by its name', async () => {
    const chain = await chainOf(old)
    expect(chainsTo(chain, [parseCertificate(old.der)])).toBe(true)
    expect(chainsTo(chain, [parseCertificate(impostor.der)])).toBe(false)
    expect(chainsTo([], [parseCertificate(old.der)])).toBe(false)
  })
})

test('a tainted JWT key takes its tokens with it and no others', async () => {
  const r = await rig(next)
  await r.processor.process(bundleWith([], ['k1']))
  expect(r.jwtCache.get('k1')).toBeUndefined()
  expect(r.jwtCache.get('k2')).toBeDefined()
  expect(r.metrics.samples.get('cache_manager.tainted_jwt_svids.workload')).toEqual([1])
  expect(r.metrics.counters.get('cache_manager.workload.process_tainted_jwt_svids')).toBe(1)
  expect(r.metrics.gauges.get('jwt_svid_cache_size')).toBe(1)
})
