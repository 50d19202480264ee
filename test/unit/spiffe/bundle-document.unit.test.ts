import { generateKeyPairSync } from 'node:crypto'
import { importJWK } from 'jose'
import { describe, expect, test } from 'vitest'
import { BUNDLE_KEYS_MAX, MESSAGE_BYTES_MAX } from '../../../src/base/limits.ts'
import type { Bundle } from '../../../src/spiffe/bundle.ts'
import { formatBundleDocument, parseBundleDocument } from '../../../src/spiffe/bundle-document.ts'
import { formatWorkloadJwks, jwkToSpki, spkiToJwk } from '../../../src/spiffe/jwks.ts'
import { TrustDomain } from '../../../src/spiffe/trust-domain.ts'
import { selfSignedCertificate } from '../../rigs/test-certificates.ts'

const TD = TrustDomain.parse('example.org')
const EC = generateKeyPairSync('ec', { namedCurve: 'P-256' })
const RSA = generateKeyPairSync('rsa', { modulusLength: 2048 })
const ROOT = selfSignedCertificate(EC.privateKey, { commonName: 'root' })
const RSA_ROOT = selfSignedCertificate(RSA.privateKey, { commonName: 'rsa root' })
const LEAF = selfSignedCertificate(EC.privateKey, { isCa: false })

function spki(pair: { publicKey: import('node:crypto').KeyObject }): Uint8Array {
  return new Uint8Array(pair.publicKey.export({ type: 'spki', format: 'der' }))
}

const KEY = spki(EC)
const BUNDLE: Bundle = {
  trustDomain: 'example.org',
  x509Authorities: [
    { certificate: RSA_ROOT, tainted: false },
    { certificate: ROOT, tainted: true },
  ],
  jwtAuthorities: [
    { keyId: 'b', publicKey: KEY, expiresAt: 5, tainted: true },
    { keyId: 'a', publicKey: spki(RSA), expiresAt: 0, tainted: false },
  ],
  refreshHintSeconds: 300,
  sequenceNumber: 7n,
}

function base64(der: Uint8Array): string {
  return Buffer.from(der).toString('base64')
}

const JWT_ENTRY = { use: 'jwt-svid', kid: 'a', ...spkiToJwk(KEY) }
const X509_ENTRY = { use: 'x509-svid', ...spkiToJwk(KEY), x5c: [base64(ROOT)] }

function parse(document: unknown): Bundle {
  return parseBundleDocument(TD, typeof document === 'string' ? document : JSON.stringify(document))
}

function verdict(document: unknown): string {
  try {
    parse(document)
    return 'accepted'
  } catch (error) {
    return String((error as { code?: string }).code)
  }
}

