/**
 * SubjectPublicKeyInfo (RFC 5280 §4.1.2.7): which key it is, and the policy a key must meet before
 * anybody does arithmetic with it (reliability.md T-S7: huge or degenerate RSA keys cost seconds).
 *
 * Whether an EC point lies on its curve is left to `importPublicKey` and to the signer's
 * proof-of-possession check, which both go through OpenSSL: no key reaches a certificate without
 * one.
 */
import { createPublicKey, hash, type KeyObject } from 'node:crypto'
import { SignetError } from '../base/error.ts'
import {
  type DerCursor,
  derCursor,
  enter,
  expectEnd,
  malformed,
  peekTag,
  readContent,
  readOctetBits,
  readOid,
  readUnsigned,
  TAG,
} from './der.ts'
import { CURVES, type CurveKeyType, OID } from './oid.ts'

export type PublicKeyType = CurveKeyType | 'ed25519' | 'rsa'

export interface PublicKeyInfo {
  readonly type: PublicKeyType
  /** Field size of a curve, length of an RSA modulus. */
  readonly bits: number
}

export interface KeyPolicy {
  readonly rsaBitsMin: number
  readonly rsaBitsMax: number
  /** `f4`: 65537 alone. `odd`: any odd exponent from 3 to 2³²−1, which old PKIs use. */
  readonly rsaExponent: 'f4' | 'odd'
}

/**
 * What a CSR may ask a certificate for.
 *
 * Differs from SPIRE: it signs RSA keys of any size and exponent; an RSA-16384 key then costs every
 * relying party, and e = 1 lets anybody forge the holder's signatures.
 */
const CSR_KEY_POLICY: KeyPolicy = { rsaBitsMin: 2048, rsaBitsMax: 4096, rsaExponent: 'f4' }

/**
 * Certificates of foreign PKIs (x509pop): SPIRE's default bound, its configuration may narrow it.
 */
export const FOREIGN_KEY_POLICY: KeyPolicy = {
  rsaBitsMin: 1024,
  rsaBitsMax: 8192,
  rsaExponent: 'odd',
}

const P256_PREFIX = Buffer.from('3059301306072a8648ce3d020106082a8648ce3d03010703420004', 'hex')
const P256_BYTES = 91
const P256_INFO: PublicKeyInfo = { type: 'ec-p256', bits: 256 }

/** Product of the odd primes below 752, as Boulder's goodkey: such a factor marks a broken key. */
const SMALL_PRIMES_PRODUCT = smallPrimesProduct(752)

/**
 * Throws invalid_argument: `malformed_der` for what is no key we know, `weak_key` by the policy.
 */
export function parsePublicKey(
  spki: Uint8Array,
  policy: KeyPolicy = CSR_KEY_POLICY,
): PublicKeyInfo {
  if (spki.length === P256_BYTES && P256_PREFIX.compare(spki, 0, P256_PREFIX.length) === 0) {
    return P256_INFO
  }
  const outer = derCursor(spki)
  const body = enter(outer, TAG.sequence)
  expectEnd(outer)
  const algorithm = enter(body, TAG.sequence)
  const oid = readOid(algorithm)
  switch (oid) {
    case OID.ecPublicKey:
      return parseEcKey(algorithm, body)
    case OID.rsaEncryption:
      return parseRsaKey(algorithm, body, policy)
    case OID.ed25519:
      expectEnd(algorithm)
      if (readOctetBits(body).length !== 32) throw malformed('Ed25519 key is not 32 bytes')
      expectEnd(body)
      return { type: 'ed25519', bits: 256 }
    default:
      throw new SignetError('invalid_argument', 'unknown_key_type', 'unknown public key algorithm')
  }
}

/**
 * The key as node:crypto's object; malformed_der when OpenSSL refuses it (a point off its curve).
 */
export function importPublicKey(spki: Uint8Array): KeyObject {
  try {
    return createPublicKey({ key: asBuffer(spki), format: 'der', type: 'spki' })
  } catch (cause) {
    const error = malformed('public key is not usable')
    error.cause = cause
    throw error
  }
}

