import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { CERTIFICATE_BYTES_MAX, SVID_DNS_NAMES_BYTES_MAX } from '../../../src/base/limits.ts'
import { createSystemRandom } from '../../../src/base/random.ts'
import { lintPlanned, loadProfile } from '../../../src/ca/lint/loaded-profile.ts'
import { PROFILES } from '../../../src/ca/profile/profiles.ts'
import { newSerialNumber } from '../../../src/ca/profile/serial-number.ts'
import {
  type PlanContext,
  planX509Svid,
  type SvidRequest,
  templateOf,
} from '../../../src/ca/profile/svid-plan.ts'
import { SpiffeId } from '../../../src/spiffe/spiffe-id.ts'
import { encodeName, formatName } from '../../../src/x509/name.ts'
import { encodeTbsCertificate } from '../../../src/x509/template.ts'
import { createSeededRandom } from '../../fakes/seeded-random.ts'
import { contextOf, NOW, newHierarchy, newKey } from '../../rigs/issuing.ts'

const workload = contextOf('workload', newHierarchy().issuer)
const agent = contextOf('agent', newHierarchy({ clusterId: 1 }).issuer)
const request: SvidRequest = {
  spiffeId: SpiffeId.parse('spiffe://example.org/w'),
  subjectPublicKeyInfo: newKey().publicKey,
  dnsNames: [],
  ttlSeconds: 0,
}
const ports = { now: NOW, random: createSeededRandom() }

function withIssuer(notBefore: number, notAfter: number): PlanContext {
  return { ...workload, issuer: { ...workload.issuer, validity: { notBefore, notAfter } } }
}

// Method: any authority valid now, any ttl that fits an int32, any random bytes.
test('a certificate never outlives its authority or the time asked for', () => {
  const span = fc.integer({ min: 0, max: 10 ** 9 })
  const int32 = fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 })
  const bytes = fc.uint8Array({ minLength: 16, maxLength: 16 })
  fc.assert(
    fc.property(span, span, int32, bytes, (age, remaining, ttlSeconds, serial) => {
      const context = withIssuer(NOW - age, NOW + 1 + remaining)
      const random = { bytes: () => serial.slice() }
      const plan = planX509Svid(context, { now: NOW, random }, { ...request, ttlSeconds })
      const ttl = ttlSeconds > 0 ? ttlSeconds : context.ttlSecondsDefault
      expect(plan.validity).toEqual({
        notBefore: Math.max(NOW - 10, NOW - age),
        notAfter: Math.min(NOW + ttl, NOW + 1 + remaining),
      })
      expect(plan.serialNumber[0]! >> 6).toBe(0b01)
      expect(plan.serialNumber.subarray(1)).toEqual(serial.subarray(1))
    }),
  )
})

test('serials never repeat', () => {
  const random = createSeededRandom('serials')
  const seen = new Set<string>()
  for (let i = 0; i < 10_000; i++) seen.add(Buffer.from(newSerialNumber(random)).toString('hex'))
  expect(seen.size).toBe(10_000)
})

test('serials are positive, of 16 bytes, and 126 of their bits are a coin each (I1)', () => {
  const random = createSystemRandom()
  const count = 20_000
  const ones = new Uint32Array(128)
  const seen = new Set<string>()
  for (let i = 0; i < count; i++) {
    const serial = newSerialNumber(random)
    expect(serial).toHaveLength(16)
    seen.add(Buffer.from(serial).toString('hex'))
    for (let bit = 0; bit < 128; bit++) ones[bit]! += (serial[bit >> 3]! >> (7 - (bit & 7))) & 1
  }
  expect(seen.size).toBe(count)
  expect([ones[0], ones[1]]).toEqual([0, count])
  // Six standard deviations: a fair coin is further off once in a million such runs.
  const slack = 6 * Math.sqrt(count / 4)
  const biased = [...ones.subarray(2)].filter((n) => Math.abs(n - count / 2) > slack)
  expect(biased).toEqual([])
})

test.each([
  [NOW - 100, NOW],
  [NOW - 100, NOW - 1],
  [NOW + 1, NOW + 100],
])('an authority valid from %i to %i issues nothing', (notBefore, notAfter) => {
  expect(() => planX509Svid(withIssuer(notBefore, notAfter), ports, request)).toThrow(
    expect.objectContaining({ kind: 'unavailable', code: 'x509_authority_expired' }),
  )
})

