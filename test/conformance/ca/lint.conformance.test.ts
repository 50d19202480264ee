/**
 * One fault per rule: a certificate that is right but for one thing, and the rule that says so. The
 * fixtures are made by the general encoder, so the mould under test has no part in them.
 */
import { describe, expect, test } from 'vitest'
import { FULL_RULES, type LintExpectation, lintFully } from '../../../src/ca/lint/full-rules.ts'
import { LintedBatch } from '../../../src/ca/lint/linted-batch.ts'
import { lintPlanned, loadProfile } from '../../../src/ca/lint/loaded-profile.ts'
import { createMould } from '../../../src/ca/profile/mould.ts'
import {
  type PlanContext,
  planX509Svid,
  type SvidPlan,
  templateOf,
} from '../../../src/ca/profile/svid-plan.ts'
import { SpiffeId } from '../../../src/spiffe/spiffe-id.ts'
import { derCursor, readContent, sequence, TAG, tlv } from '../../../src/x509/der.ts'
import { encodeExtension } from '../../../src/x509/extensions.ts'
import { encodeName } from '../../../src/x509/name.ts'
import { OID } from '../../../src/x509/oid.ts'
import { type CertificateTemplate, encodeTbsCertificate } from '../../../src/x509/template.ts'
import { createSeededRandom } from '../../fakes/seeded-random.ts'
import { contextOf, NOW, newHierarchy, newKey, TD } from '../../rigs/issuing.ts'

type Change = Partial<CertificateTemplate>

const workload = contextOf('workload', newHierarchy().issuer)
const agent = contextOf('agent', newHierarchy({ clusterId: 1 }).issuer)
const nested = contextOf('downstream_ca', newHierarchy({ nested: true }).issuer)
const ORDER = { now: NOW, ttlSeconds: 0 }

function planOf(context: PlanContext, id: string, dnsNames: readonly string[] = []): SvidPlan {
  const random = createSeededRandom('lint')
  const request = { subjectPublicKeyInfo: newKey().publicKey, dnsNames, ttlSeconds: 0 }
  return planX509Svid(context, { now: NOW, random }, { ...request, spiffeId: SpiffeId.parse(id) })
}

const plan = planOf(workload, 'spiffe://example.org/w')
const agentPlan = planOf(agent, 'spiffe://example.org/spire/agent/x')
const caPlan = planOf(nested, 'spiffe://example.org')

function expectation(context: PlanContext): LintExpectation {
  const { issuer, profile } = context
  return {
    trustDomain: TD,
    profile,
    signatureAlgorithm: issuer.signatureAlgorithm,
    issuer,
    leafIdClass: issuer.leafIdClass,
  }
}

function encode(context: PlanContext, of: SvidPlan, change: Change = {}): Uint8Array {
  return encodeTbsCertificate({ ...templateOf(context, of), ...change })
}

const broken = (rule: string) =>
  expect.objectContaining({
    kind: 'internal',
    code: 'lint_failed',
    message: 'internal error',
    fields: { rule },
  })

/** The same certificate with its extensions as a function makes them from the old ones. */
function withExtensions(
  der: Uint8Array,
  change: (list: readonly Uint8Array[]) => readonly Uint8Array[],
): Uint8Array {
  const body = readContent(derCursor(der), TAG.sequence)
  const fields = split(body)
  const explicit = split(readContent(derCursor(fields.at(-1)!), 0xa3))
  const list = split(readContent(derCursor(explicit[0]!), TAG.sequence))
  return sequence(...fields.slice(0, -1), tlv(0xa3, sequence(...change(list))))
}

function split(content: Uint8Array): Uint8Array[] {
  const parts: Uint8Array[] = []
  for (let at = 0; at < content.length; ) {
    const part = derCursor(content, at)
    readContent(part, content[at]!)
    parts.push(content.subarray(at, part.pos))
    at = part.pos
  }
  return parts
}

/** A copy of the extension with this OID, critical or not. */
function recritical(element: Uint8Array, oid: string, critical: boolean): Uint8Array {
  const parts = split(readContent(derCursor(element), TAG.sequence))
  return encodeExtension(oid, critical, readContent(derCursor(parts.at(-1)!), TAG.octetString))
}

