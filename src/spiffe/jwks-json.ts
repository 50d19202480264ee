/**
 * JSON (RFC 8259) as security documents need it: duplicate member names are refused (two readers
 * would see two documents), nesting is bounded, and integers beyond 2^53 keep their value as
 * bigint.
 */
import { SignetError } from '../base/error.ts'
import { JSON_DEPTH_MAX } from '../base/limits.ts'

export type JsonValue =
  | null
  | boolean
  | number
  | bigint
  | string
  | readonly JsonValue[]
  | { readonly [name: string]: JsonValue }

export type JsonObject = { readonly [name: string]: JsonValue }

interface Reader {
  readonly text: string
  pos: number
  depth: number
}

/** Throws invalid_argument `malformed_json`. */
export function parseJson(text: string): JsonValue {
  const reader = { text, pos: 0, depth: 0 }
  const value = readValue(reader)
  skipSpace(reader)
  if (reader.pos !== text.length) throw malformed('text after the value')
  return value
}

/** The same from bytes, which must be UTF-8. */
export function parseJsonBytes(bytes: Uint8Array): JsonValue {
  let text: string
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch {
    throw malformed('not UTF-8')
  }
  return parseJson(text)
}

export function isJsonObject(value: JsonValue | undefined): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function readValue(reader: Reader): JsonValue {
  skipSpace(reader)
  switch (reader.text[reader.pos]) {
    case '{':
      return nested(reader, readObject)
    case '[':
      return nested(reader, readArray)
    case '"':
      return readString(reader)
    case 't':
      return readWord(reader, 'true', true)
    case 'f':
      return readWord(reader, 'false', false)
    case 'n':
      return readWord(reader, 'null', null)
    default:
      return readNumber(reader)
  }
}

function nested<T>(reader: Reader, read: (reader: Reader) => T): T {
  reader.depth++
  if (reader.depth > JSON_DEPTH_MAX) throw malformed('nested too deep')
  reader.pos++
  const value = read(reader)
  reader.depth--
  return value
}

function readObject(reader: Reader): JsonObject {
  const members = new Map<string, JsonValue>()
  if (take(reader, '}')) return {}
  do {
    skipSpace(reader)
    const name = readString(reader)
    if (members.has(name)) throw malformed('duplicate member name')
    expect(reader, ':')
    members.set(name, readValue(reader))
  } while (take(reader, ','))
  expect(reader, '}')
  // fromEntries defines own properties: a member named `__proto__` stays a member.
  return Object.fromEntries(members)
}

function readArray(reader: Reader): JsonValue[] {
  const values: JsonValue[] = []
  if (take(reader, ']')) return values
  do values.push(readValue(reader))
  while (take(reader, ','))
  expect(reader, ']')
  return values
}

const NUMBER = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y

/** The end is found by hand: a pattern for it would need a stack as deep as the text is long. */
function readString(reader: Reader): string {
  const { text, pos: start } = reader
  if (text[start] !== '"') throw malformed('unexpected character or end')
  let end = start + 1
  while (text[end] !== '"') {
    if (end >= text.length || text.charCodeAt(end) < 0x20) throw malformed('text does not end')
    end += text[end] === '\\' ? 2 : 1
  }
  reader.pos = end + 1
  return unescapeText(text.slice(start, reader.pos))
}

function unescapeText(token: string): string {
  let value: string
  try {
    value = JSON.parse(token) as string
  } catch {
    throw malformed('bad escape')
  }
  if (!value.isWellFormed()) throw malformed('text with half a character')
  return value
}

function readNumber(reader: Reader): number | bigint {
  NUMBER.lastIndex = reader.pos
  const token = NUMBER.exec(reader.text)?.[0]
  if (token === undefined) throw malformed('unexpected character or end')
  reader.pos += token.length
  const value = Number(token)
  if (!Number.isFinite(value)) throw malformed('number out of range')
  return Number.isSafeInteger(value) || !/^-?\d+$/.test(token) ? value : BigInt(token)
}

function readWord<T>(reader: Reader, word: string, value: T): T {
  if (!reader.text.startsWith(word, reader.pos)) throw malformed('unexpected character or end')
  reader.pos += word.length
  return value
}

function take(reader: Reader, character: string): boolean {
  skipSpace(reader)
  if (reader.text[reader.pos] !== character) return false
  reader.pos++
  return true
}

function expect(reader: Reader, character: string): void {
  if (!take(reader, character)) throw malformed('unexpected character or end')
}

function skipSpace(reader: Reader): void {
  const { text } = reader
  while (' \t\n\r'.includes(text[reader.pos] ?? 'x')) reader.pos++
}

function malformed(what: string): SignetError {
  return new SignetError('invalid_argument', 'malformed_json', `malformed JSON: ${what}`)
}
