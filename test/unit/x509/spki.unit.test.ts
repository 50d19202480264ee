import { createHash } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import {
  encodeOctetBits,
  encodeOid,
  encodeUnsigned,
  sequence,
  TAG,
  tlv,
} from '../../../src/x509/der.ts'
import { CURVES, OID } from '../../../src/x509/oid.ts'
import {
  FOREIGN_KEY_POLICY,
  importPublicKey,
  parsePublicKey,
  subjectKeyId,
} from '../../../src/x509/spki.ts'
import { newKey } from '../../rigs/issuing.ts'

const NULL = tlv(TAG.null)

function ecKey(curveOid: string, point: Uint8Array): Uint8Array {
  return sequence(sequence(encodeOid(OID.ecPublicKey), encodeOid(curveOid)), encodeOctetBits(point))
}

function rsaKey(modulus: Uint8Array, exponent: Uint8Array): Uint8Array {
  const key = sequence(encodeUnsigned(modulus), encodeUnsigned(exponent))
  return sequence(sequence(encodeOid(OID.rsaEncryption), NULL), encodeOctetBits(key))
}

/**
 * Right in size and parity; what its factors are does not matter where it is refused for its size.
 */
function modulus(bits: number, last = 0xff): Uint8Array {
  const bytes = new Uint8Array(bits / 8).fill(0xc3)
  bytes[bytes.length - 1] = last
  return bytes
}

/** Without small factors: the moduli of real keys multiplied. */
function soundModulus(factors: number): Uint8Array {
  let product = 1n
  for (let i = 0; i < factors; i++) {
    const source = newKey('rsa-2048').publicKey
    product *= BigInt(`0x${Buffer.from(source.slice(-5 - 256, -5)).toString('hex')}`)
  }
  const hex = product.toString(16)
  return new Uint8Array(Buffer.from(hex.length % 2 === 0 ? hex : `0${hex}`, 'hex'))
}

const F4 = Uint8Array.of(1, 0, 1)

describe('keys that are known', () => {
  test.each([
    ['ec-p256', 'ec-p256', 256],
    ['ec-p384', 'ec-p384', 384],
    ['ec-p521', 'ec-p521', 521],
    ['ed25519', 'ed25519', 256],
    ['rsa-2048', 'rsa', 2048],
    ['rsa-4096', 'rsa', 4096],
  ] as const)('%s', (made, type, bits) => {
    const { publicKey } = newKey(made)
    expect(parsePublicKey(publicKey)).toEqual({ type, bits })
    expect(importPublicKey(publicKey).type).toBe('public')
  })
})

describe('keys that are refused before any arithmetic', () => {
  const weak = 'weak_key'
  const malformed = 'malformed_der'
  const unknown = 'unknown_key_type'
  test.each([
    ['RSA-1024', rsaKey(modulus(1024), F4), weak],
    ['RSA-8192', rsaKey(modulus(8192), F4), weak],
    ['RSA-16384', rsaKey(modulus(16_384), F4), weak],
    ['e = 1', rsaKey(modulus(2048), Uint8Array.of(1)), weak],
    ['e = 3', rsaKey(modulus(2048), Uint8Array.of(3)), weak],
    ['even e', rsaKey(modulus(2048), Uint8Array.of(1, 0, 0)), weak],
    ['huge e', rsaKey(modulus(2048), modulus(2048)), weak],
    ['an even modulus', rsaKey(modulus(2048, 0xfe), F4), weak],
    ['a modulus with factor 3', rsaKey(new Uint8Array(256).fill(0xff), F4), weak],
    ['a zero modulus', rsaKey(Uint8Array.of(0), F4), weak],
    ['a compressed point', ecKey(CURVES['ec-p256'].oid, new Uint8Array(33).fill(2)), malformed],
    ['the point at infinity', ecKey(CURVES['ec-p256'].oid, Uint8Array.of(0)), malformed],
    ['a short point', ecKey(CURVES['ec-p384'].oid, new Uint8Array(65).fill(4)), malformed],
    ['secp256k1', ecKey('1.3.132.0.10', new Uint8Array(65).fill(4)), unknown],
    [
      'explicit curve parameters',
      sequence(sequence(encodeOid(OID.ecPublicKey), sequence()), encodeOctetBits(F4)),
      malformed,
    ],
    ['X25519', sequence(sequence(encodeOid('1.3.101.110')), encodeOctetBits(F4)), unknown],
    [
      'a short Ed25519 key',
      sequence(sequence(encodeOid(OID.ed25519)), encodeOctetBits(new Uint8Array(31))),
      malformed,
    ],
    ['trailing data', new Uint8Array([...newKey().publicKey, 0]), malformed],
    ['RSA without parameters', sequence(sequence(encodeOid(OID.rsaEncryption)), NULL), malformed],
  ])('%s', (_name, spki, code) => {
    const started = process.cpuUsage()
    expect(() => parsePublicKey(spki)).toThrow(
      expect.objectContaining({ kind: 'invalid_argument', code }),
    )
    // T-S7: at most 2 ms of CPU per rejected request; the rest is the test runner's.
    expect(process.cpuUsage(started).user).toBeLessThan(50_000)
  })

  test('a point off its curve is refused by the import', () => {
    const { publicKey } = newKey()
    const off = publicKey.slice()
    off[off.length - 1] = off[off.length - 1]! ^ 1
    expect(() => importPublicKey(off)).toThrow(expect.objectContaining({ code: 'malformed_der' }))
  })
})

test('foreign PKIs may use old exponents and larger keys', () => {
  const bits = parsePublicKey(rsaKey(soundModulus(4), F4), FOREIGN_KEY_POLICY).bits
  expect(bits).toBeGreaterThan(8188)
  expect(() => parsePublicKey(rsaKey(modulus(8200), F4), FOREIGN_KEY_POLICY)).toThrow(
    expect.objectContaining({ code: 'weak_key' }),
  )
  const sound = soundModulus(1)
  const three = rsaKey(sound, Uint8Array.of(3))
  expect(parsePublicKey(three, FOREIGN_KEY_POLICY).bits).toBe(2048)
  for (const exponent of [Uint8Array.of(1), Uint8Array.of(2), new Uint8Array(5).fill(0xff)]) {
    expect(() => parsePublicKey(rsaKey(sound, exponent), FOREIGN_KEY_POLICY)).toThrow(
      expect.objectContaining({ code: 'weak_key' }),
    )
  }
})

test('the key identifier is the leftmost 160 bits of SHA-256 of the SubjectPublicKeyInfo', () => {
  const { publicKey } = newKey()
  const digest = createHash('sha256').update(publicKey).digest()
  expect(Buffer.from(subjectKeyId(publicKey))).toEqual(digest.subarray(0, 20))
})