const ORDERED = [
  OID.keyUsage,
  OID.extKeyUsage,
  OID.basicConstraints,
  OID.subjectKeyId,
  OID.authorityKeyId,
  OID.subjectAltName,
]

function withCritical(oid: string, critical: boolean): Uint8Array {
  return withExtensions(encode(workload, plan), (list) =>
    list.map((item, i) => (ORDERED[i] === oid ? recritical(item, oid, critical) : item)),
  )
}

const version2 = () => {
  const fields = split(readContent(derCursor(encode(workload, plan)), TAG.sequence))
  return sequence(tlv(0xa0, Uint8Array.of(2, 1, 1)), ...fields.slice(1, -1))
}
const otherNames = () =>
  withExtensions(encode(workload, plan), (list) => [
    ...list.slice(0, -1),
    encodeExtension(
      OID.subjectAltName,
      false,
      sequence(tlv(0x86, Buffer.from(plan.spiffeId)), tlv(0x81, Buffer.from('a@b'))),
    ),
  ])

const w = (change: Change) => () => encode(workload, plan, change)
const FAULTS: [rule: string, der: () => Uint8Array, context?: PlanContext][] = [
  ['version_is_3', version2],
  ['serial_is_128_bits_with_leading_01', w({ serialNumber: Uint8Array.of(1) })],
  ['serial_is_128_bits_with_leading_01', w({ serialNumber: new Uint8Array(16).fill(0x81) })],
  ['signature_algorithm_is_the_issuer_keys', w({ signatureAlgorithm: 'ecdsa-sha384' })],
  ['issuer_is_the_issuers_subject', w({ issuer: encodeName({ commonName: ['x'] }) })],
  ['subject_is_not_empty', w({ subject: encodeName({}) })],
  ['ca_subject_differs_from_the_issuers', w({ subject: workload.issuer.name })],
  ['validity_is_not_empty', w({ validity: { notBefore: NOW, notAfter: NOW } })],
  ['validity_is_within_the_issuers', w({ validity: { notBefore: NOW, notAfter: NOW + 86_401 } })],
  ['validity_is_within_the_issuers', w({ validity: { notBefore: NOW - 1001, notAfter: NOW } })],
  ['basic_constraints_are_critical_and_the_profiles', w({ isCa: true })],
  [
    'basic_constraints_are_critical_and_the_profiles',
    () => encode(nested, caPlan, { pathLength: 3 }),
    nested,
  ],
  [
    'basic_constraints_are_critical_and_the_profiles',
    () => withCritical(OID.basicConstraints, false),
  ],
  [
    'issuer_may_sign_a_ca',
    () => encode(nested, caPlan),
    { ...nested, issuer: { ...nested.issuer, pathLength: 0 } },
  ],
  ['key_usage_is_critical_and_the_profiles', w({ keyUsage: ['digitalSignature', 'keyCertSign'] })],
  ['key_usage_is_critical_and_the_profiles', () => withCritical(OID.keyUsage, false)],
  ['ext_key_usage_is_the_profiles', w({ extKeyUsage: ['serverAuth'] })],
  ['ext_key_usage_is_the_profiles', () => withCritical(OID.extKeyUsage, true)],
  ['subject_key_identifier_is_the_keys', w({ subjectKeyId: new Uint8Array(20) })],
  ['subject_key_identifier_is_the_keys', () => withCritical(OID.subjectKeyId, true)],
  ['authority_key_identifier_is_the_issuers', w({ authorityKeyId: new Uint8Array(20) })],
  ['one_uri_name', w({ uriNames: [plan.spiffeId, 'spiffe://example.org/x'] })],
  ['one_uri_name', w({ uriNames: [], dnsNames: ['a.b'] })],
  ['uri_name_is_of_the_profiles_class', w({ uriNames: ['spiffe://example.org/spire/server'] })],
  ['uri_name_is_of_the_profiles_class', w({ uriNames: ['spiffe://example.org'] })],
  ['uri_name_is_of_the_profiles_class', w({ uriNames: ['spiffe://example.org/'] })],
  ['uri_name_is_of_the_profiles_class', w({ uriNames: ['spiffe://example.orgx/w'] })],
  [
    'issuer_may_sign_the_class',
    () => encode(agent, agentPlan),
    { ...agent, issuer: { ...agent.issuer, leafIdClass: 'workload' } },
  ],
  ['dns_names_by_the_profile', () => encode(agent, agentPlan, { dnsNames: ['a.b'] }), agent],
  ['alternative_name_is_not_critical', () => withCritical(OID.subjectAltName, true)],
  [
    'extensions_are_the_profiles',
    () =>
      withExtensions(encode(workload, plan), (list) => [
        ...list,
        encodeExtension('1.2.3.4', false, sequence()),
      ]),
  ],
  [
    'extensions_are_the_profiles',
    () => withExtensions(encode(workload, plan), ([a, b, ...rest]) => [b!, a!, ...rest]),
  ],
  ['encodes_again_to_the_same_bytes', otherNames],
]

