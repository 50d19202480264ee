/**
 * The per-certificate rules of the hot path: the variable parts are checked on the encoded DER
 * against the order, and every other byte is compared with the reference that passed all rules
 * when the profile was loaded. Together they say what `full-rules.ts` says, at a microsecond a
 * certificate.
 *
 * Shares no code with the mould that writes these bytes, except the DER primitives.
 */
import type { EpochSeconds } from '../../base/ports.ts'
import {
  type DerCursor,
  derCursor,
  enter,
  malformed,
  readElement,
  readHeader,
  skipElement,
  TAG,
} from '../../x509/der.ts'
import type { Validity } from '../../x509/template.ts'
import { readTime } from '../../x509/time.ts'
import type { IdClass } from '../profile/profiles.ts'
import { isOfClass } from './full-rules.ts'
import { lintFailure } from './lint-error.ts'

/** Fixed parts of one linted certificate, by which all others of its profile are measured. */
export interface SvidReference {
  readonly version: Uint8Array
  /** signature algorithm ‖ issuer */
  readonly issuerPart: Uint8Array
  /** Extensions up to the key identifier's bytes, and from there up to the alternative name. */
  readonly beforeKeyId: Uint8Array
  readonly afterKeyId: Uint8Array
  readonly idClass: IdClass
  readonly trustDomainId: string
  readonly issuerValidity: Validity
}

/** What was ordered, as far as it shows in the certificate. */
export interface SvidExpectation {
  readonly now: EpochSeconds
  readonly ttlSecondsMax: number
  readonly spiffeId: string
  readonly dnsNames: readonly string[]
  readonly subject: Uint8Array
  /** As it stands in the CSR. */
  readonly subjectPublicKeyInfo: Uint8Array
  readonly publicKeySha256: Uint8Array
}

const SERIAL_BYTES = 16
const KEY_ID_BYTES = 20
const EXPLICIT_EXTENSIONS = 0xa3
const DNS_NAME = 0x82
const URI_NAME = 0x86
/** OBJECT IDENTIFIER 2.5.29.17, whole. */
const SAN_OID = Buffer.from('0603551d11', 'hex')

/** Throws internal `lint_failed` with the broken rule's name, or malformed_der. */
export function lintSvid(
  reference: SvidReference,
  bytes: Buffer,
  start: number,
  end: number,
  expected: SvidExpectation,
): void {
  const cursor = derCursor(bytes, start, end)
  if (readHeader(cursor, TAG.sequence) !== end) throw lintFailure('nothing_follows')
  expectBytes(cursor, reference.version, 'fixed_parts_are_the_references')
  lintSerial(cursor)
  expectBytes(cursor, reference.issuerPart, 'fixed_parts_are_the_references')
  lintValidity(cursor, reference.issuerValidity, expected)
  expectBytes(cursor, expected.subject, 'subject_is_the_planned_one')
  expectBytes(cursor, expected.subjectPublicKeyInfo, 'key_is_the_requests')
  if (readHeader(cursor, EXPLICIT_EXTENSIONS) !== end) throw lintFailure('nothing_follows')
  if (readHeader(cursor, TAG.sequence) !== end) throw lintFailure('nothing_follows')
  expectBytes(cursor, reference.beforeKeyId, 'fixed_parts_are_the_references')
  lintKeyId(cursor, expected.publicKeySha256)
  expectBytes(cursor, reference.afterKeyId, 'fixed_parts_are_the_references')
  lintNames(cursor, reference, expected)
}