/**
 * SHA-256 of the SubjectPublicKeyInfo: what the ledger keeps. By way of a string, whose bytes come
 * from Node's pool: an ArrayBuffer of its own for each certificate costs more than the copy.
 */
export function publicKeySha256(spki: Uint8Array): Uint8Array {
  return Buffer.from(hash('sha256', spki, 'latin1'), 'latin1')
}

/**
 * Key identifier: the leftmost 160 bits of SHA-256 of the whole SubjectPublicKeyInfo (RFC 7093 §2,
 * method 4 shortened to 160 bits; method 1 would hash the bit string alone). One hash then serves
 * the ledger and the identifier.
 *
 * Differs from SPIRE: it takes SHA-1 of the bit string. Relying parties compare identifiers, they
 * do not recompute them (RFC 5280 §4.2.1.2).
 */
export function subjectKeyId(spki: Uint8Array): Uint8Array {
  return publicKeySha256(spki).subarray(0, 20)
}

function parseEcKey(algorithm: DerCursor, body: DerCursor): PublicKeyInfo {
  // Named curves alone: explicit parameters let the sender choose the group (CVE-2020-0601).
  if (peekTag(algorithm) !== TAG.oid) throw malformed('EC key without a named curve')
  const curveOid = readOid(algorithm)
  expectEnd(algorithm)
  const point = readOctetBits(body)
  expectEnd(body)
  for (const [type, curve] of Object.entries(CURVES)) {
    if (curve.oid !== curveOid) continue
    if (point.length !== 1 + 2 * curve.coordinateBytes || point[0] !== 0x04) {
      throw malformed('EC point is not in uncompressed form')
    }
    return { type: type as CurveKeyType, bits: curve.bits }
  }
  throw new SignetError('invalid_argument', 'unknown_key_type', 'unsupported elliptic curve')
}

function parseRsaKey(algorithm: DerCursor, body: DerCursor, policy: KeyPolicy): PublicKeyInfo {
  if (readContent(algorithm, TAG.null).length !== 0) throw malformed('bad RSA parameters')
  expectEnd(algorithm)
  const bitsContent = derCursor(readOctetBits(body))
  expectEnd(body)
  const key = enter(bitsContent, TAG.sequence)
  expectEnd(bitsContent)
  const modulus = readUnsigned(key)
  const exponent = readUnsigned(key)
  expectEnd(key)
  const bits = modulus.length * 8 - Math.clz32(modulus[0]!) + 24
  if (bits > policy.rsaBitsMax) throw weak(`RSA key of ${bits} bits is too large`)
  if (bits < policy.rsaBitsMin) throw weak(`RSA key of ${bits} bits is too small`)
  checkExponent(exponent, policy)
  if ((modulus[modulus.length - 1]! & 1) === 0) throw weak('RSA modulus is even')
  const n = BigInt(`0x${Buffer.from(modulus).toString('hex')}`)
  if (gcd(SMALL_PRIMES_PRODUCT, n % SMALL_PRIMES_PRODUCT) !== 1n) {
    throw weak('RSA modulus has a small factor')
  }
  return { type: 'rsa', bits }
}

function checkExponent(exponent: Uint8Array, policy: KeyPolicy): void {
  const isF4 = exponent.length === 3 && exponent[0] === 1 && exponent[1] === 0 && exponent[2] === 1
  if (isF4) return
  if (policy.rsaExponent === 'f4') throw weak('RSA exponent is not 65537')
  const last = exponent[exponent.length - 1]!
  const tooSmall = exponent.length === 1 && last < 3
  if (exponent.length > 4 || tooSmall || (last & 1) === 0) throw weak('bad RSA exponent')
}

function weak(text: string): SignetError {
  return new SignetError('invalid_argument', 'weak_key', text)
}

function gcd(a: bigint, b: bigint): bigint {
  let [x, y] = [a, b]
  while (y !== 0n) [x, y] = [y, x % y]
  return x
}

function smallPrimesProduct(limit: number): bigint {
  let product = 1n
  for (let n = 3; n < limit; n += 2) {
    let prime = true
    for (let d = 3; d * d <= n; d += 2) if (n % d === 0) prime = false
    if (prime) product *= BigInt(n)
  }
  return product
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}