describe('which IDs an issuer may name', () => {
  const denied = expect.objectContaining({ kind: 'permission_denied', code: 'id_not_allowed' })
  const plan = (context: PlanContext, id: string) =>
    planX509Svid(context, ports, { ...request, spiffeId: SpiffeId.parse(id) }).spiffeId

  test.each([
    'spiffe://example.org/w',
    'spiffe://example.org/spirex',
    'spiffe://example.org/a/spire/agent',
  ])('a cluster signs %s, the control cluster does not', (id) => {
    expect(plan(workload, id)).toBe(id)
    expect(() => plan(agent, id)).toThrow(denied)
  })

  test.each([
    'spiffe://example.org/spire/agent/x',
    'spiffe://example.org/spire/server',
    'spiffe://example.org/spire',
  ])('the control cluster signs %s, a cluster does not', (id) => {
    expect(plan(agent, id)).toBe(id)
    expect(() => plan(workload, id)).toThrow(denied)
  })

  test.each(['spiffe://example.org', 'spiffe://other.org/w'])('no leaf is %s', (id) => {
    expect(() => plan(workload, id)).toThrow(denied)
    expect(() => plan(agent, id)).toThrow(denied)
  })

  test('no leaf profile reaches another class through the right issuer', () => {
    const crossed = { ...workload, profile: PROFILES.agent }
    expect(() => plan(crossed, 'spiffe://example.org/spire/agent/x')).toThrow(denied)
    expect(() => plan(crossed, 'spiffe://example.org/w')).toThrow(denied)
  })

  test('a downstream CA is the trust domain, and only under an issuer without path length 0', () => {
    const nested = contextOf('downstream_ca', newHierarchy({ nested: true }).issuer)
    expect(plan(nested, 'spiffe://example.org')).toBe('spiffe://example.org')
    expect(() => plan(nested, 'spiffe://example.org/w')).toThrow(denied)
    const leafIssuer = contextOf('downstream_ca', newHierarchy().issuer)
    expect(() => plan(leafIssuer, 'spiffe://example.org')).toThrow(denied)
  })
})

describe('subjects', () => {
  const subjectOf = (context: PlanContext, change: Partial<SvidRequest>) =>
    formatName(planX509Svid(context, ports, { ...request, ...change }).subject)
  const asked = encodeName({ organization: ['Acme'], commonName: ['x'] })

  test.each<[Partial<SvidRequest>, string]>([
    [{}, 'O=SPIRE,C=US'],
    [{ dnsNames: ['a.b', 'c.d'] }, 'CN=a.b,O=SPIRE,C=US'],
    [{ subject: encodeName({}) }, 'O=SPIRE,C=US'],
    [{ subject: asked }, 'CN=x,O=Acme'],
    [{ subject: asked, dnsNames: ['a.b'] }, 'CN=a.b,O=Acme'],
  ])('%#', (change, text) => expect(subjectOf(workload, change)).toBe(text))

  test('a downstream CA has its parent’s, with the depth in its unit', () => {
    const nested = contextOf('downstream_ca', newHierarchy({ nested: true }).issuer)
    const spiffeId = SpiffeId.parse('spiffe://example.org')
    expect(subjectOf(nested, { spiffeId })).toMatch(
      /^SERIALNUMBER=\d+,OU=DOWNSTREAM-1,O=SPIFFE,C=US$/,
    )
  })

  test('a DNS name of 253 bytes is taken', () => {
    const name = 'x'.repeat(253)
    expect(subjectOf(workload, { dnsNames: [name] })).toContain(name)
  })

  test('32 KiB of DNS names are taken, and encode; a byte more is not', () => {
    const names = Array.from({ length: 129 }, () => 'x'.repeat(253))
    const left = SVID_DNS_NAMES_BYTES_MAX - 129 * 253
    const most = [...names, 'x'.repeat(left)]
    const plan = planX509Svid(workload, ports, { ...request, dnsNames: most })
    expect(encodeTbsCertificate(templateOf(workload, plan)).length).toBeLessThan(
      CERTIFICATE_BYTES_MAX,
    )
    const loaded = loadProfile(workload)
    const arena = Buffer.alloc(loaded.mould.sizeMax(plan))
    const end = loaded.mould.write(plan, arena, 0)
    lintPlanned(loaded, arena, { start: 0, end }, plan, { now: NOW, ttlSeconds: 0 })
    const tooMany = [...most, 'x']
    expect(() => planX509Svid(workload, ports, { ...request, dnsNames: tooMany })).toThrow(
      expect.objectContaining({ kind: 'invalid_argument', code: 'too_many_dns_names' }),
    )
  })

  test.each(['', 'a b', 'ü.example.org', 'x'.repeat(254)])('DNS name %j is refused', (name) => {
    expect(() => planX509Svid(workload, ports, { ...request, dnsNames: [name] })).toThrow(
      expect.objectContaining({ kind: 'invalid_argument', code: 'bad_dns_name' }),
    )
  })
})