describe('all rules', () => {
  test.each([
    ['workload', workload, plan],
    ['agent', agent, agentPlan],
    ['downstream CA', nested, caPlan],
  ] as const)('a right %s certificate passes', (_name, context, of) => {
    lintFully(encode(context, of), expectation(context))
  })

  test.each(FAULTS)('%s %#', (rule, der, context = workload) => {
    expect(() => lintFully(der(), expectation(context))).toThrow(broken(rule))
  })

  test('every rule has a fixture', () => {
    const proved = new Set(FAULTS.map(([rule]) => rule))
    expect(FULL_RULES.filter((rule) => !proved.has(rule.name)).map((rule) => rule.name)).toEqual([])
  })
})

describe('the rules of the hot path', () => {
  const loaded = loadProfile(workload)
  const dnsPlan = planOf(workload, 'spiffe://example.org/w', ['a.b', 'c.d'])
  const lint = (der: Uint8Array, of = plan, ordered = ORDER) =>
    lintPlanned(loaded, Buffer.from(der), { start: 0, end: der.length }, of, ordered)

  test('right certificates pass', () => {
    lint(encode(workload, plan))
    lint(encode(workload, dnsPlan), dnsPlan)
  })

  const other = newKey().publicKey
  test.each<[string, () => Uint8Array]>([
    ['fixed_parts_are_the_references', version2],
    ['fixed_parts_are_the_references', w({ signatureAlgorithm: 'ecdsa-sha384' })],
    ['fixed_parts_are_the_references', w({ issuer: encodeName({ commonName: ['x'] }) })],
    ['fixed_parts_are_the_references', w({ isCa: true })],
    ['fixed_parts_are_the_references', w({ keyUsage: ['keyCertSign'] })],
    ['fixed_parts_are_the_references', w({ extKeyUsage: ['clientAuth', 'serverAuth'] })],
    ['fixed_parts_are_the_references', w({ authorityKeyId: new Uint8Array(20) })],
    ['serial_is_128_bits_with_leading_01', w({ serialNumber: Uint8Array.of(9) })],
    ['serial_is_128_bits_with_leading_01', w({ serialNumber: new Uint8Array(16).fill(0x20) })],
    ['validity_is_not_empty', w({ validity: { notBefore: NOW, notAfter: NOW } })],
    ['validity_is_not_empty', w({ validity: { notBefore: NOW + 1, notAfter: NOW + 2 } })],
    ['validity_is_within_the_issuers', w({ validity: { notBefore: 0, notAfter: NOW + 1 } })],
    ['lifetime_is_capped', w({ validity: { notBefore: NOW, notAfter: NOW + 3601 } })],
    ['subject_is_the_planned_one', w({ subject: encodeName({ country: ['DE'] }) })],
    ['key_is_the_requests', w({ subjectPublicKeyInfo: other })],
    ['subject_key_identifier_is_the_keys', w({ subjectKeyId: new Uint8Array(20).fill(1) })],
    ['uri_name_is_the_planned_id', w({ uriNames: ['spiffe://example.org/v'] })],
    ['one_uri_name', w({ uriNames: [plan.spiffeId, plan.spiffeId] })],
    [
      'nothing_follows',
      () =>
        withExtensions(encode(workload, plan), (list) => [
          ...list,
          encodeExtension('1.2.3.4', false, sequence()),
        ]),
    ],
    [
      'extensions_are_the_profiles',
      () =>
        withExtensions(encode(workload, plan), (list) => [
          ...list.slice(0, -1),
          encodeExtension('2.5.29.18', false, sequence(tlv(0x86, Buffer.from(plan.spiffeId)))),
        ]),
    ],
  ])('%s %#', (rule, der) => {
    expect(() => lint(der())).toThrow(broken(rule))
  })

  test('a DNS name that nobody ordered, one that is missing, one that is another', () => {
    expect(() => lint(encode(workload, plan, { dnsNames: ['a.b'] }))).toThrow()
    expect(() => lint(encode(workload, dnsPlan, { dnsNames: ['a.b'] }), dnsPlan)).toThrow()
    expect(() => lint(encode(workload, dnsPlan, { dnsNames: ['a.b', 'c.x'] }), dnsPlan)).toThrow(
      broken('dns_names_are_the_planned_ones'),
    )
  })

  test('an ID of another class is caught even if it was planned', () => {
    const id = 'spiffe://example.org/spire/server'
    const strayed = { ...plan, spiffeId: id }
    expect(() => lint(encode(workload, strayed), strayed)).toThrow(
      broken('issuer_may_sign_the_class'),
    )
  })

  test('no single byte can be changed unnoticed, but in serial and times', () => {
    const der = encode(workload, plan)
    const free = new Set<number>()
    const serialAt = Buffer.from(der).indexOf(Buffer.from(plan.serialNumber))
    for (let i = 0; i < 16; i++) free.add(serialAt + i)
    const timesAt = Buffer.from(der).indexOf(Buffer.from('301e170d', 'hex'))
    for (let i = 0; i < 32; i++) free.add(timesAt + i)
    for (let at = 0; at < der.length; at++) {
      if (free.has(at)) continue
      for (const change of [0x01, 0x20, 0x80]) {
        const changed = der.slice()
        changed[at] = changed[at]! ^ change
        expect(() => lint(changed), `byte ${at}`).toThrow()
      }
    }
  })
})