/** Cuts a reference out of a certificate that passed all rules; `full-rules.ts` ran before. */
export function referenceFrom(
  der: Uint8Array,
  facts: Pick<SvidReference, 'idClass' | 'trustDomainId' | 'issuerValidity'>,
): SvidReference {
  const tbs = enter(derCursor(der), TAG.sequence)
  const version = readElement(tbs)
  skipElement(tbs, TAG.integer)
  const issuerStart = tbs.pos
  skipElement(tbs)
  skipElement(tbs)
  const issuerPart = der.slice(issuerStart, tbs.pos)
  for (const _part of ['validity', 'subject', 'key']) skipElement(tbs, TAG.sequence)
  const list = enter(enter(tbs, EXPLICIT_EXTENSIONS), TAG.sequence)
  const elements: Uint8Array[] = []
  while (list.pos < list.end) elements.push(readElement(list))
  const keyIdIndex = elements.findIndex((element) => hasOid(element, 14))
  const fixed = elements.slice(0, keyIdIndex + 1)
  const upToKeyId = Buffer.concat(fixed)
  return {
    ...facts,
    version: version.slice(),
    issuerPart,
    beforeKeyId: new Uint8Array(upToKeyId.subarray(0, upToKeyId.length - KEY_ID_BYTES)),
    afterKeyId: new Uint8Array(Buffer.concat(elements.slice(keyIdIndex + 1, -1))),
  }
}

function lintSerial(cursor: DerCursor): void {
  const end = readHeader(cursor, TAG.integer)
  if (end - cursor.pos !== SERIAL_BYTES || cursor.bytes[cursor.pos]! >> 6 !== 1) {
    throw lintFailure('serial_is_128_bits_with_leading_01')
  }
  cursor.pos = end
}

function lintValidity(cursor: DerCursor, issuer: Validity, expected: SvidExpectation): void {
  const end = readHeader(cursor, TAG.sequence)
  const notBefore = readTime(cursor)
  const notAfter = readTime(cursor)
  if (cursor.pos !== end) throw malformed('trailing data')
  if (notBefore >= notAfter || notBefore > expected.now) throw lintFailure('validity_is_not_empty')
  if (notBefore < issuer.notBefore || notAfter > issuer.notAfter) {
    throw lintFailure('validity_is_within_the_issuers')
  }
  // RFC 5280 §4.1.2.5: notAfter is inclusive; one second too long is too long (Boulder,
  // 2021-06-08).
  if (notAfter > expected.now + expected.ttlSecondsMax) throw lintFailure('lifetime_is_capped')
}

function lintKeyId(cursor: DerCursor, publicKeySha256: Uint8Array): void {
  for (let i = 0; i < KEY_ID_BYTES; i++) {
    if (cursor.bytes[cursor.pos + i] !== publicKeySha256[i]) {
      throw lintFailure('subject_key_identifier_is_the_keys')
    }
  }
  cursor.pos += KEY_ID_BYTES
}

function lintNames(cursor: DerCursor, reference: SvidReference, expected: SvidExpectation): void {
  const { end } = cursor
  const bytes = cursor.bytes as Buffer
  if (readHeader(cursor, TAG.sequence) !== end) throw lintFailure('nothing_follows')
  expectBytes(cursor, SAN_OID, 'extensions_are_the_profiles')
  if (readHeader(cursor, TAG.octetString) !== end) throw lintFailure('nothing_follows')
  if (readHeader(cursor, TAG.sequence) !== end) throw lintFailure('nothing_follows')
  for (const name of expected.dnsNames) {
    const nameEnd = readHeader(cursor, DNS_NAME)
    if (bytes.toString('latin1', cursor.pos, nameEnd) !== name) {
      throw lintFailure('dns_names_are_the_planned_ones')
    }
    cursor.pos = nameEnd
  }
  if (readHeader(cursor, URI_NAME) !== end) throw lintFailure('one_uri_name')
  const id = bytes.toString('latin1', cursor.pos, end)
  if (id !== expected.spiffeId) throw lintFailure('uri_name_is_the_planned_id')
  if (!isOfClass(id, reference.trustDomainId, reference.idClass)) {
    throw lintFailure('issuer_may_sign_the_class')
  }
}

function expectBytes(cursor: DerCursor, expected: Uint8Array, rule: string): void {
  const end = cursor.pos + expected.length
  const bytes = cursor.bytes as Buffer
  if (end > cursor.end || bytes.compare(expected, 0, expected.length, cursor.pos, end) !== 0) {
    throw lintFailure(rule)
  }
  cursor.pos = end
}

/** Is it the extension `id-ce <arc>`? */
function hasOid(element: Uint8Array, arc: number): boolean {
  const oid = readElement(enter(derCursor(element), TAG.sequence), TAG.oid)
  return oid.length === 5 && oid[2] === 0x55 && oid[3] === 0x1d && oid[4] === arc
}
