/**
 * Validates JWT-SVIDs (JWT-SVID §3–§4, RFC 7515, RFC 7519) against the keys of a bundle. The texts
 * are SPIRE's agent's: ValidateJWTSVID sends them to workloads.
 *
 * On node:crypto rather than jose: a synchronous verification costs 65 µs where WebCrypto, which
 * jose is built on, takes 79–91 (spec/signing.md §1), and the parser must be ours anyway: jose
 * accepts duplicate member names. Tests use jose as the second opinion.
 *
 * Differs from SPIRE: refuses what two readers could read differently (white space, stray base64
 * bits, duplicate names, JWS in JSON form), RSA keys under 2048 bits and any `crit`.
 */
import { constants, type KeyObject, verify } from 'node:crypto'
import { fromBase64Url } from '../base/bytes.ts'
import { SignetError } from '../base/error.ts'
import { JWT_SVID_BYTES_MAX } from '../base/limits.ts'
import type { EpochSeconds } from '../base/ports.ts'
import { isJsonObject, type JsonObject, type JsonValue, parseJsonBytes } from './jwks-json.ts'
import { SpiffeId } from './spiffe-id.ts'

/** go-jose's default, which SPIRE relies on. */
const LEEWAY_SECONDS = 60
const RSA_BITS_MIN = 2048
/** Of an error's text: names, and characters of each. */
const QUOTED_MAX = 8
const QUOTED_CHARS_MAX = 256

interface Algorithm {
  readonly hash: 'sha256' | 'sha384' | 'sha512'
  readonly family: 'RS' | 'PS' | 'ES'
  /** Of the one curve that goes with it (RFC 7518 §3.4), as OpenSSL calls it. */
  readonly curve?: string
  readonly signatureBytes?: number
}

/** The key decides nothing and the token nothing alone: algorithm and key must agree. */
const ALGORITHMS: ReadonlyMap<string, Algorithm> = new Map<string, Algorithm>([
  ['RS256', { hash: 'sha256', family: 'RS' }],
  ['RS384', { hash: 'sha384', family: 'RS' }],
  ['RS512', { hash: 'sha512', family: 'RS' }],
  ['PS256', { hash: 'sha256', family: 'PS' }],
  ['PS384', { hash: 'sha384', family: 'PS' }],
  ['PS512', { hash: 'sha512', family: 'PS' }],
  ['ES256', { hash: 'sha256', family: 'ES', curve: 'prime256v1', signatureBytes: 64 }],
  ['ES384', { hash: 'sha384', family: 'ES', curve: 'secp384r1', signatureBytes: 96 }],
  ['ES512', { hash: 'sha512', family: 'ES', curve: 'secp521r1', signatureBytes: 132 }],
])

export interface JwtSvid {
  readonly spiffeId: SpiffeId
  readonly audience: readonly string[]
  readonly expiresAt: EpochSeconds
  /** All claims; `aud` is always a list. */
  readonly claims: JsonObject
}

export interface JwtValidation {
  /** The token must name one of them. */
  readonly audience: readonly string[]
  readonly now: EpochSeconds
  /** Keys by key id, of the trust domain with this name; undefined when it is not trusted. */
  readonly keysOf: (trustDomain: string) => ReadonlyMap<string, KeyObject> | undefined
}

/** Throws invalid_argument, each cause with its own code. */
export function validateJwtSvid(token: string, validation: JwtValidation): JwtSvid {
  const { header, claims, signingInput, signature } = parseToken(token)
  const algorithm = ALGORITHMS.get(text(header.alg) ?? '')
  if (!algorithm) throw invalid('jwt_bad_algorithm', 'unexpected signature algorithm')
  checkHeader(header)
  const subject = text(claims.sub)
  if (!subject) throw invalid('jwt_no_subject', 'token missing subject claim')
  if (claims.exp === undefined) throw invalid('jwt_no_expiry', 'token missing exp claim')
  const spiffeId = parseSubject(subject)
  const key = findKey(validation, spiffeId.trustDomain.name, text(header.kid)!)
  if (!verifies(algorithm, key, signingInput, signature)) {
    throw invalid('jwt_bad_signature', 'token signature is invalid')
  }
  const audience = parseAudience(claims.aud)
  const expiresAt = checkClaims(claims, audience, validation)
  return { spiffeId, audience, expiresAt, claims: { ...claims, aud: audience } }
}

interface ParsedToken {
  readonly header: JsonObject
  readonly claims: JsonObject
  readonly signingInput: string
  readonly signature: Uint8Array
}

/** Compact form alone (JWT-SVID §2), every part in canonical base64url. */
function parseToken(token: string): ParsedToken {
  if (token.length > JWT_SVID_BYTES_MAX) throw unparsable('too large')
  const parts = token.split('.')
  const [header, claims, signature] = parts.map(fromBase64Url)
  if (parts.length !== 3 || !header || !claims || !signature) {
    throw unparsable('compact JWS format must have three parts of base64url')
  }
  return {
    header: parsePart(header),
    claims: parsePart(claims),
    signingInput: token.slice(0, token.lastIndexOf('.')),
    signature,
  }
}

function parsePart(bytes: Uint8Array): JsonObject {
  let value: JsonValue
  try {
    value = parseJsonBytes(bytes)
  } catch (error) {
    throw unparsable(error instanceof SignetError ? error.message : 'malformed JSON')
  }
  if (!isJsonObject(value)) throw unparsable('part is not a JSON object')
  return value
}

