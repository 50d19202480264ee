/**
 * PKCS#10 certification requests (RFC 2986). Of a request only the public key is believed; names
 * that it asks for are read for MintX509SVID alone and still go through policy (CVE-2021-27098:
 * SPIRE once signed the ID that the CSR named).
 */
import { type KeyObject, sign } from 'node:crypto'
import { CSR_BYTES_MAX } from '../base/limits.ts'
import {
  atEnd,
  contextTag,
  type DerCursor,
  derCursor,
  encodeOctetBits,
  encodeOid,
  encodeSmallUnsigned,
  enter,
  expectEnd,
  malformed,
  readElement,
  readOctetBits,
  readOid,
  readSmallUnsigned,
  sequence,
  setOf,
  skipElement,
  TAG,
  tlv,
} from './der.ts'
import { encodeSubjectAltName, readExtensions } from './extensions.ts'
import { encodeName, readName } from './name.ts'
import { OID, SIGNATURE_ALGORITHMS, type SignatureAlgorithm, signatureAlgorithmOf } from './oid.ts'
import { type PublicKeyInfo, parsePublicKey } from './spki.ts'

/** A range of the buffer that was parsed. */
export interface ByteRange {
  readonly offset: number
  readonly length: number
}

export interface CertificateRequest {
  /**
   * The buffer parsed; all ranges refer to it, so a batch is signed from the message it came in.
   */
  readonly bytes: Uint8Array
  /** CertificationRequestInfo: what the self-signature is over. */
  readonly info: ByteRange
  readonly publicKey: ByteRange
  readonly key: PublicKeyInfo
  readonly signatureAlgorithm: SignatureAlgorithm | undefined
  readonly signature: ByteRange
  /** DER Name, unchecked. */
  readonly subject: ByteRange
  /** The SET of attributes, unchecked; `requestedNames` reads it. */
  readonly attributes: ByteRange
}

export interface RequestedNames {
  readonly uriNames: readonly string[]
  readonly dnsNames: readonly string[]
}

export function sliceOf(bytes: Uint8Array, range: ByteRange): Uint8Array {
  return bytes.subarray(range.offset, range.offset + range.length)
}

/**
 * Throws invalid_argument `malformed_der`, or `weak_key` by the key policy. The self-signature is
 * not checked here.
 */
export function parseCertificateRequest(der: Uint8Array): CertificateRequest {
  if (der.length > CSR_BYTES_MAX) throw malformed('certificate request is too large')
  const outer = derCursor(der)
  const body = enter(outer, TAG.sequence)
  expectEnd(outer)
  const info = rangeOf(body)
  const infoBody = enter(derCursor(der, info.offset, info.offset + info.length), TAG.sequence)
  // RFC 2986 §4.1: version v1 is 0.
  if (readSmallUnsigned(infoBody) !== 0) throw malformed('unknown certificate request version')
  const subject = rangeOf(infoBody)
  const publicKey = rangeOf(infoBody)
  // Absent attributes are common in the wild (the SET is then missing altogether); Go reads them.
  const attributes = atEnd(infoBody)
    ? { offset: infoBody.pos, length: 0 }
    : rangeOf(infoBody, contextTag(0, true))
  expectEnd(infoBody)
  const algorithm = readElement(body, TAG.sequence)
  const signature = readOctetBits(body)
  expectEnd(body)
  return {
    bytes: der,
    info,
    publicKey,
    key: parsePublicKey(sliceOf(der, publicKey)),
    signatureAlgorithm: signatureAlgorithmOf(algorithm),
    signature: { offset: body.end - signature.length, length: signature.length },
    subject,
    attributes,
  }
}

/** The subject's DER, its structure checked. */
export function requestedSubject(request: CertificateRequest): Uint8Array {
  return readName(derCursor(sliceOf(request.bytes, request.subject)))
}

/** The alternative names of the extension request (RFC 2985 §5.4.2), if there is one. */
export function requestedNames(request: CertificateRequest): RequestedNames {
  const none = { uriNames: [], dnsNames: [] }
  if (request.attributes.length === 0) return none
  const outer = derCursor(sliceOf(request.bytes, request.attributes))
  const attributes = enter(outer, contextTag(0, true))
  let found: RequestedNames | undefined
  while (!atEnd(attributes)) {
    const attribute = enter(attributes, TAG.sequence)
    const oid = readOid(attribute)
    const values = enter(attribute, TAG.set)
    expectEnd(attribute)
    if (oid !== OID.extensionRequest) continue
    if (found) throw malformed('two extension requests')
    const extensions = readExtensions(values)
    expectEnd(values)
    found = { uriNames: extensions.uriNames, dnsNames: extensions.dnsNames }
  }
  return found ?? none
}

/** A signed request for a key we hold: agents, downstream servers, upstream authorities. */
export function createCertificateRequest(options: {
  readonly privateKey: KeyObject
  /** DER SubjectPublicKeyInfo of the same key. */
  readonly publicKey: Uint8Array
  /** DER Name; empty by default. */
  readonly subject?: Uint8Array
  readonly uriNames?: readonly string[]
  readonly dnsNames?: readonly string[]
}): Uint8Array {
  const names = { uriNames: options.uriNames ?? [], dnsNames: options.dnsNames ?? [] }
  const info = encodeCertificateRequestInfo(
    options.subject ?? encodeName({}),
    options.publicKey,
    names,
  )
  const algorithm = requestAlgorithm(parsePublicKey(options.publicKey))
  const facts = SIGNATURE_ALGORITHMS[algorithm]
  const signature = sign(facts.hash, info, options.privateKey)
  return sequence(info, facts.identifier, encodeOctetBits(signature))
}

export function encodeCertificateRequestInfo(
  subject: Uint8Array,
  publicKey: Uint8Array,
  names: RequestedNames,
): Uint8Array {
  const attributes: Uint8Array[] = []
  if (names.uriNames.length + names.dnsNames.length > 0) {
    const extensions = sequence(encodeSubjectAltName(names, false))
    attributes.push(sequence(encodeOid(OID.extensionRequest), setOf([extensions])))
  }
  const version = encodeSmallUnsigned(0)
  return sequence(version, subject, publicKey, tlv(contextTag(0, true), ...attributes))
}

function requestAlgorithm(key: PublicKeyInfo): SignatureAlgorithm {
  switch (key.type) {
    case 'ec-p256':
      return 'ecdsa-sha256'
    case 'ec-p384':
      return 'ecdsa-sha384'
    case 'ec-p521':
      return 'ecdsa-sha512'
    case 'rsa':
      return 'rsa-sha256'
    case 'ed25519':
      return 'ed25519'
  }
}

function rangeOf(cursor: DerCursor, tag: number = TAG.sequence): ByteRange {
  const offset = cursor.pos
  skipElement(cursor, tag)
  return { offset, length: cursor.pos - offset }
}
