/**
 * JSON Web Keys (RFC 7517, RFC 7518 §6) and the workload-facing JWK Set (api.md §9.3). Public keys
 * are DER SubjectPublicKeyInfo everywhere else. Knows RSA and the NIST curves, as SPIFFE does;
 * reads strictly and refuses private members: a bundle that holds a private key is an accident to
 * stop.
 */
import { createPublicKey, type KeyObject } from 'node:crypto'
import { fromBase64Url, toHex } from '../base/bytes.ts'
import { SignetError } from '../base/error.ts'
import type { JwtBundleAuthority } from './bundle.ts'
import type { JsonObject } from './jwks-json.ts'

const COORDINATE_BYTES: Readonly<Record<string, number>> = { 'P-256': 32, 'P-384': 48, 'P-521': 66 }
const PRIVATE_MEMBERS = ['d', 'p', 'q', 'dp', 'dq', 'qi', 'oth', 'k']
/** Keys of less are broken, of more cost verifiers seconds (reliability.md F17, T-S7). */
const RSA_BITS_MIN = 2048
const RSA_BITS_MAX = 8192

/** Key parameters only, in go-jose's order. */
export type JwkParameters =
  | { readonly kty: 'EC'; readonly crv: string; readonly x: string; readonly y: string }
  | { readonly kty: 'RSA'; readonly n: string; readonly e: string }

/** Throws invalid_argument `bad_jwk` for a key that has no place in a bundle. */
export function spkiToJwk(publicKey: Uint8Array): JwkParameters {
  const key = importSpki(publicKey)
  // Of others Node knows no JWK and says so in its own words.
  if (key.asymmetricKeyType !== 'ec' && key.asymmetricKeyType !== 'rsa') {
    throw bad('unsupported key type')
  }
  const { kty, crv, x, y, n, e } = key.export({ format: 'jwk' })
  if (kty === 'EC' && crv && COORDINATE_BYTES[crv] && x && y) return { kty, crv, x, y }
  if (kty === 'RSA' && n && e) return { kty, n, e }
  throw bad('unsupported key type')
}

/** undefined for a `kty` or curve we do not know: readers skip such keys (SPIFFE Bundle §4.2.1). */
export function jwkToSpki(jwk: JsonObject): Uint8Array | undefined {
  for (const name of PRIVATE_MEMBERS) {
    if (Object.hasOwn(jwk, name)) throw bad('key has private members')
  }
  const key = jwk.kty === 'EC' ? importEc(jwk) : jwk.kty === 'RSA' ? importRsa(jwk) : undefined
  return key && new Uint8Array(key.export({ type: 'spki', format: 'der' }))
}

/** For verifiers. Throws invalid_argument `bad_jwk`. */
export function importSpki(publicKey: Uint8Array): KeyObject {
  const { buffer, byteOffset, length } = publicKey
  const key = Buffer.from(buffer, byteOffset, length)
  try {
    return createPublicKey({ key, format: 'der', type: 'spki' })
  } catch {
    throw bad('public key is malformed')
  }
}

/**
 * The JWT bundle as the Workload API hands it out: no `use`, no SPIFFE members.
 *
 * Differs from SPIRE: sorted by key id, so that equal bundles are equal bytes and cause no re-send;
 * and a key that verifies no JWT-SVID is left out, so that one of a peer hides nobody else's.
 */
export function formatWorkloadJwks(authorities: readonly JwtBundleAuthority[]): string {
  const keys = sortByKeyId(authorities).flatMap(({ keyId, publicKey }) => {
    const parameters = knownParameters(publicKey)
    if (parameters === undefined) return []
    const { kty, ...rest } = parameters
    return [{ kty, kid: keyId, ...rest }]
  })
  return JSON.stringify({ keys }, null, 4)
}

function knownParameters(publicKey: Uint8Array): JwkParameters | undefined {
  try {
    return spkiToJwk(publicKey)
  } catch (error) {
    if (error instanceof SignetError) return undefined
    throw error
  }
}

export function sortByKeyId(authorities: readonly JwtBundleAuthority[]): JwtBundleAuthority[] {
  return [...authorities].sort((a, b) => (a.keyId < b.keyId ? -1 : a.keyId > b.keyId ? 1 : 0))
}

function importEc(jwk: JsonObject): KeyObject | undefined {
  const { crv, x, y } = jwk
  if (typeof crv !== 'string') throw bad('EC key without a curve')
  const size = COORDINATE_BYTES[crv]
  if (size === undefined) return undefined
  if (bytesOf(x).length !== size || bytesOf(y).length !== size) {
    throw bad('coordinate has another size than its curve')
  }
  return importJwk({ kty: 'EC', crv, x: x as string, y: y as string })
}

function importRsa(jwk: JsonObject): KeyObject {
  const { n, e } = jwk
  // Some writers put a zero byte in front; the value is what counts.
  const modulus = BigInt(`0x0${toHex(bytesOf(n))}`)
  const exponent = BigInt(`0x0${toHex(bytesOf(e))}`)
  const bits = modulus.toString(2).length
  if (bits < RSA_BITS_MIN || bits > RSA_BITS_MAX || modulus % 2n === 0n) {
    throw bad('RSA modulus is not acceptable')
  }
  if (exponent < 3n || exponent >= 2n ** 32n || exponent % 2n === 0n) {
    throw bad('RSA exponent is not acceptable')
  }
  return importJwk({ kty: 'RSA', n: n as string, e: e as string })
}

/** OpenSSL checks that a point lies on its curve. */
function importJwk(key: JwkParameters): KeyObject {
  try {
    return createPublicKey({ key: { ...key }, format: 'jwk' })
  } catch {
    throw bad('public key is malformed')
  }
}

function bytesOf(value: unknown): Uint8Array {
  const bytes = typeof value === 'string' ? fromBase64Url(value) : undefined
  if (!bytes || bytes.length === 0 || bytes.length > RSA_BITS_MAX / 8 + 1) {
    throw bad('key parameter is missing or not base64url')
  }
  return bytes
}

function bad(message: string): SignetError {
  return new SignetError('invalid_argument', 'bad_jwk', message)
}
