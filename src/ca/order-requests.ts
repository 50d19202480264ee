/**
 * What issuance takes of the CSRs: one buffer for the signer, the public key, and the faults that
 * are the caller's.
 */
import { concatBytes } from '../base/bytes.ts'
import { SignetError, toSignetError } from '../base/error.ts'
import { type CertificateRequest, parseCertificateRequest, sliceOf } from '../x509/csr.ts'
import { importPublicKey } from '../x509/spki.ts'
import type { X509SvidOrder } from './issuance.ts'
import { keyFitsProof } from './signer/proof.ts'

/** `csrs` are views of `bytes`, one per order. */
export interface RequestBuffer {
  readonly bytes: Uint8Array
  readonly csrs: readonly Uint8Array[]
}

/** All CSRs in one buffer: the one received, the only CSR itself, or a copy of several. */
export function requestBuffer(
  orders: readonly X509SvidOrder[],
  received: Uint8Array | undefined,
): RequestBuffer {
  const csrs = orders.map((order) => order.csr)
  if (received && csrs.every((csr) => liesIn(csr, received))) return { bytes: received, csrs }
  if (csrs.length === 1) return { bytes: csrs[0]!, csrs }
  const bytes = concatBytes(csrs)
  const ends: number[] = []
  for (const csr of csrs) ends.push((ends.at(-1) ?? 0) + csr.length)
  return { bytes, csrs: csrs.map((csr, i) => bytes.subarray(ends[i]! - csr.length, ends[i])) }
}

function liesIn(part: Uint8Array, whole: Uint8Array): boolean {
  return (
    part.buffer === whole.buffer &&
    part.byteOffset >= whole.byteOffset &&
    part.byteOffset + part.length <= whole.byteOffset + whole.length
  )
}

/** Throws invalid_argument: `malformed_csr`, `weak_key`, `bad_csr_signature`. */
export function parseRequest(csr: Uint8Array, proof: boolean): CertificateRequest {
  const request = orMalformed(() => parseCertificateRequest(csr))
  if (!proof) {
    // The signer will not see this key, so that it is on its curve is checked here.
    orMalformed(() => importPublicKey(sliceOf(request.bytes, request.publicKey)))
  } else if (!keyFitsProof(request.key.type, request.signatureAlgorithm)) {
    throw badSignature()
  }
  return request
}

function orMalformed<T>(parse: () => T): T {
  try {
    return parse()
  } catch (cause) {
    const { kind, code, message } = toSignetError(cause)
    if (kind !== 'invalid_argument') throw cause
    const known = code === 'weak_key' ? code : 'malformed_csr'
    throw new SignetError('invalid_argument', known, `malformed CSR: ${message}`, { cause })
  }
}

function badSignature(): SignetError {
  return new SignetError('invalid_argument', 'bad_csr_signature', 'invalid CSR signature')
}

/** Why a proof failed: a key that is none is told apart from a signature that does not fit. */
export function proofError(publicKey: Uint8Array): SignetError {
  try {
    orMalformed(() => importPublicKey(publicKey))
    return badSignature()
  } catch (thrown) {
    return toSignetError(thrown)
  }
}