describe('keys', () => {
  test.each([
    ['P-256', EC],
    ['P-384', generateKeyPairSync('ec', { namedCurve: 'P-384' })],
    ['P-521', generateKeyPairSync('ec', { namedCurve: 'P-521' })],
    ['RSA', RSA],
  ])('%s there and back, and jose reads it', async (_name, pair) => {
    const jwk = spkiToJwk(spki(pair))
    expect(jwkToSpki(jwk)).toEqual(spki(pair))
    const alg = jwk.kty === 'RSA' ? 'RS256' : 'ES256'
    await importJWK(
      { ...jwk },
      jwk.kty === 'RSA' ? alg : `ES${jwk.crv.slice(2).replace('521', '512')}`,
    )
  })

  test('RSA numbers with a zero byte in front are the same numbers', () => {
    const jwk = spkiToJwk(spki(RSA)) as { n: string; e: string }
    const padded = (text: string) =>
      Buffer.concat([Buffer.alloc(1), Buffer.from(text, 'base64url')]).toString('base64url')
    const key = jwkToSpki({ kty: 'RSA', n: padded(jwk.n), e: padded(jwk.e) })
    expect(key).toEqual(spki(RSA))
  })

  test.each<[string, object]>([
    ['Ed25519', { kty: 'OKP', crv: 'Ed25519', x: 'AAAA' }],
    ['a symmetric type without its key', { kty: 'oct' }],
    ['no type', {}],
    ['an unknown curve', { kty: 'EC', crv: 'secp256k1', x: 'AAAA', y: 'AAAA' }],
    ['type in small letters', { kty: 'ec', crv: 'P-256' }],
  ])('unknown ones are skipped: %s', (_name, jwk) => {
    expect(jwkToSpki(jwk as Parameters<typeof jwkToSpki>[0])).toBeUndefined()
  })

  const { x, y } = spkiToJwk(KEY) as { x: string; y: string }
  const { n } = spkiToJwk(spki(RSA)) as { n: string }
  const small = generateKeyPairSync('rsa', { modulusLength: 512 }).publicKey.export({
    format: 'jwk',
  })
  test.each<[string, object]>([
    ['off the curve', { kty: 'EC', crv: 'P-256', x, y: x }],
    ['the point at infinity', { kty: 'EC', crv: 'P-256', x: 'A'.repeat(43), y: 'A'.repeat(43) }],
    ['a short coordinate', { kty: 'EC', crv: 'P-256', x: x.slice(0, 40), y }],
    ['another curve’s size', { kty: 'EC', crv: 'P-384', x, y }],
    ['no y', { kty: 'EC', crv: 'P-256', x }],
    ['padding', { kty: 'EC', crv: 'P-256', x: `${x}=`, y }],
    ['a number', { kty: 'EC', crv: 'P-256', x: 5, y }],
    ['no curve', { kty: 'EC', x, y }],
    ['private EC', { kty: 'EC', crv: 'P-256', x, y, d: x }],
    ['private RSA', { kty: 'RSA', n, e: 'AQAB', d: n }],
    ['private even when null', { kty: 'RSA', n, e: 'AQAB', p: null }],
    ['symmetric', { kty: 'oct', k: 'AAAA' }],
    ['RSA-512', small],
    ['RSA e = 1', { kty: 'RSA', n, e: 'AQ' }],
    ['RSA even e', { kty: 'RSA', n, e: 'AQAA' }],
    ['RSA huge e', { kty: 'RSA', n, e: n }],
    ['RSA huge n', { kty: 'RSA', n: 'B'.repeat(3000), e: 'AQAB' }],
    ['RSA without n', { kty: 'RSA', e: 'AQAB' }],
  ])('bad ones are refused: %s', (_name, jwk) => {
    expect(() => jwkToSpki(jwk as Parameters<typeof jwkToSpki>[0])).toThrowError(
      expect.objectContaining({ code: 'bad_jwk' }),
    )
  })
})

