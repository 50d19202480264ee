import { createPublicKey, generateKeyPairSync } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import type { WorkloadKeyType } from '../../../src/agent/key-pair.ts'
import { createRenewer } from '../../../src/agent/svid-cache/renewer.ts'
import type { SvidRequest } from '../../../src/agent/sync/server-client.ts'
import { SignetError } from '../../../src/base/error.ts'
import {
  parseCertificateRequest,
  requestedNames,
  requestedSubject,
  sliceOf,
} from '../../../src/x509/csr.ts'
import { formatName } from '../../../src/x509/name.ts'
import { CACHE_NOW, makeCache, put, selectors } from '../../fakes/agent-cache.ts'
import { FakeClock } from '../../fakes/fake-clock.ts'
import { makeEntry } from '../../fakes/make-entry.ts'
import { createMemoryLog, createMemoryMetrics } from '../../fakes/memory-log.ts'
import { createSeededRandom } from '../../fakes/seeded-random.ts'
import { selfSignedCertificate } from '../../rigs/test-certificates.ts'
import { until } from '../../rigs/until.ts'

const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
const LEAF = selfSignedCertificate(privateKey, {
  isCa: false,
  notBefore: CACHE_NOW - 10,
  notAfter: CACHE_NOW + 3600,
})

function rig(
  answer: (requests: readonly SvidRequest[]) => (readonly Uint8Array[] | undefined)[],
  availabilityTargetSeconds = 0,
  keyType: WorkloadKeyType = 'ec-p256',
) {
  const { cache } = makeCache({ sizeMax: 5_000, onMissing: () => renewer.wake() })
  const clock = new FakeClock(CACHE_NOW)
  const log = createMemoryLog()
  const batches: (readonly SvidRequest[])[] = []
  const stored = { count: 0 }
  const metrics = createMemoryMetrics()
  const renewer = createRenewer({
    cache,
    client: {
      async newX509Svids(requests) {
        batches.push(requests)
        return answer(requests)
      },
    },
    keyType,
    policy: { availabilityTargetSeconds },
    clock,
    random: createSeededRandom(),
    log,
    metrics,
    onStored: () => void stored.count++,
  })
  return { renewer, cache, clock, log, metrics, batches, stored }
}

const issue = (requests: readonly SvidRequest[]) => requests.map(() => [LEAF])
const refuse = () => {
  throw new SignetError('unavailable', 'x', 'no luck')
}

const entries = (count: number) =>
  Array.from({ length: count }, (_, i) => makeEntry({ id: `e${String(i).padStart(4, '0')}` }))

test.each([
  ['ec-p256', { namedCurve: 'prime256v1' }],
  ['ec-p384', { namedCurve: 'secp384r1' }],
  ['rsa-2048', { modulusLength: 2048 }],
] as const)(
  'a request for a workload with a key of %s names SPIRE’s subject',
  async (type, key) => {
    const r = rig(issue, 0, type)
    put(r.cache, makeEntry({ id: 'a' }))
    await r.renewer.step()
    const request = parseCertificateRequest(r.batches[0]![0]!.csr)
    expect(requestedNames(request).uriNames).toEqual(['spiffe://example.org/workload/a'])
    expect(formatName(requestedSubject(request))).toBe('O=SPIRE,C=US')
    const spki = createPublicKey({
      key: Buffer.from(sliceOf(request.bytes, request.publicKey)),
      format: 'der',
      type: 'spki',
    })
    expect(spki.asymmetricKeyDetails).toMatchObject(key)
  },
)

