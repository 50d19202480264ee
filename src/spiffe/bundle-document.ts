/**
 * The SPIFFE bundle document (SPIFFE Trust Domain and Bundle §4, api.md §9.2): a JWK Set with a
 * sequence number and a refresh hint. Bundle endpoints serve it, federation and `bundle set` read
 * it.
 *
 * Reading is lenient where the standard asks for it (unknown `use`, `kty` and members are skipped)
 * and refuses the whole document where an entry we know is wrong: a bad fetch must not shrink a
 * peer's trust (reliability.md F17). Writing keeps to what the strict readers of SPIRE take.
 */
import { X509Certificate } from 'node:crypto'
import { bytesEqual, toBase64 } from '../base/bytes.ts'
import { SignetError } from '../base/error.ts'
import { BUNDLE_KEYS_MAX, KEY_ID_BYTES_MAX, MESSAGE_BYTES_MAX } from '../base/limits.ts'
import type { Bundle, JwtBundleAuthority, X509BundleAuthority } from './bundle.ts'
import { jwkToSpki, sortByKeyId, spkiToJwk } from './jwks.ts'
import {
  isJsonObject,
  type JsonObject,
  type JsonValue,
  parseJson,
  parseJsonBytes,
} from './jwks-json.ts'
import type { TrustDomain } from './trust-domain.ts'

const USE_X509 = 'x509-svid'
const USE_JWT = 'jwt-svid'
const SEQUENCE_MAX = 2n ** 64n - 1n
/** A year: what a reader makes of the hint is its own affair, but it must fit everywhere. */
const REFRESH_HINT_SECONDS_MAX = 366 * 24 * 3600

/** Throws invalid_argument `bad_bundle_document`, `malformed_json` or `bad_jwk`. */
export function parseBundleDocument(
  trustDomain: TrustDomain,
  document: Uint8Array | string,
): Bundle {
  if (document.length > MESSAGE_BYTES_MAX) throw bad('document is too large')
  const root = typeof document === 'string' ? parseJson(document) : parseJsonBytes(document)
  // Without `keys` it is not a bundle; with an empty list it is one that revokes everything.
  if (!isJsonObject(root) || !Array.isArray(root.keys)) throw bad('document has no list of keys')
  const keys: readonly JsonValue[] = root.keys
  if (keys.length > BUNDLE_KEYS_MAX) throw bad('document has too many keys')
  const x509Authorities: X509BundleAuthority[] = []
  const jwtAuthorities: JwtBundleAuthority[] = []
  for (const [index, jwk] of keys.entries()) {
    if (!isJsonObject(jwk)) throw bad(`key entry ${index} is not an object`)
    if (jwk.use !== USE_X509 && jwk.use !== USE_JWT) continue
    const publicKey = jwkToSpki(jwk)
    if (!publicKey) continue
    if (jwk.use === USE_X509) addX509(x509Authorities, parseX509(jwk, index, publicKey))
    else addJwt(jwtAuthorities, parseJwt(jwk, index, publicKey))
  }
  return {
    trustDomain: trustDomain.name,
    x509Authorities,
    jwtAuthorities,
    refreshHintSeconds: parseRefreshHint(root.spiffe_refresh_hint),
    sequenceNumber: parseSequence(root.spiffe_sequence),
  }
}

/** In the bundle's order of roots and by key id; four spaces of indentation, as SPIRE writes it. */
export function formatBundleDocument(
  bundle: Bundle,
  options: { readonly refreshHintSeconds?: number } = {},
): string {
  const refreshHint = options.refreshHintSeconds ?? bundle.refreshHintSeconds
  const keys = [
    ...bundle.x509Authorities.map(({ certificate }) => formatX509(certificate)),
    ...sortByKeyId(bundle.jwtAuthorities).map(({ keyId, publicKey }) => {
      const { kty, ...parameters } = spkiToJwk(publicKey)
      return { use: USE_JWT, kty, kid: keyId, ...parameters }
    }),
  ]
  const members = [`"keys": ${indent(JSON.stringify(keys, null, 4))}`]
  // Written by hand: a sequence number may be larger than what JSON.stringify can write.
  if (bundle.sequenceNumber !== 0n) members.push(`"spiffe_sequence": ${bundle.sequenceNumber}`)
  if (refreshHint !== 0) members.push(`"spiffe_refresh_hint": ${refreshHint}`)
  return `{\n    ${members.join(',\n    ')}\n}`
}

