/**
 * The JSON form of a configuration file. HCL's decoder takes a text whose first character is `{`
 * for JSON; so do we. Becomes the same plain values as HCL (`raw.ts`).
 */
import { SignetError } from '../error.ts'
import { CONFIG_BYTES_MAX, CONFIG_DEPTH_MAX } from '../limits.ts'
import type { Raw, RawObject } from './value.ts'

export function looksLikeJson(text: string): boolean {
  return /^\s*\{/.test(text)
}

export function parseJsonConfig(text: string): RawObject {
  if (Buffer.byteLength(text) > CONFIG_BYTES_MAX) {
    throw bad(`configuration is larger than ${CONFIG_BYTES_MAX} bytes`)
  }
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (cause) {
    throw new SignetError('invalid_argument', 'bad_json', jsonComplaint(text, cause), { cause })
  }
  const raw = toRaw(value, 0)
  if (typeof raw !== 'object' || Array.isArray(raw)) throw bad('the file must hold one JSON object')
  return raw as RawObject
}

function toRaw(value: unknown, depth: number): Raw {
  if (depth > CONFIG_DEPTH_MAX) throw bad(`nested deeper than ${CONFIG_DEPTH_MAX} levels`)
  // HCL reads null as the empty string.
  if (value === null || value === undefined) return ''
  if (Array.isArray(value)) return value.map((item) => toRaw(item, depth + 1))
  if (typeof value !== 'object') return value as string | number | boolean
  // fromEntries defines own properties, so a key `__proto__` stays a key.
  return Object.fromEntries(
    Object.entries(value).map(([key, item]) => [key, toRaw(item, depth + 1)]),
  )
}

/** V8's own text quotes the file, which may hold a secret; only the place is told. */
function jsonComplaint(text: string, cause: unknown): string {
  const at = /position (\d+)/.exec(cause instanceof Error ? cause.message : '')?.[1]
  const before = text.slice(0, at === undefined ? text.length : Number(at)).split('\n')
  return `At ${before.length}:${before.at(-1)!.length + 1}: not valid JSON`
}

function bad(text: string): SignetError {
  return new SignetError('invalid_argument', 'bad_json', text)
}