test('a profile whose mould is wrong cannot be loaded', () => {
  const right = createMould(workload)
  const wrong: typeof right = {
    sizeMax: right.sizeMax,
    write: (of, out, pos) =>
      right.write({ ...of, spiffeId: 'spiffe://example.org/spire/x' }, out, pos),
  }
  expect(() => loadProfile(workload, wrong)).toThrow(broken('uri_name_is_of_the_profiles_class'))
})

describe('linted batches', () => {
  const loaded = loadProfile(workload)

  test('carry the digest of what was linted, and the offsets of where it lies', () => {
    const der = encode(workload, plan)
    const arena = Buffer.concat([Buffer.alloc(5), der])
    const batch = LintedBatch.of(arena, 1)
    const range = { start: 5, end: 5 + der.length }
    expect(batch.add(loaded, 42, range, plan, ORDER)).toBe(0)
    const { items, digests, messages } = batch.toSigningBatch(new Uint8Array())
    expect([...items.subarray(0, 3)]).toEqual([42, 5, der.length])
    expect(messages.length).toBe(range.end)
    expect(Buffer.from(digests)).toEqual(Buffer.from(batch.digest(0)))
    expect(Buffer.from(batch.message(0))).toEqual(Buffer.from(der))
  })

  test('hold nothing that was not linted, and no more than they were made for', () => {
    const der = encode(workload, plan, { isCa: true })
    const batch = LintedBatch.of(Buffer.from(der), 1)
    const range = { start: 0, end: der.length }
    expect(() => batch.add(loaded, 1, range, plan, ORDER)).toThrow(
      broken('fixed_parts_are_the_references'),
    )
    expect(batch.count).toBe(0)
    expect(batch.toSigningBatch(new Uint8Array()).items.length).toBe(0)
    const good = LintedBatch.of(Buffer.from(encode(workload, plan)), 1)
    const whole = { start: 0, end: encode(workload, plan).length }
    good.add(loaded, 1, whole, plan, ORDER)
    expect(() => good.add(loaded, 1, whole, plan, ORDER)).toThrow(/broken promise/)
  })

  test('take a CA certificate whole, by all rules', () => {
    const expected = expectation(nested)
    expect(LintedBatch.ofCa(encode(nested, caPlan), expected, 7).count).toBe(1)
    expect(() =>
      LintedBatch.ofCa(encode(nested, caPlan, { keyUsage: ['keyCertSign'] }), expected, 7),
    ).toThrow(broken('key_usage_is_critical_and_the_profiles'))
  })
})