describe('the document', () => {
  test('has the members SPIRE writes, in a stable order', () => {
    const text = formatBundleDocument(BUNDLE)
    const document = JSON.parse(text)
    expect(text).toBe(JSON.stringify(document, null, 4))
    expect(Object.keys(document)).toEqual(['keys', 'spiffe_sequence', 'spiffe_refresh_hint'])
    expect(document.keys.map((key: object) => Object.keys(key))).toEqual([
      ['use', 'kty', 'n', 'e', 'x5c'],
      ['use', 'kty', 'crv', 'x', 'y', 'x5c'],
      ['use', 'kty', 'kid', 'n', 'e'],
      ['use', 'kty', 'kid', 'crv', 'x', 'y'],
    ])
    expect(document.keys[1].x5c).toEqual([base64(ROOT)])
    expect(document.keys.slice(2).map((key: { kid: string }) => key.kid)).toEqual(['a', 'b'])
  })

  test('comes back as it went out, taint and expiry aside, which it cannot carry', () => {
    const back = parse(formatBundleDocument(BUNDLE))
    expect(back.x509Authorities).toEqual([
      { certificate: RSA_ROOT, tainted: false },
      { certificate: ROOT, tainted: false },
    ])
    expect(back.jwtAuthorities).toEqual([
      { keyId: 'a', publicKey: spki(RSA), expiresAt: 0, tainted: false },
      { keyId: 'b', publicKey: KEY, expiresAt: 0, tainted: false },
    ])
    expect([back.trustDomain, back.sequenceNumber, back.refreshHintSeconds]).toEqual([
      'example.org',
      7n,
      300,
    ])
  })

  test('leaves out what is zero, carries the largest sequence number, takes another hint', () => {
    const empty = { ...BUNDLE, x509Authorities: [], jwtAuthorities: [] }
    const zero = formatBundleDocument({ ...empty, refreshHintSeconds: 0, sequenceNumber: 0n })
    expect(zero).toBe('{\n    "keys": []\n}')
    const large = formatBundleDocument(
      { ...empty, sequenceNumber: 2n ** 64n - 1n },
      { refreshHintSeconds: 60 },
    )
    expect(large).toContain('"spiffe_sequence": 18446744073709551615')
    expect(parse(large)).toMatchObject({ sequenceNumber: 2n ** 64n - 1n, refreshHintSeconds: 60 })
  })

  test.each<[string, object]>([
    ['an unknown use', { keys: [{ ...JWT_ENTRY, use: 'other' }, JWT_ENTRY] }],
    ['no use', { keys: [{ ...JWT_ENTRY, use: undefined }, JWT_ENTRY] }],
    ['a WIT key', { keys: [{ ...JWT_ENTRY, use: 'wit-svid', d: 'x' }, JWT_ENTRY] }],
    ['an unknown kty', { keys: [{ use: 'jwt-svid', kid: 'z', kty: 'OKP' }, JWT_ENTRY] }],
    ['unknown members', { keys: [{ ...JWT_ENTRY, more: [] }], spiffe_other: {} }],
    ['the same key twice', { keys: [JWT_ENTRY, JWT_ENTRY] }],
  ])('is read past %s', (_name, document) => {
    expect(parse(document).jwtAuthorities.map((key) => key.keyId)).toEqual(['a'])
  })

  test('may revoke everything, and may repeat a root', () => {
    expect(parse({ keys: [] })).toMatchObject({ x509Authorities: [], jwtAuthorities: [] })
    expect(parse({ keys: [X509_ENTRY, X509_ENTRY] }).x509Authorities).toHaveLength(1)
  })

  test.each<[string, unknown, string]>([
    ['no JSON', '<html>', 'malformed_json'],
    ['empty', '', 'malformed_json'],
    ['a list', '[]', 'bad_bundle_document'],
    ['no keys', {}, 'bad_bundle_document'],
    ['keys null', { keys: null }, 'bad_bundle_document'],
    ['a key that is a text', { keys: ['x'] }, 'bad_bundle_document'],
    [
      'two certificates',
      { keys: [{ ...X509_ENTRY, x5c: [base64(ROOT), base64(ROOT)] }] },
      'bad_bundle_document',
    ],
    ['no certificate', { keys: [{ ...X509_ENTRY, x5c: [] }] }, 'bad_bundle_document'],
    ['x5c absent', { keys: [{ ...X509_ENTRY, x5c: undefined }] }, 'bad_bundle_document'],
    ['x5c of numbers', { keys: [{ ...X509_ENTRY, x5c: [1] }] }, 'bad_bundle_document'],
    ['a leaf', { keys: [{ ...X509_ENTRY, x5c: [base64(LEAF)] }] }, 'bad_bundle_document'],
    [
      'another key than the certificate’s',
      { keys: [{ ...X509_ENTRY, x5c: [base64(RSA_ROOT)] }] },
      'bad_bundle_document',
    ],
    [
      'bytes after the certificate',
      { keys: [{ ...X509_ENTRY, x5c: [base64(Buffer.concat([ROOT, Buffer.alloc(3)]))] }] },
      'bad_bundle_document',
    ],
    [
      'PEM for DER',
      {
        keys: [
          {
            ...X509_ENTRY,
            x5c: [
              Buffer.from(
                `-----BEGIN CERTIFICATE-----\n${base64(ROOT)}\n-----END CERTIFICATE-----\n`,
              ).toString('base64'),
            ],
          },
        ],
      },
      'bad_bundle_document',
    ],
    [
      'base64url for base64',
      { keys: [{ ...X509_ENTRY, x5c: [Buffer.from(ROOT).toString('base64url')] }] },
      'bad_bundle_document',
    ],
    [
      'a cut certificate',
      { keys: [{ ...X509_ENTRY, x5c: [base64(ROOT.subarray(0, 100))] }] },
      'bad_bundle_document',
    ],
    ['no kid', { keys: [{ ...JWT_ENTRY, kid: undefined }] }, 'bad_bundle_document'],
    ['empty kid', { keys: [{ ...JWT_ENTRY, kid: '' }] }, 'bad_bundle_document'],
    ['long kid', { keys: [{ ...JWT_ENTRY, kid: 'k'.repeat(1025) }] }, 'bad_bundle_document'],
    [
      'one kid for two keys',
      { keys: [JWT_ENTRY, { ...JWT_ENTRY, ...spkiToJwk(spki(RSA)) }] },
      'bad_bundle_document',
    ],
    ['a private key', { keys: [{ ...JWT_ENTRY, d: 'AAAA' }] }, 'bad_jwk'],
    [
      'a weak key',
      { keys: [{ use: 'jwt-svid', kid: 'a', kty: 'RSA', n: 'AQAB', e: 'AQAB' }] },
      'bad_jwk',
    ],
    ['a negative sequence', { keys: [], spiffe_sequence: -1 }, 'bad_bundle_document'],
    ['a sequence with a fraction', { keys: [], spiffe_sequence: 1.5 }, 'bad_bundle_document'],
    [
      'a sequence of 2^64',
      '{"keys":[],"spiffe_sequence":18446744073709551616}',
      'bad_bundle_document',
    ],
    ['a hint that is a text', { keys: [], spiffe_refresh_hint: '1' }, 'bad_bundle_document'],
    ['duplicate members', '{"keys":[],"keys":[]}', 'malformed_json'],
  ])('is refused with %s', (_name, document, code) => {
    expect(verdict(document)).toBe(code)
  })

  test.each([
    [-5, 0],
    [0, 0],
    [1, 1],
    [1e12, 31_622_400],
    ['99999999999999999999', 31_622_400],
  ])('refresh hint %s is read as %i', (hint, expected) => {
    expect(parse(`{"keys":[],"spiffe_refresh_hint":${hint}}`).refreshHintSeconds).toBe(expected)
  })

  test('is bounded in keys and bytes', () => {
    const keys = (count: number) => ({ keys: Array.from({ length: count }, () => JWT_ENTRY) })
    expect(verdict(keys(BUNDLE_KEYS_MAX))).toBe('accepted')
    expect(verdict(keys(BUNDLE_KEYS_MAX + 1))).toBe('bad_bundle_document')
    const padded = (size: number) => '{"keys":[]}'.padEnd(size, ' ')
    expect(verdict(padded(MESSAGE_BYTES_MAX))).toBe('accepted')
    expect(verdict(padded(MESSAGE_BYTES_MAX + 1))).toBe('bad_bundle_document')
  })
})

