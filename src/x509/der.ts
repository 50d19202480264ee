/**
 * DER (X.690 §8, §10): a strict reader over a view of bytes and a small writer.
 *
 * The reader accepts definite, minimal lengths and single-byte tags only, never reads past the
 * enclosing element and copies nothing: what it returns are views. Every malformed input ends in
 * SignetError `malformed_der`, never in an out-of-bounds read (reliability.md I10).
 */
import { SignetError } from '../base/error.ts'

export const TAG = {
  boolean: 0x01,
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  null: 0x05,
  oid: 0x06,
  utf8String: 0x0c,
  printableString: 0x13,
  t61String: 0x14,
  ia5String: 0x16,
  utcTime: 0x17,
  generalizedTime: 0x18,
  bmpString: 0x1e,
  sequence: 0x30,
  set: 0x31,
} as const

/** Context-specific tag `[number]`. */
export function contextTag(number: number, constructed: boolean): number {
  return 0x80 | (constructed ? 0x20 : 0) | number
}

/** Where a reader stands. `pos` moves; `end` is the end of the enclosing element's content. */
export interface DerCursor {
  readonly bytes: Uint8Array
  pos: number
  readonly end: number
}

export function derCursor(bytes: Uint8Array, start = 0, end = bytes.length): DerCursor {
  return { bytes, pos: start, end }
}

export function malformed(what: string): SignetError {
  return new SignetError('invalid_argument', 'malformed_der', `malformed DER: ${what}`)
}

export function atEnd(cursor: DerCursor): boolean {
  return cursor.pos === cursor.end
}

/** The next element's tag, or -1 at the end. */
export function peekTag(cursor: DerCursor): number {
  return cursor.pos < cursor.end ? cursor.bytes[cursor.pos]! : -1
}

/** Reads tag and length, leaves `pos` at the content and returns where the content ends. */
export function readHeader(cursor: DerCursor, tag: number): number {
  const { bytes, end } = cursor
  let pos = cursor.pos
  if (pos + 2 > end) throw malformed('truncated element')
  const found = bytes[pos]!
  if ((found & 0x1f) === 0x1f) throw malformed('multi-byte tag')
  if (found !== tag) {
    throw malformed(`expected tag 0x${tag.toString(16)}, found 0x${found.toString(16)}`)
  }
  let length = bytes[pos + 1]!
  pos += 2
  if (length >= 0x80) {
    const count = length & 0x7f
    // 0x80 is BER's indefinite form. Three bytes reach 16 MiB, more than any message holds.
    if (count === 0 || count > 3) throw malformed('unsupported length form')
    if (pos + count > end) throw malformed('truncated length')
    length = 0
    for (let i = 0; i < count; i++) length = (length << 8) | bytes[pos + i]!
    if (length < 0x80 || (count > 1 && length < 1 << (8 * (count - 1)))) {
      throw malformed('length is not minimal')
    }
    pos += count
  }
  if (length > end - pos) throw malformed('element exceeds its container')
  cursor.pos = pos
  return pos + length
}

/** Steps over one element and returns a cursor on its content. */
export function enter(cursor: DerCursor, tag: number): DerCursor {
  const end = readHeader(cursor, tag)
  const inner = { bytes: cursor.bytes, pos: cursor.pos, end }
  cursor.pos = end
  return inner
}

/** Content of the next element, as a view. */
export function readContent(cursor: DerCursor, tag: number): Uint8Array {
  const end = readHeader(cursor, tag)
  const content = cursor.bytes.subarray(cursor.pos, end)
  cursor.pos = end
  return content
}

/** The next element whole, tag and length included, as a view. */
export function readElement(cursor: DerCursor, tag: number = peekTag(cursor)): Uint8Array {
  const start = cursor.pos
  skipElement(cursor, tag)
  return cursor.bytes.subarray(start, cursor.pos)
}

export function skipElement(cursor: DerCursor, tag: number = peekTag(cursor)): void {
  cursor.pos = readHeader(cursor, tag)
}

export function expectEnd(cursor: DerCursor): void {
  if (cursor.pos !== cursor.end) throw malformed('trailing data')
}

/** A non-negative INTEGER's magnitude, big-endian without the sign byte; zero is one zero byte. */
export function readUnsigned(cursor: DerCursor): Uint8Array {
  const content = readContent(cursor, TAG.integer)
  const first = content[0]
  if (first === undefined) throw malformed('empty integer')
  if (first >= 0x80) throw malformed('negative integer')
  if (first !== 0 || content.length === 1) return content
  if (content[1]! < 0x80) throw malformed('integer is not minimal')
  return content.subarray(1)
}

/** A small non-negative INTEGER: versions, path lengths. */
export function readSmallUnsigned(cursor: DerCursor): number {
  const magnitude = readUnsigned(cursor)
  if (magnitude.length > 4) throw malformed('integer is too large')
  let value = 0
  for (const byte of magnitude) value = value * 256 + byte
  return value
}

export function readBoolean(cursor: DerCursor): boolean {
  const content = readContent(cursor, TAG.boolean)
  if (content.length !== 1) throw malformed('bad boolean')
  if (content[0] === 0xff) return true
  if (content[0] === 0x00) return false
  throw malformed('boolean is not 00 or ff')
}

/** A BIT STRING of whole bytes: keys and signatures. */
export function readOctetBits(cursor: DerCursor): Uint8Array {
  const content = readContent(cursor, TAG.bitString)
  if (content[0] !== 0) throw malformed('bit string of a broken byte')
  return content.subarray(1)
}

/**
 * A BIT STRING of named bits: the set bits' numbers. DER drops trailing zero bits (X.690 §11.2.2).
 */
