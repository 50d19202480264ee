/**
 * Distinguished names (RFC 5280 §4.1.2.4) in the shape SPIRE's peers see: built like Go's
 * `pkix.Name` (attributes C, ST, L, STREET, postalCode, O, OU, CN, serialNumber, one RDN per kind)
 * and printed like its `String()`, which is RFC 2253 order.
 *
 * Elsewhere a name is its DER: names are compared byte for byte, as Go does.
 */
import { utf8 } from '../base/bytes.ts'
import {
  atEnd,
  type DerCursor,
  derCursor,
  encodeOid,
  enter,
  expectEnd,
  malformed,
  peekTag,
  readContent,
  readElement,
  readOid,
  sequence,
  setOf,
  TAG,
  tlv,
} from './der.ts'

/** In Go's order of encoding. */
const ATTRIBUTES = [
  ['country', '2.5.4.6', 'C'],
  ['province', '2.5.4.8', 'ST'],
  ['locality', '2.5.4.7', 'L'],
  ['streetAddress', '2.5.4.9', 'STREET'],
  ['postalCode', '2.5.4.17', 'POSTALCODE'],
  ['organization', '2.5.4.10', 'O'],
  ['organizationalUnit', '2.5.4.11', 'OU'],
  ['commonName', '2.5.4.3', 'CN'],
  ['serialNumber', '2.5.4.5', 'SERIALNUMBER'],
] as const

type AttributeKey = (typeof ATTRIBUTES)[number][0]

/** What is absent is not encoded. Go keeps one common name and one serial number: the last. */
export type NameFields = { readonly [K in AttributeKey]?: readonly string[] }

interface NameAttribute {
  readonly oid: string
  /** Undefined for string types that have no text form here. */
  readonly text: string | undefined
  readonly value: Uint8Array
}

export function encodeName(fields: NameFields): Uint8Array {
  const rdns: Uint8Array[] = []
  for (const [key, oid] of ATTRIBUTES) {
    const values = fields[key] ?? []
    if (values.length === 0) continue
    rdns.push(setOf(values.map((value) => encodeAttribute(oid, value))))
  }
  return sequence(...rdns)
}

/** One AttributeTypeAndValue: PrintableString when the text allows it, else UTF8String. */
function encodeAttribute(oid: string, text: string): Uint8Array {
  const tag = /^[A-Za-z0-9 '()+,\-./:=?]*$/.test(text) ? TAG.printableString : TAG.utf8String
  return sequence(encodeOid(oid), tlv(tag, utf8(text)))
}

/** The standard attributes of a DER Name; others are dropped, as Go drops them on re-encoding. */
export function nameFields(der: Uint8Array): NameFields {
  return fieldsOf(parseAttributes(der))
}

/** Go's `Subject.CommonName`: the last one, empty when there is none. */
export function commonName(der: Uint8Array): string {
  return nameFields(der).commonName?.[0] ?? ''
}

/** What Go makes of a parsed name when it encodes it again, with another common name if given. */
export function normalizeName(der: Uint8Array, newCommonName?: string): Uint8Array {
  const fields = nameFields(der)
  return encodeName(
    newCommonName === undefined ? fields : { ...fields, commonName: [newCommonName] },
  )
}

export function isEmptyName(der: Uint8Array): boolean {
  return der.length === 2
}

/** Go's `pkix.Name.String()` of a parsed name: `CN=a.example.org,O=SPIRE,C=US`. */
export function formatName(der: Uint8Array): string {
  const attributes = parseAttributes(der)
  const known = new Set<string>(ATTRIBUTES.map(([, oid]) => oid))
  const rdns = attributes
    .filter((attribute) => !known.has(attribute.oid))
    .map((attribute) => `${attribute.oid}=#${Buffer.from(attribute.value).toString('hex')}`)
  const fields = fieldsOf(attributes)
  for (const [key, , label] of ATTRIBUTES) {
    const values = fields[key] ?? []
    if (values.length > 0) rdns.push(values.map((v) => `${label}=${escapeValue(v)}`).join('+'))
  }
  return rdns.reverse().join(',')
}

function fieldsOf(attributes: readonly NameAttribute[]): NameFields {
  const fields: { [K in AttributeKey]?: string[] } = {}
  for (const [key, oid] of ATTRIBUTES) {
    const values = attributes.flatMap((a) => (a.oid === oid && a.text !== undefined ? a.text : []))
    if (values.length === 0) continue
    const single = key === 'commonName' || key === 'serialNumber'
    fields[key] = single ? values.slice(-1) : values
  }
  return fields
}

function parseAttributes(der: Uint8Array): NameAttribute[] {
  const outer = derCursor(der)
  const name = enter(outer, TAG.sequence)
  expectEnd(outer)
  const attributes: NameAttribute[] = []
  while (!atEnd(name)) {
    const rdn = enter(name, TAG.set)
    if (atEnd(rdn)) throw malformed('empty relative distinguished name')
    while (!atEnd(rdn)) {
      const attribute = enter(rdn, TAG.sequence)
      const oid = readOid(attribute)
      const tag = peekTag(attribute)
      const start = attribute.pos
      const content = readContent(attribute, tag)
      const value = attribute.bytes.subarray(start, attribute.pos)
      expectEnd(attribute)
      attributes.push({ oid, text: decodeText(tag, content), value })
    }
  }
  return attributes
}

function decodeText(tag: number, content: Uint8Array): string | undefined {
  switch (tag) {
    case TAG.utf8String:
      try {
        return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(content)
      } catch (cause) {
        throw malformedText(cause)
      }
    case TAG.printableString:
    case TAG.ia5String:
      if (content.some((byte) => byte >= 0x80)) throw malformed('text is not ASCII')
      return Buffer.from(content).toString('latin1')
    case TAG.t61String:
      return Buffer.from(content).toString('latin1')
    case TAG.bmpString:
      if (content.length % 2 !== 0) throw malformed('BMPString of odd length')
      return Buffer.from(content).swap16().toString('utf16le')
    default:
      return undefined
  }
}

function malformedText(cause: unknown): Error {
  const error = malformed('text is not UTF-8')
  error.cause = cause
  return error
}

function escapeValue(text: string): string {
  const escaped = text.replace(/[,+"\\<>;]/g, (c) => `\\${c}`)
  return escaped.replace(/^[ #]/, (c) => `\\${c}`).replace(/(?<=.) $/, '\\ ')
}

/** The next element as a Name: structure checked, returned as its DER. */
export function readName(cursor: DerCursor): Uint8Array {
  const der = readElement(cursor, TAG.sequence)
  parseAttributes(der)
  return der
}