describe('the workload-facing JWK Set', () => {
  test('has JWT keys alone, without use, sorted by key id', () => {
    const text = formatWorkloadJwks(BUNDLE.jwtAuthorities)
    const document = JSON.parse(text)
    expect(Object.keys(document)).toEqual(['keys'])
    expect(document.keys.map((key: object) => Object.keys(key))).toEqual([
      ['kty', 'kid', 'n', 'e'],
      ['kty', 'kid', 'crv', 'x', 'y'],
    ])
    expect(formatWorkloadJwks(BUNDLE.jwtAuthorities.toReversed())).toBe(text)
  })

  test('leaves out keys that verify no JWT-SVID', () => {
    const spki = { type: 'spki', format: 'der' } as const
    const others = [
      generateKeyPairSync('ed25519').publicKey.export(spki),
      generateKeyPairSync('x25519').publicKey.export(spki),
      generateKeyPairSync('ec', { namedCurve: 'secp256k1' }).publicKey.export(spki),
      generateKeyPairSync('dsa', { modulusLength: 2048 }).publicKey.export(spki),
      Buffer.from('no key'),
    ].map((publicKey, n) => ({ ...BUNDLE.jwtAuthorities[0]!, keyId: `other-${n}`, publicKey }))
    const text = formatWorkloadJwks([...others, ...BUNDLE.jwtAuthorities])
    expect(text).toBe(formatWorkloadJwks(BUNDLE.jwtAuthorities))
  })

  test('is an empty set without keys', () => {
    expect(JSON.parse(formatWorkloadJwks([]))).toEqual({ keys: [] })
  })
})