function indent(json: string): string {
  return json.replaceAll('\n', '\n    ')
}

function formatX509(der: Uint8Array) {
  const { kty, ...parameters } = spkiToJwk(publicKeyOf(parseDer(der, 0)))
  return { use: USE_X509, kty, ...parameters, x5c: [toBase64(der)] }
}

function parseX509(jwk: JsonObject, index: number, publicKey: Uint8Array): Uint8Array {
  const { x5c } = jwk
  const count = Array.isArray(x5c) ? x5c.length : 0
  const [text] = Array.isArray(x5c) ? x5c : []
  if (count !== 1 || typeof text !== 'string') {
    throw bad(`expected a single certificate in x509-svid entry ${index}; got ${count}`)
  }
  const der = Buffer.from(text, 'base64')
  if (der.toString('base64') !== text) throw bad(`x509-svid entry ${index} is not base64`)
  const certificate = parseDer(der, index)
  // A leaf in its place would let its holder sign for the trust domain in lenient verifiers.
  if (!certificate.ca) throw bad(`x509-svid entry ${index} is not a CA certificate`)
  if (!bytesEqual(publicKeyOf(certificate), publicKey)) {
    throw bad(`x509-svid entry ${index} has another key than its certificate`)
  }
  return new Uint8Array(der)
}

function parseJwt(jwk: JsonObject, index: number, publicKey: Uint8Array): JwtBundleAuthority {
  const { kid } = jwk
  if (typeof kid !== 'string' || kid === '') throw bad(`missing key ID in jwt-svid entry ${index}`)
  if (Buffer.byteLength(kid) > KEY_ID_BYTES_MAX) throw bad(`key ID in entry ${index} is too long`)
  return { keyId: kid, publicKey, expiresAt: 0, tainted: false }
}

function addX509(authorities: X509BundleAuthority[], certificate: Uint8Array): void {
  const known = authorities.some((other) => bytesEqual(other.certificate, certificate))
  if (!known) authorities.push({ certificate, tainted: false })
}

/** One key id for two keys would make every verdict depend on which one a reader kept. */
function addJwt(authorities: JwtBundleAuthority[], authority: JwtBundleAuthority): void {
  const known = authorities.find((other) => other.keyId === authority.keyId)
  if (!known) authorities.push(authority)
  else if (!bytesEqual(known.publicKey, authority.publicKey)) {
    throw bad('two jwt-svid entries share a key ID')
  }
}

/** Exactly one DER element: OpenSSL would read the first and ignore what follows. */
function parseDer(der: Uint8Array, index: number): X509Certificate {
  try {
    const certificate = new X509Certificate(der)
    if (bytesEqual(certificate.raw, der)) return certificate
  } catch {
    // Falls through: OpenSSL's text says nothing that helps.
  }
  throw bad(`certificate in entry ${index} is malformed`)
}

function publicKeyOf(certificate: X509Certificate): Uint8Array {
  return certificate.publicKey.export({ type: 'spki', format: 'der' })
}

function parseSequence(value: JsonValue | undefined): bigint {
  if (value === undefined) return 0n
  if (typeof value === 'bigint' || Number.isSafeInteger(value)) {
    const sequence = BigInt(value as number | bigint)
    if (sequence >= 0n && sequence <= SEQUENCE_MAX) return sequence
  }
  throw bad('spiffe_sequence is not an unsigned 64-bit integer')
}

/** Zero and less mean none. */
function parseRefreshHint(value: JsonValue | undefined): number {
  if (value === undefined) return 0
  if (typeof value === 'bigint') return value < 0n ? 0 : REFRESH_HINT_SECONDS_MAX
  if (!Number.isSafeInteger(value)) throw bad('spiffe_refresh_hint is not an integer')
  return Math.min(Math.max(value as number, 0), REFRESH_HINT_SECONDS_MAX)
}

function bad(message: string): SignetError {
  return new SignetError('invalid_argument', 'bad_bundle_document', message)
}
