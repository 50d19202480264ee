/**
 * The messages of the `x509pop` node attestor (features.md §2.2): JSON as Go writes and reads it,
 * i.e. byte strings in padded base64 and keys matched without regard to case; and the digest both
 * sides sign.
 */
import { SignetError } from '../../../base/error.ts'

export const NONCE_BYTES = 32
export const X509POP = 'x509pop'

/** Which proof the server asks for. Go writes the other one as null. */
export interface Challenge {
  readonly kind: 'rsa' | 'ecdsa'
  readonly nonce: Uint8Array
}

export type ChallengeResponse =
  | { readonly kind: 'rsa'; readonly nonce: Uint8Array; readonly signature: Uint8Array }
  /** r and s are big-endian without fixed width. */
  | {
      readonly kind: 'ecdsa'
      readonly nonce: Uint8Array
      readonly r: Uint8Array
      readonly s: Uint8Array
    }

type Fields = ReadonlyMap<string, unknown>

/** Certificates in DER, leaf first. */
export function encodeAttestationData(certificates: readonly Uint8Array[]): Uint8Array {
  return toJson({ certificates: certificates.map(base64) })
}

/** Throws invalid_argument `malformed_payload`. */
export function decodeAttestationData(payload: Uint8Array): Uint8Array[] {
  const list = fromJson(payload).get('certificates') ?? []
  if (!Array.isArray(list)) throw malformed('certificates is not a list')
  return list.map((item) => bytesOf(item, 'certificates'))
}

export function encodeChallenge(challenge: Challenge): Uint8Array {
  const nonce = { nonce: base64(challenge.nonce) }
  return toJson({
    rsa_signature: challenge.kind === 'rsa' ? nonce : null,
    ecdsa_signature: challenge.kind === 'ecdsa' ? nonce : null,
  })
}

/** Throws invalid_argument `malformed_payload` unless exactly one proof is asked for. */
export function decodeChallenge(payload: Uint8Array): Challenge {
  const { kind, fields } = theProof(payload)
  return { kind, nonce: bytesOf(fields.get('nonce'), 'nonce') }
}

export function encodeResponse(response: ChallengeResponse): Uint8Array {
  if (response.kind === 'rsa') {
    const { nonce, signature } = response
    return toJson({
      rsa_signature: { nonce: base64(nonce), signature: base64(signature) },
      ecdsa_signature: null,
    })
  }
  const { nonce, r, s } = response
  return toJson({
    rsa_signature: null,
    ecdsa_signature: { nonce: base64(nonce), r: base64(r), s: base64(s) },
  })
}

/** Throws invalid_argument `malformed_payload`. */
export function decodeResponse(payload: Uint8Array): ChallengeResponse {
  const { kind, fields } = theProof(payload)
  const field = (name: string) => bytesOf(fields.get(name), name)
  return kind === 'rsa'
    ? { kind, nonce: field('nonce'), signature: field('signature') }
    : { kind, nonce: field('nonce'), r: field('r'), s: field('s') }
}

/** What is signed: node's sign and verify hash it with SHA-256 into the digest of the protocol. */
export function combineNonces(challenge: Uint8Array, response: Uint8Array): Uint8Array {
  if (challenge.length !== NONCE_BYTES) throw malformed('invalid challenge nonce')
  // Without this a response nonce of another length could shift bytes between the two.
  if (response.length !== NONCE_BYTES) throw malformed('invalid response nonce')
  return new Uint8Array(Buffer.concat([challenge, response]))
}

function theProof(payload: Uint8Array): { kind: 'rsa' | 'ecdsa'; fields: Fields } {
  const message = fromJson(payload)
  const rsa = message.get('rsa_signature') ?? undefined
  const ecdsa = message.get('ecdsa_signature') ?? undefined
  if ((rsa === undefined) === (ecdsa === undefined)) throw malformed('expecting one kind of proof')
  return rsa === undefined
    ? { kind: 'ecdsa', fields: fieldsOf(ecdsa) }
    : { kind: 'rsa', fields: fieldsOf(rsa) }
}

function fromJson(payload: Uint8Array): Fields {
  try {
    return fieldsOf(JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(payload)))
  } catch (cause) {
    if (cause instanceof SignetError) throw cause
    throw malformed('invalid JSON')
  }
}

/** Keys in lower case: Go's decoder matches fields without regard to case, the last one wins. */
function fieldsOf(value: unknown): Fields {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw malformed('expecting an object')
  }
  return new Map(Object.entries(value).map(([key, item]) => [key.toLowerCase(), item]))
}

/** Go's []byte: standard padded base64; null and absence are empty. */
function bytesOf(value: unknown, name: string): Uint8Array {
  if (value === undefined || value === null) return new Uint8Array()
  if (typeof value !== 'string') throw malformed(`${name} is not a string`)
  const text = value.replace(/[\r\n]/g, '')
  const bytes = Buffer.from(text, 'base64')
  if (bytes.toString('base64') !== text) throw malformed(`${name} is not base64`)
  return new Uint8Array(bytes)
}

function base64(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('base64')
}

function toJson(value: unknown): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(value))
}

function malformed(what: string): SignetError {
  return new SignetError('invalid_argument', 'malformed_payload', what)
}
