/**
 * Two other implementations look at every kind of certificate that Signet makes: OpenSSL verifies
 * it strictly, and @peculiar/x509 reads the same fields from it as we do.
 */
import '../../rigs/reflect.ts'
import { createHash, sign, webcrypto } from 'node:crypto'
import * as x509 from '@peculiar/x509'
import { describe, expect, test } from 'vitest'
import { createMould } from '../../../src/ca/profile/mould.ts'
import type { SvidProfileName } from '../../../src/ca/profile/profiles.ts'
import { planX509Svid } from '../../../src/ca/profile/svid-plan.ts'
import type { SigningKeyType } from '../../../src/ca/signer/port.ts'
import { SpiffeId } from '../../../src/spiffe/spiffe-id.ts'
import { type Certificate, parseCertificate } from '../../../src/x509/certificate.ts'
import { formatName } from '../../../src/x509/name.ts'
import { KEY_USAGES, SIGNATURE_ALGORITHMS } from '../../../src/x509/oid.ts'
import { encodeCertificate } from '../../../src/x509/template.ts'
import { createSeededRandom } from '../../fakes/seeded-random.ts'
import { contextOf, NOW, newHierarchy, newKey } from '../../rigs/issuing.ts'
import { certificatePem, openssl, verifyStrictly } from '../../rigs/openssl.ts'

x509.cryptoProvider.set(webcrypto as unknown as Crypto)

interface Kind {
  readonly profile: SvidProfileName
  readonly clusterId: number
  readonly id: string
  readonly dnsNames?: readonly string[]
  readonly nested?: boolean
}

const KINDS: Kind[] = [
  { profile: 'workload', clusterId: 2, id: 'spiffe://example.org/ns/a/sa/b' },
  {
    profile: 'workload',
    clusterId: 2,
    id: 'spiffe://example.org/db',
    dnsNames: ['db.example.org', '*.db.example.org'],
  },
  { profile: 'agent', clusterId: 1, id: 'spiffe://example.org/spire/agent/x509pop/abc' },
  { profile: 'server', clusterId: 1, id: 'spiffe://example.org/spire/server' },
  { profile: 'downstream_ca', clusterId: 2, id: 'spiffe://example.org', nested: true },
]

function make(kind: Kind, keyType: SigningKeyType) {
  const { clusterId, nested = false } = kind
  const made = newHierarchy({ clusterId, keyType, nested, seed: kind.id })
  const context = contextOf(kind.profile, made.issuer)
  const plan = planX509Svid(
    context,
    { now: NOW, random: createSeededRandom(kind.id) },
    {
      spiffeId: SpiffeId.parse(kind.id),
      subjectPublicKeyInfo: newKey().publicKey,
      dnsNames: kind.dnsNames ?? [],
      ttlSeconds: 600,
    },
  )
  const mould = createMould(context)
  const arena = Buffer.alloc(mould.sizeMax(plan))
  const tbs = new Uint8Array(arena.subarray(0, mould.write(plan, arena, 0)))
  const algorithm = context.issuer.signatureAlgorithm
  const { hash } = SIGNATURE_ALGORITHMS[algorithm]
  const leaf = encodeCertificate(tbs, algorithm, sign(hash, tbs, made.issuerKey.privateKey))
  return { leaf, root: made.root, intermediates: made.issuer.chain }
}

describe.each(['ec-p256', 'ec-p384', 'rsa-2048'] as const)('under %s authorities', (keyType) => {
  test.each(KINDS)('$profile $id', (kind) => {
    const chain = make(kind, keyType)
    verifyStrictly(chain, NOW)
    for (const der of [chain.leaf, ...chain.intermediates, chain.root]) agree(der)
  })
})

test('the text that openssl prints of a workload certificate', () => {
  const { leaf } = make(KINDS[1]!, 'ec-p256')
  const args = ['x509', '-in', 'leaf.pem', '-noout', '-ext']
  const extensions = 'keyUsage,extendedKeyUsage,basicConstraints,subjectAltName'
  const text = openssl([...args, extensions, '-subject'], { 'leaf.pem': certificatePem(leaf) })
  expect(text).toContain('subject=C = US, O = SPIRE, CN = db.example.org')
  expect(text).toMatch(/Key Usage: critical\n\s*Digital Signature, Key Encipherment, Key Agreement/)
  expect(text).toMatch(/Extended Key Usage: \n\s*TLS Web Server Auth.*, TLS Web Client Auth/)
  expect(text).toMatch(/Basic Constraints: critical\n\s*CA:FALSE/)
  expect(text).toMatch(
    /Name: \n\s*DNS:db.example.org, DNS:\*.db.example.org, URI:spiffe:\/\/example.org\/db/,
  )
})

/** Every field we read, as the other library reads it. */
function agree(der: Uint8Array): void {
  const ours = parseCertificate(der)
  const theirs = new x509.X509Certificate(new Uint8Array(der))
  const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex')
  expect(hex(ours.serialNumber)).toBe(theirs.serialNumber)
  expect(ours.notBefore).toBe(theirs.notBefore.getTime() / 1000)
  expect(ours.notAfter).toBe(theirs.notAfter.getTime() / 1000)
  expect(hex(ours.publicKey)).toBe(hex(new Uint8Array(theirs.publicKey.rawData)))
  expect(hex(ours.signature)).toBe(hex(new Uint8Array(theirs.signature)))
  expect(hex(ours.subject)).toBe(hex(new Uint8Array(theirs.subjectName.toArrayBuffer())))
  expect(hex(ours.issuer)).toBe(hex(new Uint8Array(theirs.issuerName.toArrayBuffer())))
  expect(formatName(ours.subject)).toContain(theirs.subjectName.getField('C')[0] ?? '')
  agreeOnExtensions(ours, theirs)
}

function agreeOnExtensions(ours: Certificate, theirs: x509.X509Certificate): void {
  const constraints = theirs.getExtension(x509.BasicConstraintsExtension)!
  expect(constraints.critical).toBe(true)
  expect(ours.isCa).toBe(constraints.ca)
  expect(ours.pathLength).toBe(constraints.pathLength)
  const usages = theirs.getExtension(x509.KeyUsagesExtension)!
  expect(usages.critical).toBe(true)
  // The library's flags are in the order of RFC 5280, the first one lowest.
  const flags = KEY_USAGES.filter((_usage, bit) => usages.usages & (1 << bit))
  expect([...ours.keyUsage!].sort()).toEqual([...flags].sort())
  const extended = theirs.getExtension(x509.ExtendedKeyUsageExtension)
  expect(ours.extKeyUsage).toEqual(extended?.usages ?? [])
  const names = theirs.getExtension(x509.SubjectAlternativeNameExtension)!.names.items
  const of = (type: string) => names.filter((name) => name.type === type).map((name) => name.value)
  expect(ours.uriNames).toEqual(of('url'))
  expect(ours.dnsNames).toEqual(of('dns'))
  const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex')
  const ski = theirs.getExtension(x509.SubjectKeyIdentifierExtension)!
  expect(hex(ours.subjectKeyId)).toBe(ski.keyId)
  const digest = createHash('sha256').update(ours.publicKey).digest('hex')
  expect(ski.keyId).toBe(digest.slice(0, 40))
  const aki = theirs.getExtension(x509.AuthorityKeyIdentifierExtension)
  expect(hex(ours.authorityKeyId)).toBe(aki?.keyId ?? '')
  expect(ours.unhandledCritical).toEqual([])
}