describe('renewal', () => {
  test('asks with a new key and the entry’s name, and keeps what it gets', async () => {
    const r = rig(issue)
    put(r.cache, makeEntry({ id: 'a', revisionNumber: 4n }))
    expect(await r.renewer.step()).toBe(false)
    const { svid } = r.cache.identities()[0]!
    expect(svid).toMatchObject({ notAfter: CACHE_NOW + 3600, revisionNumber: 4n, chain: [LEAF] })
    expect(svid.renewAt).toBeGreaterThan(CACHE_NOW + 1600)
    const request = parseCertificateRequest(r.batches[0]![0]!.csr)
    expect(requestedNames(request).uriNames).toEqual(['spiffe://example.org/workload/a'])
    expect(r.stored.count).toBe(1)
    expect(await r.renewer.step()).toBe(false)
    expect(r.batches).toHaveLength(1)
    expect(JSON.stringify(r.log.lines)).not.toContain(
      Buffer.from(svid.privateKey).toString('base64'),
    )
  })

  test('samples how many are outdated and how many expire, where there are any', async () => {
    const r = rig(issue)
    put(r.cache, ...entries(3))
    await r.renewer.step()
    expect([...r.metrics.samples.keys()].filter((key) => key.endsWith('_svids'))).toEqual([])
    const [first, second] = entries(3).map((entry) => ({ ...entry, revisionNumber: 9n }))
    put(r.cache, first!, second!)
    await r.renewer.step()
    expect(r.metrics.samples.get('cache_manager.outdated_svids')).toEqual([2])
    expect(r.metrics.samples.get('cache_manager.expiring_svids')).toBeUndefined()
    expect(r.log.lines.filter(({ message }) => message.startsWith('Updating'))).toEqual([
      {
        level: 'debug',
        message: 'Updating SVIDs with outdated attributes in cache',
        fields: { cache_type: 'workload', outdated_svids: 2 },
      },
    ])
  })

  test.each([
    [500, [500]],
    [501, [500, 1]],
  ])('of %d entries comes in batches of %j', async (count, sizes) => {
    const r = rig(issue)
    put(r.cache, ...entries(count))
    while (await r.renewer.step());
    expect(r.batches.map((batch) => batch.length)).toEqual(sizes)
  })

  test('halves the batch on failure, down to one, and doubles it on success', async () => {
    let fail = true
    const r = rig((requests) => (fail ? refuse() : issue(requests)))
    put(r.cache, ...entries(600))
    for (let i = 0; i < 11; i++) await r.renewer.step().catch(() => {})
    fail = false
    for (let i = 0; i < 4; i++) await r.renewer.step()
    expect(r.batches.map((batch) => batch.length)).toEqual([
      500, 250, 125, 62, 31, 15, 7, 3, 1, 1, 1, 1, 2, 4, 8,
    ])
  })

  test('does not spin on an entry that the server refuses', async () => {
    const r = rig((requests) =>
      requests.map(({ entryId }) => (entryId === 'bad' ? undefined : [LEAF])),
    )
    put(r.cache, makeEntry({ id: 'bad' }), makeEntry({ id: 'good' }))
    expect(await r.renewer.step()).toBe(false)
    expect(r.cache.identities().map(({ entry }) => entry.id)).toEqual(['good'])
  })

  test('drops what was signed for an entry that went away meanwhile', async () => {
    const r = rig((requests) => {
      r.cache.applyEntries({ upserts: [], removals: ['a'] })
      return issue(requests)
    })
    put(r.cache, makeEntry({ id: 'a' }))
    await r.renewer.step()
    expect(r.cache.svidCount).toBe(0)
  })

  test('warns when a life is too short for the availability target', async () => {
    const r = rig(issue, 24 * 3600)
    put(r.cache, makeEntry({ id: 'a' }))
    await r.renewer.step()
    expect(r.log.lines.filter(({ level }) => level === 'warn')).toHaveLength(1)
  })
})

describe('the renewal loop', () => {
  test('signs at once for a workload that waits, between two checks', async () => {
    const r = rig(issue)
    const abort = new AbortController()
    const running = r.renewer.run(abort.signal)
    await r.clock.untilArmed()
    put(r.cache, makeEntry({ id: 'a', disableX509SvidPrefetch: true }))
    r.cache.subscribe(selectors('unix:uid:1'), () => {})
    await until('signed', () => r.cache.svidCount === 1)
    abort.abort(new Error('stop'))
    await running
  })

  test('however many knock, does not ask a failing server twice in half a second', async () => {
    const r = rig(refuse)
    const abort = new AbortController()
    const running = r.renewer.run(abort.signal)
    put(r.cache, makeEntry({ id: 'a' }))
    r.renewer.wake()
    await until('first try', () =>
      r.log.lines.some(({ message }) => message === 'SVID sync failed'),
    )
    for (let i = 0; i < 10; i++) {
      r.renewer.wake()
      await new Promise(setImmediate)
    }
    expect(r.batches).toHaveLength(1)
    await r.clock.untilArmed()
    r.clock.advanceMs(500)
    await until('second try', () => r.batches.length === 2)
    abort.abort(new Error('stop'))
    await running
  })
})
