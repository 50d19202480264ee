/**
 * The extensions of RFC 5280 §4.2 that Signet understands, from and to DER. What is not
 * understood is remembered when critical, so that path validation can refuse it.
 */
import { utf8 } from '../base/bytes.ts'
import {
  atEnd,
  contextTag,
  type DerCursor,
  derCursor,
  encodeNamedBits,
  encodeOid,
  encodeSmallUnsigned,
  enter,
  expectEnd,
  malformed,
  peekTag,
  readBoolean,
  readContent,
  readNamedBits,
  readOid,
  readSmallUnsigned,
  sequence,
  skipElement,
  TAG,
  tlv,
} from './der.ts'
import { EXT_KEY_USAGES, type ExtKeyUsage, KEY_USAGES, type KeyUsage, OID } from './oid.ts'

export interface Extensions {
  readonly isCa: boolean
  /** `pathLenConstraint`; undefined: unlimited. */
  readonly pathLength: number | undefined
  /** Undefined when the extension is absent: then every usage is allowed. */
  readonly keyUsage: ReadonlySet<KeyUsage> | undefined
  /** Dotted OIDs; empty when the extension is absent. */
  readonly extKeyUsage: readonly string[]
  readonly uriNames: readonly string[]
  readonly dnsNames: readonly string[]
  /** 4 or 16 bytes each. */
  readonly ipAddresses: readonly Uint8Array[]
  /** Empty when absent. */
  readonly subjectKeyId: Uint8Array
  readonly authorityKeyId: Uint8Array
  /**
   * Dotted OIDs of critical extensions that nobody here has processed. Name constraints count as
   * critical however they are marked: passing over them would widen what their CA may name.
   */
  readonly unhandledCritical: readonly string[]
}

type Draft = { -readonly [K in keyof Extensions]: Extensions[K] } & { unhandledCritical: string[] }

/** GeneralName tags (RFC 5280 §4.2.1.6). */
const DNS_NAME = contextTag(2, false)
const URI_NAME = contextTag(6, false)
const IP_ADDRESS = contextTag(7, false)

export function emptyExtensions(): Extensions {
  return draft()
}

/** `list` stands before the SEQUENCE OF Extension. */
export function readExtensions(list: DerCursor): Extensions {
  const out = draft()
  const seen = new Set<string>()
  const items = enter(list, TAG.sequence)
  if (atEnd(items)) throw malformed('empty extensions')
  while (!atEnd(items)) {
    const item = enter(items, TAG.sequence)
    const oid = readOid(item)
    // DER leaves a FALSE default out; some issuers write it, and Go reads that, so we do too.
    const critical = peekTag(item) === TAG.boolean ? readBoolean(item) : false
    const value = derCursor(readContent(item, TAG.octetString))
    expectEnd(item)
    if (seen.has(oid)) throw malformed(`extension ${oid} occurs twice`)
    seen.add(oid)
    const read = READERS[oid]
    if (read) {
      const handled = read(value, out)
      expectEnd(value)
      if (handled) continue
    }
    if (critical || oid === OID.nameConstraints) out.unhandledCritical.push(oid)
  }
  return out
}

const READERS: Readonly<Record<string, (value: DerCursor, out: Draft) => boolean>> = {
  [OID.basicConstraints](value, out) {
    const body = enter(value, TAG.sequence)
    if (peekTag(body) === TAG.boolean) out.isCa = readBoolean(body)
    if (peekTag(body) === TAG.integer) {
      if (!out.isCa) throw malformed('path length without cA')
      out.pathLength = readSmallUnsigned(body)
    }
    expectEnd(body)
    return true
  },
  [OID.keyUsage](value, out) {
    const usages = readNamedBits(value).map((bit) => KEY_USAGES[bit])
    out.keyUsage = new Set(usages.filter((usage) => usage !== undefined))
    return true
  },
  [OID.extKeyUsage](value, out) {
    const body = enter(value, TAG.sequence)
    const oids: string[] = []
    while (!atEnd(body)) oids.push(readOid(body))
    if (oids.length === 0) throw malformed('empty extended key usage')
    out.extKeyUsage = oids
    return true
  },
  [OID.subjectKeyId](value, out) {
    out.subjectKeyId = readContent(value, TAG.octetString)
    return true
  },
  [OID.authorityKeyId](value, out) {
    const body = enter(value, TAG.sequence)
    const keyIdTag = contextTag(0, false)
    if (peekTag(body) === keyIdTag) out.authorityKeyId = readContent(body, keyIdTag)
    while (!atEnd(body)) skipElement(body)
    return true
  },
  [OID.subjectAltName](value, out) {
    return readAltNames(value, out)
  },
  // Policies are informative here: nobody asks for one, so any is acceptable (RFC 5280 §6.1.1 (c)).
  [OID.certificatePolicies](value) {
    skipElement(value, TAG.sequence)
    return true
  },
}

