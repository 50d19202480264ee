/**
 * The few protobuf primitives that the hot messages need (spec/signing.md §3.5): a strict cursor
 * over a received message that hands out views, and writers into one buffer of known size.
 *
 * Stricter than the generated code where that only affects broken senders: groups, overlong
 * varints and invalid UTF-8 are refused, as Go does. Unknown fields are skipped.
 */
import { isUtf8 } from 'node:buffer'
import { SignetError } from '../../base/error.ts'

const WIRE_VARINT = 0
const WIRE_FIXED64 = 1
const WIRE_BYTES = 2
const WIRE_FIXED32 = 5

export interface Cursor {
  readonly bytes: Buffer
  pos: number
  readonly end: number
}

/** What the generated codecs find wrong has no text of its own. */
export const UNREADABLE = 'cannot parse invalid wire-format data'

/** In grpc-go's words. */
export function malformedMessage(what: string, cause?: unknown): SignetError {
  const text = `grpc: error unmarshalling request: proto: ${what}`
  return new SignetError('internal', 'malformed_message', text, { cause })
}

/** A tag: field number * 8 + wire type. */
export function readTag(cursor: Cursor): number {
  const tag = readUint32(cursor)
  if (tag < 8) throw malformedMessage('field number is zero')
  return tag
}

/** A varint that must fit 32 bits: tags and lengths. */
function readUint32(cursor: Cursor): number {
  const { bytes } = cursor
  let value = 0
  for (let shift = 0; shift < 35; shift += 7) {
    if (cursor.pos >= cursor.end) throw malformedMessage('truncated varint')
    const byte = bytes[cursor.pos++]!
    value += (byte & 0x7f) * 2 ** shift
    if (byte < 0x80) {
      if (value > 0xffffffff) break
      return value
    }
  }
  throw malformedMessage('varint is too long')
}

/** Steps over a length and returns where its content ends; `pos` is left at the content. */
export function readLength(cursor: Cursor): number {
  const length = readUint32(cursor)
  if (length > cursor.end - cursor.pos) throw malformedMessage('field exceeds its message')
  return cursor.pos + length
}

export function readBytes(cursor: Cursor): Buffer {
  const end = readLength(cursor)
  const view = cursor.bytes.subarray(cursor.pos, end)
  cursor.pos = end
  return view
}

export function readString(cursor: Cursor): string {
  const end = readLength(cursor)
  const { bytes, pos } = cursor
  cursor.pos = end
  for (let i = pos; i < end; i++) {
    if (bytes[i]! >= 0x80) return readUnicode(bytes.subarray(pos, end))
  }
  return bytes.toString('latin1', pos, end)
}

export function skipField(cursor: Cursor, tag: number): void {
  const wireType = tag & 7
  if (wireType === WIRE_VARINT) skipVarint(cursor)
  else if (wireType === WIRE_BYTES) cursor.pos = readLength(cursor)
  else if (wireType === WIRE_FIXED64) skipBytes(cursor, 8)
  else if (wireType === WIRE_FIXED32) skipBytes(cursor, 4)
  else throw malformedMessage('unsupported wire type')
}

function readUnicode(view: Buffer): string {
  if (!isUtf8(view)) throw malformedMessage('string is not valid UTF-8')
  return view.toString('utf8')
}

function skipVarint(cursor: Cursor): void {
  for (let i = 0; i < 10; i++) {
    if (cursor.pos >= cursor.end) throw malformedMessage('truncated varint')
    if (cursor.bytes[cursor.pos++]! < 0x80) return
  }
  throw malformedMessage('varint is too long')
}

function skipBytes(cursor: Cursor, size: number): void {
  if (size > cursor.end - cursor.pos) throw malformedMessage('truncated field')
  cursor.pos += size
}

/** Bytes of a non-negative integer as a varint. */
export function varintSize(value: number): number {
  let size = 1
  for (let rest = value; rest >= 0x80; rest = Math.floor(rest / 0x80)) size++
  return size
}

/** Bytes of a length-delimited field with a one-byte tag. */
export function fieldSize(length: number): number {
  return 1 + varintSize(length) + length
}

/** The writers return where they stopped. */
export function writeVarint(out: Buffer, pos: number, value: number): number {
  let rest = value
  let at = pos
  while (rest >= 0x80) {
    out[at++] = (rest % 0x80) | 0x80
    rest = Math.floor(rest / 0x80)
  }
  out[at++] = rest
  return at
}

export function writeHeader(out: Buffer, pos: number, tag: number, length: number): number {
  out[pos] = tag
  return writeVarint(out, pos + 1, length)
}

export function writeBytes(out: Buffer, pos: number, tag: number, bytes: Uint8Array): number {
  const at = writeHeader(out, pos, tag, bytes.length)
  out.set(bytes, at)
  return at + bytes.length
}

/** For text known to be ASCII: SPIFFE IDs, compact JWS. */
export function writeAscii(out: Buffer, pos: number, tag: number, text: string): number {
  const at = writeHeader(out, pos, tag, text.length)
  return at + out.write(text, at, text.length, 'latin1')
}

export function writeUtf8(out: Buffer, pos: number, tag: number, text: string): number {
  const length = Buffer.byteLength(text)
  const at = writeHeader(out, pos, tag, length)
  return at + out.write(text, at, length, 'utf8')
}