export function readNamedBits(cursor: DerCursor): number[] {
  const content = readContent(cursor, TAG.bitString)
  const unused = content[0]
  if (unused === undefined || unused > 7 || (unused > 0 && content.length === 1)) {
    throw malformed('bad bit string')
  }
  const last = content.length > 1 ? content[content.length - 1]! : undefined
  if (last !== undefined && ((last >> unused) & 1) === 0) {
    throw malformed('named bits have trailing zeros')
  }
  if (last !== undefined && (last & ((1 << unused) - 1)) !== 0) {
    throw malformed('unused bits are set')
  }
  const bits: number[] = []
  for (let i = 0; i < (content.length - 1) * 8; i++) {
    if ((content[1 + (i >> 3)]! >> (7 - (i & 7))) & 1) bits.push(i)
  }
  return bits
}

/** An OBJECT IDENTIFIER in dotted form. */
export function readOid(cursor: DerCursor): string {
  return decodeOid(readContent(cursor, TAG.oid))
}

/** Dotted form of an OBJECT IDENTIFIER's content. */
export function decodeOid(content: Uint8Array): string {
  if (content.length === 0 || content.length > 64 || content[content.length - 1]! >= 0x80) {
    throw malformed('bad object identifier')
  }
  const arcs: number[] = []
  let value = 0
  let fresh = true
  for (const byte of content) {
    if (fresh && byte === 0x80) throw malformed('object identifier is not minimal')
    value = value * 128 + (byte & 0x7f)
    if (value > Number.MAX_SAFE_INTEGER / 256) throw malformed('object identifier arc is too large')
    fresh = byte < 0x80
    if (fresh) {
      arcs.push(value)
      value = 0
    }
  }
  const head = Math.min(Math.floor(arcs[0]! / 40), 2)
  return [head, arcs[0]! - head * 40, ...arcs.slice(1)].join('.')
}

/** One element from its content parts. */
export function tlv(tag: number, ...parts: readonly Uint8Array[]): Uint8Array {
  let length = 0
  for (const part of parts) length += part.length
  const out = new Uint8Array(headerSize(length) + length)
  let pos = writeHeader(out, 0, tag, length)
  for (const part of parts) {
    out.set(part, pos)
    pos += part.length
  }
  return out
}

export function sequence(...parts: readonly Uint8Array[]): Uint8Array {
  return tlv(TAG.sequence, ...parts)
}

/** SET OF: DER orders the elements by their encodings (X.690 §11.6). */
export function setOf(elements: readonly Uint8Array[]): Uint8Array {
  return tlv(TAG.set, ...[...elements].sort((a, b) => Buffer.compare(a, b)))
}

/** Bytes of tag and length before a content of `length` bytes. */
export function headerSize(length: number): number {
  if (length < 0x80) return 2
  if (length < 0x100) return 3
  return length < 0x10000 ? 4 : 5
}

/** Writes tag and length at `pos` and returns where the content starts. */
export function writeHeader(out: Uint8Array, pos: number, tag: number, length: number): number {
  out[pos] = tag
  if (length < 0x80) {
    out[pos + 1] = length
    return pos + 2
  }
  if (length < 0x100) {
    out[pos + 1] = 0x81
    out[pos + 2] = length
    return pos + 3
  }
  if (length < 0x10000) {
    out[pos + 1] = 0x82
    out[pos + 2] = length >> 8
    out[pos + 3] = length & 0xff
    return pos + 4
  }
  if (length >= 0x1000000) throw malformed('element is too long')
  out[pos + 1] = 0x83
  out[pos + 2] = length >> 16
  out[pos + 3] = (length >> 8) & 0xff
  out[pos + 4] = length & 0xff
  return pos + 5
}

/** A non-negative INTEGER from a big-endian magnitude. */
export function encodeUnsigned(magnitude: Uint8Array): Uint8Array {
  let start = 0
  while (start < magnitude.length - 1 && magnitude[start] === 0) start++
  const bytes = magnitude.subarray(start)
  if (bytes.length === 0) return tlv(TAG.integer, Uint8Array.of(0))
  return bytes[0]! >= 0x80 ? tlv(TAG.integer, Uint8Array.of(0), bytes) : tlv(TAG.integer, bytes)
}

export function encodeSmallUnsigned(value: number): Uint8Array {
  const magnitude: number[] = []
  for (let rest = value; rest > 0; rest = Math.floor(rest / 256)) magnitude.unshift(rest % 256)
  return encodeUnsigned(Uint8Array.from(magnitude))
}

export function encodeOid(dotted: string): Uint8Array {
  const arcs = dotted.split('.').map(Number)
  const bytes: number[] = []
  for (const arc of [arcs[0]! * 40 + arcs[1]!, ...arcs.slice(2)]) {
    const group = [arc % 128]
    for (let rest = Math.floor(arc / 128); rest > 0; rest = Math.floor(rest / 128)) {
      group.unshift((rest % 128) | 0x80)
    }
    bytes.push(...group)
  }
  return tlv(TAG.oid, Uint8Array.from(bytes))
}

export function encodeOctetBits(bytes: Uint8Array): Uint8Array {
  return tlv(TAG.bitString, Uint8Array.of(0), bytes)
}

/** A BIT STRING of named bits, trailing zero bits dropped. */
export function encodeNamedBits(bits: readonly number[]): Uint8Array {
  if (bits.length === 0) return tlv(TAG.bitString, Uint8Array.of(0))
  const top = Math.max(...bits)
  const bytes = new Uint8Array((top >> 3) + 1)
  for (const bit of bits) bytes[bit >> 3] = bytes[bit >> 3]! | (0x80 >> (bit & 7))
  return tlv(TAG.bitString, Uint8Array.of(7 - (top & 7)), bytes)
}