function readAltNames(value: DerCursor, out: Draft): boolean {
  const body = enter(value, TAG.sequence)
  const [uris, dns, ips]: [string[], string[], Uint8Array[]] = [[], [], []]
  while (!atEnd(body)) {
    const tag = peekTag(body)
    if (tag === URI_NAME) uris.push(ascii(readContent(body, tag)))
    else if (tag === DNS_NAME) dns.push(ascii(readContent(body, tag)))
    else if (tag === IP_ADDRESS) {
      const address = readContent(body, tag)
      if (address.length !== 4 && address.length !== 16) throw malformed('bad IP address')
      ips.push(address)
    } else skipElement(body)
  }
  out.uriNames = uris
  out.dnsNames = dns
  out.ipAddresses = ips
  // A critical SAN of nothing we can read has not been processed (RFC 5280 §4.2).
  return uris.length + dns.length + ips.length > 0
}

function ascii(content: Uint8Array): string {
  for (const byte of content) if (byte >= 0x80) throw malformed('name is not ASCII')
  return Buffer.from(content.buffer, content.byteOffset, content.length).toString('latin1')
}

function draft(): Draft {
  return {
    isCa: false,
    pathLength: undefined,
    keyUsage: undefined,
    extKeyUsage: [],
    uriNames: [],
    dnsNames: [],
    ipAddresses: [],
    subjectKeyId: new Uint8Array(),
    authorityKeyId: new Uint8Array(),
    unhandledCritical: [],
  }
}

/** One Extension from its value's DER. */
export function encodeExtension(oid: string, critical: boolean, value: Uint8Array): Uint8Array {
  const wrapped = tlv(TAG.octetString, value)
  return critical
    ? sequence(encodeOid(oid), tlv(TAG.boolean, Uint8Array.of(0xff)), wrapped)
    : sequence(encodeOid(oid), wrapped)
}

export function encodeKeyUsage(usages: readonly KeyUsage[]): Uint8Array {
  const bits = usages.map((usage) => KEY_USAGES.indexOf(usage))
  return encodeExtension(OID.keyUsage, true, encodeNamedBits(bits))
}

export function encodeExtKeyUsage(usages: readonly ExtKeyUsage[]): Uint8Array {
  const oids = usages.map((usage) => encodeOid(EXT_KEY_USAGES[usage]))
  return encodeExtension(OID.extKeyUsage, false, sequence(...oids))
}

export function encodeBasicConstraints(isCa: boolean, pathLength?: number): Uint8Array {
  const parts: Uint8Array[] = []
  if (isCa) parts.push(tlv(TAG.boolean, Uint8Array.of(0xff)))
  if (isCa && pathLength !== undefined) parts.push(encodeSmallUnsigned(pathLength))
  return encodeExtension(OID.basicConstraints, true, sequence(...parts))
}

export function encodeSubjectKeyId(keyId: Uint8Array): Uint8Array {
  return encodeExtension(OID.subjectKeyId, false, tlv(TAG.octetString, keyId))
}

export function encodeAuthorityKeyId(keyId: Uint8Array): Uint8Array {
  const value = sequence(tlv(contextTag(0, false), keyId))
  return encodeExtension(OID.authorityKeyId, false, value)
}

/** DNS names first, then URIs, as Go orders them; critical when the subject is empty. */
export function encodeSubjectAltName(
  names: { readonly uriNames: readonly string[]; readonly dnsNames: readonly string[] },
  critical: boolean,
): Uint8Array {
  const parts = [
    ...names.dnsNames.map((name) => tlv(DNS_NAME, utf8(name))),
    ...names.uriNames.map((name) => tlv(URI_NAME, utf8(name))),
  ]
  return encodeExtension(OID.subjectAltName, critical, sequence(...parts))
}
