/** Certificate requests of shapes that no honest client sends. Unsigned ones carry a made-up signature. */
import {
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  randomBytes,
  sign,
} from 'node:crypto'
import {
  contextTag,
  encodeOctetBits,
  encodeOid,
  encodeSmallUnsigned,
  encodeUnsigned,
  sequence,
  setOf,
  tlv,
} from '../../src/x509/der.ts'
import { encodeName } from '../../src/x509/name.ts'

const RSA = sequence(encodeOid('1.2.840.113549.1.1.1'), tlv(0x05))
const RSA_SHA256 = sequence(encodeOid('1.2.840.113549.1.1.11'), tlv(0x05))
const P256 = sequence(encodeOid('1.2.840.10045.2.1'), encodeOid('1.2.840.10045.3.1.7'))
const ECDSA_SHA256 = sequence(encodeOid('1.2.840.10045.4.3.2'))
const EXTENSION_REQUEST = '1.2.840.113549.1.9.14'

export interface Extension {
  readonly oid: string
  readonly critical: boolean
  readonly value: Uint8Array
}

/** An RSA key of `bits` whose modulus nobody can factor, not even us. */
export function rsaSpki(bits: number, exponent: number): Uint8Array {
  const modulus = randomBytes(bits / 8)
  modulus[0]! |= 0x80
  modulus[modulus.length - 1]! |= 1
  const key = sequence(encodeUnsigned(modulus), encodeSmallUnsigned(exponent))
  return sequence(RSA, encodeOctetBits(key))
}

/** A P-256 key whose point lies nowhere on the curve. */
export function offCurveSpki(): Uint8Array {
  const good = p256()
  const spki = new Uint8Array(good.spki)
  spki[spki.length - 1]! ^= 1
  return spki
}

export function p256Spki(point: Uint8Array): Uint8Array {
  return sequence(P256, encodeOctetBits(point))
}

export function p256(): { key: KeyObject; spki: Uint8Array } {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const spki = createPublicKey(privateKey).export({ type: 'spki', format: 'der' })
  return { key: privateKey, spki: new Uint8Array(spki) }
}

/** For keys without a private half: the signature is noise. */
export function unsignedCsr(spki: Uint8Array): Uint8Array {
  const info = requestInfo(spki, [])
  return sequence(info, RSA_SHA256, encodeOctetBits(randomBytes(256)))
}

export function signedCsr(
  pair: { readonly key: KeyObject; readonly spki: Uint8Array },
  extensions: readonly Extension[] = [],
  commonName = '',
): Uint8Array {
  const info = requestInfo(pair.spki, extensions, commonName)
  return sequence(info, ECDSA_SHA256, encodeOctetBits(sign('sha256', info, pair.key)))
}

function requestInfo(
  spki: Uint8Array,
  extensions: readonly Extension[],
  commonName = '',
): Uint8Array {
  const list = extensions.map(({ oid, critical, value }) =>
    sequence(
      encodeOid(oid),
      ...(critical ? [tlv(0x01, Uint8Array.of(0xff))] : []),
      tlv(0x04, value),
    ),
  )
  const attributes =
    list.length === 0 ? [] : [sequence(encodeOid(EXTENSION_REQUEST), setOf([sequence(...list)]))]
  return sequence(
    encodeSmallUnsigned(0),
    encodeName(commonName === '' ? {} : { commonName: [commonName] }),
    spki,
    tlv(contextTag(0, true), ...attributes),
  )
}

/** Everything by which a request could try to become more than a workload. */
export function greedyExtensions(uri: string, dns: string): Extension[] {
  const text = (value: string) => new TextEncoder().encode(value)
  const names = sequence(tlv(0x86, text(uri)), tlv(0x82, text(dns)))
  return [
    // basicConstraints CA:TRUE
    { oid: '2.5.29.19', critical: true, value: sequence(tlv(0x01, Uint8Array.of(0xff))) },
    // keyUsage keyCertSign | cRLSign
    { oid: '2.5.29.15', critical: true, value: tlv(0x03, Uint8Array.of(1, 0x06)) },
    { oid: '2.5.29.17', critical: true, value: names },
    // extKeyUsage any
    { oid: '2.5.29.37', critical: false, value: sequence(encodeOid('2.5.29.37.0')) },
    // nameConstraints, empty, and one nobody knows
    { oid: '2.5.29.30', critical: true, value: sequence() },
    { oid: '1.3.6.1.4.1.99999.1', critical: true, value: tlv(0x05) },
  ]
}
