/** The proof of possession of x509pop (features.md §2.2): RSA-PSS or ECDSA over both nonces. */
import { constants, type KeyObject, sign, verify } from 'node:crypto'
import { concatBytes } from '../../../base/bytes.ts'
import { SignetError } from '../../../base/error.ts'
import { type Challenge, type ChallengeResponse, combineNonces } from './payload.ts'

/** By OpenSSL's names of the curves. */
const COORDINATE_BYTES: Readonly<Record<string, number>> = {
  prime256v1: 32,
  secp384r1: 48,
  secp521r1: 66,
}

/** Which proof a key can give; undefined for keys the protocol does not know. */
export function proofKind(key: KeyObject): Challenge['kind'] | undefined {
  if (key.asymmetricKeyType === 'rsa') return 'rsa'
  return key.asymmetricKeyType === 'ec' && coordinateBytes(key) !== undefined ? 'ecdsa' : undefined
}

/** Throws with the texts of SPIRE's plug-in. */
export function provePossession(
  key: KeyObject,
  challenge: Challenge,
  nonce: Uint8Array,
): ChallengeResponse {
  const kind = proofKind(key)
  if (kind === undefined) throw refused('unsupported private key type')
  if (kind !== challenge.kind) throw refused(`expecting ${kind.toUpperCase()} challenge`)
  const message = combineNonces(challenge.nonce, nonce)
  if (kind === 'rsa') {
    const options = { key, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: PSS_SALT_MADE }
    return { kind, nonce, signature: new Uint8Array(sign('sha256', message, options)) }
  }
  const signature = sign('sha256', message, { key, dsaEncoding: 'ieee-p1363' })
  const half = signature.length / 2
  return {
    kind,
    nonce,
    r: withoutLeadingZeros(signature.subarray(0, half)),
    s: withoutLeadingZeros(signature.subarray(half)),
  }
}

/** Throws with the texts of SPIRE's plug-in when the proof does not hold. */
export function checkPossession(
  key: KeyObject,
  challenge: Challenge,
  response: ChallengeResponse,
): void {
  if (response.kind !== challenge.kind) {
    throw refused(`expecting ${challenge.kind.toUpperCase()} response`)
  }
  const message = combineNonces(challenge.nonce, response.nonce)
  if (!holds(key, message, response)) {
    throw refused(`${challenge.kind.toUpperCase()} signature verify failed`)
  }
}

const PSS_SALT_MADE = constants.RSA_PSS_SALTLEN_DIGEST
/** Go makes salts as long as fit; the length is read off the signature. */
const PSS_SALT_TAKEN = constants.RSA_PSS_SALTLEN_AUTO

function holds(key: KeyObject, message: Uint8Array, response: ChallengeResponse): boolean {
  if (response.kind === 'rsa') {
    const options = { key, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: PSS_SALT_TAKEN }
    return verify('sha256', message, options, response.signature)
  }
  const size = coordinateBytes(key) ?? 0
  const r = padded(response.r, size)
  const s = padded(response.s, size)
  if (!r || !s) return false
  return verify('sha256', message, { key, dsaEncoding: 'ieee-p1363' }, concatBytes([r, s]))
}

function coordinateBytes(key: KeyObject): number | undefined {
  return COORDINATE_BYTES[key.asymmetricKeyDetails?.namedCurve ?? '']
}

function withoutLeadingZeros(bytes: Uint8Array): Uint8Array {
  let start = 0
  while (start < bytes.length && bytes[start] === 0) start++
  return new Uint8Array(bytes.subarray(start))
}

/** To the curve's width; undefined when the number is too large for it. */
function padded(magnitude: Uint8Array, size: number): Uint8Array | undefined {
  const bytes = withoutLeadingZeros(magnitude)
  if (bytes.length > size) return undefined
  const out = new Uint8Array(size)
  out.set(bytes, size - bytes.length)
  return out
}

function refused(text: string): SignetError {
  return new SignetError('permission_denied', 'possession_not_proved', text)
}