/** Keys that a header offers (jwk, x5c, jku, x5u) are never looked at. */
function checkHeader(header: JsonObject): void {
  if (header.crit !== undefined || header.b64 !== undefined) {
    throw invalid('jwt_critical_header', 'unsupported critical header')
  }
  if (!text(header.kid)) throw invalid('jwt_no_key_id', 'token header missing key id')
  if (header.typ !== undefined && header.typ !== 'JWT' && header.typ !== 'JOSE') {
    throw invalid('jwt_bad_type', 'token header type not equal to either JWT or JOSE')
  }
}

function parseSubject(subject: string): SpiffeId {
  try {
    return SpiffeId.parse(subject)
  } catch (cause) {
    const reason = cause instanceof SignetError ? cause.message : 'malformed'
    // `has in invalid` is how SPIRE spells it.
    throw invalid('jwt_bad_subject', `token has in invalid subject claim: ${reason}`)
  }
}

function findKey(validation: JwtValidation, trustDomain: string, keyId: string): KeyObject {
  const keys = validation.keysOf(trustDomain)
  if (!keys) {
    throw invalid('jwt_untrusted_domain', `no keys found for trust domain ${quote(trustDomain)}`)
  }
  const key = keys.get(keyId)
  if (!key) {
    throw invalid(
      'jwt_unknown_key',
      `public key ${quote(keyId)} not found in trust domain ${quote(trustDomain)}`,
    )
  }
  return key
}

function verifies(
  algorithm: Algorithm,
  key: KeyObject,
  signingInput: string,
  signature: Uint8Array,
): boolean {
  const input = Buffer.from(signingInput, 'latin1')
  const { asymmetricKeyType: type, asymmetricKeyDetails: details } = key
  if (algorithm.family === 'ES') {
    if (type !== 'ec' || details?.namedCurve !== algorithm.curve) return false
    // DER or any other length is refused before OpenSSL sees it (CVE-2022-21449 is about r = s = 0,
    // which OpenSSL refuses).
    if (signature.length !== algorithm.signatureBytes) return false
    return verify(algorithm.hash, input, { key, dsaEncoding: 'ieee-p1363' }, signature)
  }
  if (type !== 'rsa' || (details?.modulusLength ?? 0) < RSA_BITS_MIN) return false
  if (algorithm.family === 'RS') return verify(algorithm.hash, input, key, signature)
  const padding = constants.RSA_PKCS1_PSS_PADDING
  const saltLength = constants.RSA_PSS_SALTLEN_DIGEST
  return verify(algorithm.hash, input, { key, padding, saltLength }, signature)
}

/** RFC 7519 §4.1.3: a text or a list of texts. */
function parseAudience(aud: JsonValue | undefined): string[] {
  if (aud === undefined) return []
  if (typeof aud === 'string') return [aud]
  if (Array.isArray(aud) && aud.every((value) => typeof value === 'string')) return aud
  throw invalid('jwt_bad_claims', 'token aud claim is not a text or a list of texts')
}

/** In go-jose's order; returns `exp`. */
function checkClaims(
  claims: JsonObject,
  audience: readonly string[],
  { audience: expected, now }: JwtValidation,
): EpochSeconds {
  const expiresAt = numericDate(claims.exp, 'exp')
  const notBefore = claims.nbf === undefined ? undefined : numericDate(claims.nbf, 'nbf')
  const issuedAt = claims.iat === undefined ? undefined : numericDate(claims.iat, 'iat')
  if (!expected.some((name) => audience.includes(name))) {
    throw invalid(
      'jwt_bad_audience',
      `expected audience in ${quoteList(expected)} (audience=${quoteList(audience)})`,
    )
  }
  if (notBefore !== undefined && now + LEEWAY_SECONDS < notBefore) {
    throw invalid('jwt_not_yet_valid', 'token not valid yet (nbf)')
  }
  if (now - LEEWAY_SECONDS > expiresAt) throw invalid('jwt_expired', 'token has expired')
  if (issuedAt !== undefined && now + LEEWAY_SECONDS < issuedAt) {
    throw invalid('jwt_issued_in_future', 'token issued in the future (iat)')
  }
  return expiresAt
}

/** RFC 7519 §2: fractions are allowed; whole seconds count, as in SPIRE. */
function numericDate(value: JsonValue | undefined, name: string): EpochSeconds {
  const seconds = typeof value === 'number' ? Math.trunc(value) : Number.NaN
  if (!Number.isSafeInteger(seconds) || seconds < 0) {
    throw invalid('jwt_bad_claims', `token ${name} claim is not a time`)
  }
  return seconds
}

function text(value: JsonValue | undefined): string | undefined {
  return typeof value === 'string' ? value : undefined
}

/** Close enough to Go's %q for what reaches it; bounded, as the text travels in a header. */
function quote(value: string): string {
  return JSON.stringify(
    value.length > QUOTED_CHARS_MAX ? `${value.slice(0, QUOTED_CHARS_MAX)}…` : value,
  )
}

function quoteList(values: readonly string[]): string {
  const shown = values.slice(0, QUOTED_MAX).map(quote)
  return `[${shown.join(' ')}${values.length > QUOTED_MAX ? ' …' : ''}]`
}

function unparsable(reason: string): SignetError {
  return invalid('jwt_malformed', `unable to parse JWT token: ${reason}`)
}

function invalid(code: string, message: string): SignetError {
  return new SignetError('invalid_argument', code, message)
}
