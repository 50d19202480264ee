import { generateKeyPairSync, type KeyObject } from 'node:crypto'
import { rootCertificates } from 'node:tls'
import { describe, expect, test } from 'vitest'
import type { Bundle } from '../../../src/spiffe/bundle.ts'
import {
  bundleFromProto,
  bundleFromTrustedProto,
  bundlePatchFromProto,
  bundleToProto,
} from '../../../src/wire/convert/bundle.ts'
import { BundleMask } from '../../../src/wire/gen/spire/api/types/bundle.ts'

/** Two roots of the public web: any valid certificates serve. */
const [CERTIFICATE, OTHER] = rootCertificates.slice(0, 2).map(derOfPem) as [Uint8Array, Uint8Array]
const PUBLIC_KEY = new Uint8Array(
  generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey.export({
    format: 'der',
    type: 'spki',
  }),
)

const BUNDLE: Bundle = {
  trustDomain: 'example.org',
  x509Authorities: [{ certificate: CERTIFICATE, tainted: true }],
  jwtAuthorities: [{ keyId: 'kid', publicKey: PUBLIC_KEY, expiresAt: 5, tainted: true }],
  refreshHintSeconds: 300,
  sequenceNumber: 2n ** 63n,
}

describe('bundles', () => {
  test('taint is shown, but never taken from a caller', () => {
    const proto = bundleToProto(BUNDLE)
    expect(proto.x509Authorities[0]?.tainted).toBe(true)
    expect(bundleFromTrustedProto(proto)).toEqual(BUNDLE)
    const plain = bundleFromProto(proto)
    expect(plain.x509Authorities[0]?.tainted).toBe(false)
    expect(plain.jwtAuthorities[0]?.tainted).toBe(false)
  })

  test('several certificates in one element become several authorities', () => {
    const asn1 = Buffer.concat([CERTIFICATE, OTHER])
    const proto = { ...bundleToProto(BUNDLE), x509Authorities: [{ asn1, tainted: false }] }
    const certificates = bundleFromProto(proto).x509Authorities.map((a) => a.certificate)
    expect(certificates).toEqual([CERTIFICATE, OTHER])
  })

  const whole = bundleToProto(BUNDLE)
  test.each(Object.keys(BundleMask.create()) as (keyof BundleMask)[])('mask of %s', (bit) => {
    const none = bundleToProto(BUNDLE, BundleMask.create())
    expect(none.trustDomain).toBe('example.org')
    const masked = bundleToProto(BUNDLE, { ...BundleMask.create(), [bit]: true })
    expect(masked).toEqual({ ...none, [bit]: whole[bit] })
  })

  test('an input mask takes only what it names', () => {
    const mask = BundleMask.create({ refreshHint: true, witAuthorities: true })
    expect(bundlePatchFromProto(whole, mask)).toEqual({
      trustDomain: 'example.org',
      refreshHintSeconds: 300,
    })
    expect(Object.keys(bundlePatchFromProto(whole, undefined))).toHaveLength(5)
  })

  test.each([
    [{ trustDomain: '' }, 'invalid trust domain: trust domain is missing'],
    [x509(new Uint8Array(0)), 'unable to parse X.509 authority: malformed certificate'],
    [x509(Uint8Array.of(0x30, 0)), /^unable to parse X.509 authority: malformed DER/],
    [x509(CERTIFICATE.subarray(1)), /^unable to parse X.509 authority: malformed DER/],
    [x509(Buffer.concat([CERTIFICATE, Buffer.of(0)])), /^unable to parse X.509 authority: /],
    [jwt({ publicKey: Uint8Array.of(1) }), 'unable to parse JWT authority: malformed public key'],
    [jwt({ keyId: '' }), 'unable to parse JWT authority: missing key ID'],
    [{ refreshHint: 2n ** 60n }, 'refresh hint is out of range'],
  ])('refused: %#', (change, text) => {
    expect(() => bundleFromProto({ ...whole, ...change })).toThrow(text)
    expect(() => bundleFromProto({ ...whole, ...change })).toThrow(
      expect.objectContaining({ kind: 'invalid_argument' }),
    )
  })

  /** SPIRE's agents refuse a bundle as a whole that holds a key which Go can't read. */
  test.each([
    ['rsa', { modulusLength: 1024 }],
    ['rsa', { modulusLength: 2048, publicExponent: 3 }],
    ['ec', { namedCurve: 'P-224' }],
    ['ec', { namedCurve: 'P-384' }],
    ['ec', { namedCurve: 'P-521' }],
    ['ed25519', {}],
    ['x25519', {}],
    ['dsa', { modulusLength: 1024, divisorLength: 160 }],
  ])('a JWT authority may be %s %o, as in SPIRE', (type, options) => {
    const publicKey = spkiOf(type, options)
    expect(bundleFromProto({ ...whole, ...jwt({ publicKey }) }).jwtAuthorities).toHaveLength(1)
  })

  const compressed = Buffer.concat([
    Buffer.from('3039301306072a8648ce3d020106082a8648ce3d030107032200', 'hex'),
    Buffer.of(2 + (PUBLIC_KEY[90]! & 1)),
    PUBLIC_KEY.subarray(27, 59),
  ])
  test.each([
    ['secp256k1', spkiOf('ec', { namedCurve: 'secp256k1' }), 'unsupported elliptic curve'],
    ['Ed448', spkiOf('ed448', {}), 'unknown public key algorithm'],
    ['RSA-PSS', spkiOf('rsa-pss', { modulusLength: 2048 }), 'unknown public key algorithm'],
    [
      'explicit parameters',
      spkiOf('ec', { namedCurve: 'P-256', paramEncoding: 'explicit' }),
      'malformed public key',
    ],
    ['a compressed point', compressed, 'malformed public key'],
    ['trailing data', Buffer.concat([PUBLIC_KEY, Buffer.of(0)]), 'malformed public key'],
  ])('a JWT authority may not be %s', (_, publicKey, text) => {
    const read = () => bundleFromProto({ ...whole, ...jwt({ publicKey }) })
    expect(read).toThrow(`unable to parse JWT authority: ${text}`)
  })

  test('what is kept does not hold the message it came in', () => {
    const message = Buffer.concat([Buffer.alloc(1 << 16), CERTIFICATE])
    const proto = { ...whole, ...x509(message.subarray(1 << 16)) }
    const [authority] = bundleFromProto(proto).x509Authorities
    expect(authority?.certificate.buffer.byteLength).toBe(CERTIFICATE.length)
  })
})

function spkiOf(type: string, options: object): Uint8Array {
  const make = generateKeyPairSync as unknown as (
    type: string,
    options: object,
  ) => { publicKey: KeyObject }
  return make(type, options).publicKey.export({ format: 'der', type: 'spki' })
}

function x509(asn1: Uint8Array) {
  return { x509Authorities: [{ asn1, tainted: false }] }
}

function jwt(change: { publicKey?: Uint8Array; keyId?: string }) {
  const key = { publicKey: PUBLIC_KEY, keyId: 'kid', expiresAt: 0n, tainted: false, ...change }
  return { jwtAuthorities: [key] }
}

function derOfPem(pem: string): Uint8Array {
  return new Uint8Array(Buffer.from(pem.replace(/-----[^-]+-----|\s/g, ''), 'base64'))
}
