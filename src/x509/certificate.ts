/**
 * X.509 certificates (RFC 5280 §4.1), read strictly: one DER element without trailing data, known
 * extensions decoded, everything else kept as views of the given bytes.
 */
import { CERTIFICATE_BYTES_MAX } from '../base/limits.ts'
import type { EpochSeconds } from '../base/ports.ts'
import {
  atEnd,
  contextTag,
  type DerCursor,
  derCursor,
  enter,
  expectEnd,
  malformed,
  peekTag,
  readElement,
  readOctetBits,
  readSmallUnsigned,
  readUnsigned,
  skipElement,
  TAG,
} from './der.ts'
import { type Extensions, emptyExtensions, readExtensions } from './extensions.ts'
import { readName } from './name.ts'
import { type SignatureAlgorithm, signatureAlgorithmOf } from './oid.ts'
import { readTime } from './time.ts'

export interface Certificate extends Extensions {
  readonly der: Uint8Array
  /** DER of the TBSCertificate: what the signature is over. */
  readonly tbs: Uint8Array
  /** Big-endian, without sign byte. */
  readonly serialNumber: Uint8Array
  /** DER Names. */
  readonly issuer: Uint8Array
  readonly subject: Uint8Array
  readonly notBefore: EpochSeconds
  readonly notAfter: EpochSeconds
  /** DER SubjectPublicKeyInfo. Not checked against any policy: `parsePublicKey` does that. */
  readonly publicKey: Uint8Array
  /** Undefined for algorithms we do not verify (SHA-1, MD5, unknown ones). */
  readonly signatureAlgorithm: SignatureAlgorithm | undefined
  readonly signature: Uint8Array
}

/** Throws invalid_argument `malformed_der`. */
export function parseCertificate(der: Uint8Array): Certificate {
  const outer = derCursor(der)
  const certificate = readCertificate(outer)
  expectEnd(outer)
  return certificate
}

/** Certificates in concatenated DER, as SPIFFE's APIs carry chains. Empty input gives none. */
export function parseCertificates(der: Uint8Array, countMax = 1024): Certificate[] {
  const cursor = derCursor(der)
  const certificates: Certificate[] = []
  while (!atEnd(cursor)) {
    if (certificates.length === countMax) throw malformed('too many certificates')
    certificates.push(readCertificate(cursor))
  }
  return certificates
}

/** Only the outer elements are looked at. */
export function splitCertificates(der: Uint8Array): Uint8Array[] {
  const cursor = derCursor(der)
  const parts: Uint8Array[] = []
  while (!atEnd(cursor)) parts.push(readElement(cursor, TAG.sequence))
  return parts
}

export function isSelfIssued(certificate: Certificate): boolean {
  return Buffer.compare(certificate.issuer, certificate.subject) === 0
}

function readCertificate(cursor: DerCursor): Certificate {
  const start = cursor.pos
  const body = enter(cursor, TAG.sequence)
  if (cursor.pos - start > CERTIFICATE_BYTES_MAX) throw malformed('certificate is too large')
  const tbs = readElement(body, TAG.sequence)
  const algorithm = readElement(body, TAG.sequence)
  const signature = readOctetBits(body)
  expectEnd(body)
  const fields = readTbs(tbs)
  // RFC 5280 §4.1.1.2: the signed copy and the outer one must be equal.
  if (Buffer.compare(fields.algorithm, algorithm) !== 0) {
    throw malformed('inner and outer signature algorithm differ')
  }
  const { algorithm: _, ...rest } = fields
  return {
    ...rest,
    der: cursor.bytes.subarray(start, cursor.pos),
    tbs,
    signatureAlgorithm: signatureAlgorithmOf(algorithm),
    signature,
  }
}

function readTbs(der: Uint8Array) {
  const tbs = enter(derCursor(der), TAG.sequence)
  const version = readVersion(tbs)
  const serialNumber = readUnsigned(tbs)
  const algorithm = readElement(tbs, TAG.sequence)
  const issuer = readName(tbs)
  const validity = enter(tbs, TAG.sequence)
  const notBefore = readTime(validity)
  const notAfter = readTime(validity)
  expectEnd(validity)
  const subject = readName(tbs)
  const publicKey = readElement(tbs, TAG.sequence)
  for (const uniqueId of [contextTag(1, false), contextTag(2, false)]) {
    if (peekTag(tbs) === uniqueId) skipElement(tbs)
  }
  let extensions = emptyExtensions()
  if (!atEnd(tbs)) {
    if (version !== 3) throw malformed('extensions in a certificate before version 3')
    const explicit = enter(tbs, contextTag(3, true))
    extensions = readExtensions(explicit)
    expectEnd(explicit)
  }
  expectEnd(tbs)
  return {
    ...extensions,
    algorithm,
    serialNumber,
    issuer,
    subject,
    notBefore,
    notAfter,
    publicKey,
  }
}

function readVersion(tbs: DerCursor): number {
  const tag = contextTag(0, true)
  if (peekTag(tbs) !== tag) return 1
  const explicit = enter(tbs, tag)
  const version = readSmallUnsigned(explicit) + 1
  expectEnd(explicit)
  if (version > 3) throw malformed('unknown certificate version')
  return version
}
