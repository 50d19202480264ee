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

interface SignedFields extends Extensions {
  /** Big-endian, without sign byte. */
  readonly serialNumber: Uint8Array
  /** DER Names. */
  readonly issuer: Uint8Array
  readonly subject: Uint8Array
  readonly notBefore: EpochSeconds
  readonly notAfter: EpochSeconds
  /** DER SubjectPublicKeyInfo. Not checked against any policy: `parsePublicKey` does that. */
  readonly publicKey: Uint8Array
}

export interface TbsCertificate extends SignedFields {
  readonly version: number
  /** DER AlgorithmIdentifier. */
  readonly algorithm: Uint8Array
  /** The explicit element `[3]` whole; empty when absent. */
  readonly extensions: Uint8Array
}

export interface Certificate extends SignedFields {
  readonly der: Uint8Array
  /** DER of the TBSCertificate: what the signature is over. */
  readonly tbs: Uint8Array
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
  const fields = parseTbsCertificate(tbs)
  // RFC 5280 §4.1.1.2: the signed copy and the outer one must be equal.
  if (Buffer.compare(fields.algorithm, algorithm) !== 0) {
    throw malformed('inner and outer signature algorithm differ')
  }
  const { algorithm: _algorithm, version: _version, extensions: _extensions, ...rest } = fields
  return {
    ...rest,
    der: cursor.bytes.subarray(start, cursor.pos),
    tbs,
    signatureAlgorithm: signatureAlgorithmOf(algorithm),
    signature,
  }
}

/** The signed part alone, before there is a signature: what the linter reads. */
export function parseTbsCertificate(der: Uint8Array): TbsCertificate {
  const outer = derCursor(der)
  const tbs = enter(outer, TAG.sequence)
  expectEnd(outer)
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
  const extensions = atEnd(tbs) ? new Uint8Array() : readElement(tbs, contextTag(3, true))
  expectEnd(tbs)
  if (version !== 3 && extensions.length > 0) {
    throw malformed('extensions in a certificate before version 3')
  }
  return {
    ...(extensions.length > 0 ? decodeExtensions(extensions) : emptyExtensions()),
    extensions,
    version,
    algorithm,
    serialNumber,
    issuer,
    subject,
    notBefore,
    notAfter,
    publicKey,
  }
}

function decodeExtensions(element: Uint8Array): Extensions {
  const explicit = enter(derCursor(element), contextTag(3, true))
  const decoded = readExtensions(explicit)
  expectEnd(explicit)
  return decoded
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
