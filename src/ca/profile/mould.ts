/**
 * The mould of one (issuer, profile): the DER around the variable parts is built once, and per
 * certificate only serial, validity, subject, key, key identifier and names are filled in
 * (design.md §3). Equal to the general encoder byte for byte; a property test says so.
 *
 * Writes into the caller's arena and allocates nothing. It decides nothing either: the linter reads
 * what came out, not what went in.
 */

import { concatBytes } from '../../base/bytes.ts'
import { encodeOid, headerSize, TAG, tlv, writeHeader } from '../../x509/der.ts'
import {
  encodeAuthorityKeyId,
  encodeBasicConstraints,
  encodeExtKeyUsage,
  encodeKeyUsage,
  encodeSubjectKeyId,
} from '../../x509/extensions.ts'
import { OID, SIGNATURE_ALGORITHMS } from '../../x509/oid.ts'
import type { Validity } from '../../x509/template.ts'
import { timeSize, writeTime } from '../../x509/time.ts'
import { SERIAL_BYTES } from './serial-number.ts'
import { KEY_ID_BYTES, type PlanContext, type SvidPlan } from './svid-plan.ts'

export interface Mould {
  /** An upper bound of the bytes that `write` needs. */
  sizeMax(plan: SvidPlan): number
  /** Writes the TBSCertificate at `pos` and returns where it ends. */
  write(plan: SvidPlan, out: Buffer, pos: number): number
}

const DNS_NAME = 0x82
const URI_NAME = 0x86
const EXPLICIT_EXTENSIONS = 0xa3
const SAN_OID = encodeOid(OID.subjectAltName)
const VERSION_3 = tlv(0xa0, tlv(TAG.integer, Uint8Array.of(2)))
/** Tags and lengths of all variable parts together stay under this. */
const HEADERS_SIZE_MAX = 64

export function createMould({ profile, issuer }: PlanContext): Mould {
  const head = concatBytes([VERSION_3, Uint8Array.of(TAG.integer, SERIAL_BYTES)])
  const issuerPart = concatBytes([
    SIGNATURE_ALGORITHMS[issuer.signatureAlgorithm].identifier,
    issuer.name,
  ])
  const keyIdSlot = encodeSubjectKeyId(new Uint8Array(KEY_ID_BYTES))
  const beforeKeyId = concatBytes([
    encodeKeyUsage(profile.keyUsage),
    ...(profile.extKeyUsage.length > 0 ? [encodeExtKeyUsage(profile.extKeyUsage)] : []),
    encodeBasicConstraints(profile.isCa, profile.pathLength),
    keyIdSlot.subarray(0, keyIdSlot.length - KEY_ID_BYTES),
  ])
  const afterKeyId = encodeAuthorityKeyId(issuer.subjectKeyId)
  const fixedExtensions = beforeKeyId.length + KEY_ID_BYTES + afterKeyId.length
  const encodeValidity = rememberingValidity()
  const fixedBody = head.length + SERIAL_BYTES + issuerPart.length

  return {
    sizeMax(plan) {
      const { subject, subjectPublicKeyInfo } = plan
      const names = namesSize(plan)
      const variable = subject.length + subjectPublicKeyInfo.length + names
      return fixedBody + fixedExtensions + variable + HEADERS_SIZE_MAX
    },
    write(plan, out, start) {
      const { validity, subject, subjectPublicKeyInfo } = plan
      const names = namesSize(plan)
      const nameList = names + headerSize(names)
      const sanBody = SAN_OID.length + headerSize(nameList) + nameList
      const extensions = fixedExtensions + headerSize(sanBody) + sanBody
      const explicit = headerSize(extensions) + extensions
      const times = timeSize(validity.notBefore) + timeSize(validity.notAfter)
      const body =
        fixedBody +
        2 +
        times +
        subject.length +
        subjectPublicKeyInfo.length +
        headerSize(explicit) +
        explicit
      let pos = writeHeader(out, start, TAG.sequence, body)
      pos = put(out, pos, head)
      pos = put(out, pos, plan.serialNumber)
      pos = put(out, pos, issuerPart)
      pos = put(out, pos, encodeValidity(validity, times))
      pos = put(out, pos, subject)
      pos = put(out, pos, subjectPublicKeyInfo)
      pos = writeHeader(out, pos, EXPLICIT_EXTENSIONS, explicit)
      pos = writeHeader(out, pos, TAG.sequence, extensions)
      pos = put(out, pos, beforeKeyId)
      // Uint8Array.set on a fresh view costs more than these twenty stores.
      for (let i = 0; i < KEY_ID_BYTES; i++) out[pos + i] = plan.publicKeySha256[i]!
      pos = put(out, pos + KEY_ID_BYTES, afterKeyId)
      pos = writeHeader(out, pos, TAG.sequence, sanBody)
      pos = put(out, pos, SAN_OID)
      pos = writeHeader(out, pos, TAG.octetString, nameList)
      pos = writeHeader(out, pos, TAG.sequence, names)
      for (const name of plan.dnsNames) pos = putName(out, pos, DNS_NAME, name)
      return putName(out, pos, URI_NAME, plan.spiffeId)
    },
  }
}

/** Items of one batch share their second, and most share their lifetime: the last one is kept. */
function rememberingValidity(): (validity: Validity, times: number) => Uint8Array {
  let last: Validity | undefined
  let encoded = new Uint8Array()
  return (validity, times) => {
    if (validity.notBefore === last?.notBefore && validity.notAfter === last.notAfter)
      return encoded
    encoded = new Uint8Array(2 + times)
    const pos = writeHeader(encoded, 0, TAG.sequence, times)
    writeTime(encoded, writeTime(encoded, pos, validity.notBefore), validity.notAfter)
    last = validity
    return encoded
  }
}

/** All names are ASCII: one byte a character. */
function namesSize(plan: SvidPlan): number {
  let size = headerSize(plan.spiffeId.length) + plan.spiffeId.length
  for (const name of plan.dnsNames) size += headerSize(name.length) + name.length
  return size
}

function put(out: Buffer, pos: number, bytes: Uint8Array): number {
  out.set(bytes, pos)
  return pos + bytes.length
}

function putName(out: Buffer, pos: number, tag: number, name: string): number {
  const start = writeHeader(out, pos, tag, name.length)
  return start + out.write(name, start, 'latin1')
}
