/**
 * One log line in logrus' text form (features.md §4.4): `time="…" level=info msg="…" key=value`,
 * keys sorted, values quoted as Go's `%q` does when they hold anything but a few safe characters.
 * Scripts and SPIRE's own suites grep these lines. Pure.
 */
import { SignetError } from './error.ts'
import { LOG_FIELD_CHARS_MAX, LOG_FIELDS_MAX } from './limits.ts'
import type { EpochSeconds, LogFields } from './ports.ts'
import { isSystemError, systemErrorText } from './system-error.ts'
import { rfc3339, utcTime } from './time-text.ts'

/** logrus' order: the lower, the graver. */
export const LOG_LEVELS = ['panic', 'fatal', 'error', 'warning', 'info', 'debug', 'trace'] as const
export type LogLevel = (typeof LOG_LEVELS)[number]

/** Empty: nothing was configured, which is logrus' own text form. */
export type LogFormat = '' | 'text' | 'json'

/** What Go writes by its name in the text forms and bare in JSON: codes, enums, times. */
export class TwoForms {
  readonly text: string
  readonly json: string | number

  constructor(text: string, json: string | number) {
    this.text = text
    this.json = json
  }
}

/** A Go `time.Time` as a field. */
export function logTime(at: EpochSeconds): TwoForms {
  return new TwoForms(utcTime(at), rfc3339(at))
}

/** Names of SPIRE's `log_level`, in any case; `WARN` and `WARNING` are one. */
export function parseLogLevel(text: string): LogLevel {
  const name = text.toLowerCase()
  const level = LOG_LEVELS.find((known) => known === (name === 'warn' ? 'warning' : name))
  if (level) return level
  throw new SignetError(
    'invalid_argument',
    'bad_log_level',
    `not a valid logrus Level: ${JSON.stringify(text)}`,
  )
}

/** Fields as they may be written: errors as text, long values cut, keys that would clash renamed. */
export function plainFields(fields: LogFields, format: LogFormat): Record<string, unknown> {
  const out: Record<string, unknown> = {}
  for (const key of Object.keys(fields).sort().slice(0, LOG_FIELDS_MAX)) {
    const value = fields[key]
    if (value === undefined) continue
    out[CLASHING.has(key) ? `fields.${key}` : key] = plainValue(value, format)
  }
  return out
}

/** logrus writes a caller's `time`, `level` and `msg` under another name; so do we. */
const CLASHING = new Set(['time', 'level', 'msg'])

function plainValue(value: unknown, format: LogFormat): unknown {
  if (typeof value === 'number' || typeof value === 'boolean' || value === null) return value
  if (typeof value === 'string') return boundText(value)
  if (typeof value === 'bigint') return value.toString()
  if (value instanceof Error) return boundText(errorText(value))
  if (value instanceof Uint8Array) return `[${value.length} bytes]`
  if (Array.isArray(value)) {
    return value.slice(0, LOG_FIELDS_MAX).map((item) => plainValue(item, format))
  }
  if (typeof value !== 'object') return boundText(String(value))
  if (value instanceof TwoForms) return format === 'json' ? value.json : value.text
  // Value types (SpiffeId, TrustDomain) print themselves; plain objects are written as JSON.
  if (value.toString !== Object.prototype.toString) return boundText(String(value))
  const fields = plainFields(value as LogFields, format)
  return format === 'json' ? fields : boundText(JSON.stringify(fields))
}

/** A cause may name itself: the walk ends. */
const ERROR_CAUSES_MAX = 5

/**
 * The message and those of its causes, never a stack: stacks and foreign error objects carry SQL
 * parameters and file paths.
 */
export function errorText(error: unknown): string {
  const parts: string[] = []
  let at = error
  for (let depth = 0; at !== undefined && depth < ERROR_CAUSES_MAX; depth++) {
    const text = textOfOne(at)
    // Many a message ends with its cause's.
    if (!parts.some((part) => part.includes(text))) parts.push(text)
    at = at instanceof Error ? at.cause : undefined
  }
  return parts.join(': ')
}

function textOfOne(error: unknown): string {
  if (isSystemError(error)) return systemErrorText(error)
  return error instanceof Error ? error.message || error.name : String(error)
}

const PRIVATE_KEY =
  /-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(-----END [A-Z ]*PRIVATE KEY-----|$)/g

/** Cuts long text. A PEM private key should never get here; should one, it is not written. */
export function boundText(text: string): string {
  const safe = text.includes('PRIVATE KEY') ? text.replace(PRIVATE_KEY, '[private key]') : text
  return safe.length <= LOG_FIELD_CHARS_MAX ? safe : `${safe.slice(0, LOG_FIELD_CHARS_MAX)}…`
}

export function textLine(
  time: string,
  level: LogLevel,
  message: string,
  fields: Readonly<Record<string, unknown>>,
): string {
  let line = `time=${quoted(time)} level=${level}`
  if (message !== '') line += ` msg=${quoted(message)}`
  for (const key of Object.keys(fields).sort()) line += ` ${key}=${quoted(goText(fields[key]))}`
  return `${line}\n`
}

/** As Go's fmt.Sprint prints it: lists in brackets, separated by blanks. */
function goText(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(goText).join(' ')}]`
  return value === null ? '<nil>' : String(value)
}

/** logrus quotes unless all characters are of this set; the empty string stays bare. */
function quoted(text: string): string {
  return /^[A-Za-z0-9\-._/@^+]*$/.test(text) ? text : goQuote(text)
}

const ESCAPES: Readonly<Record<string, string>> = {
  '\x07': '\\a',
  '\b': '\\b',
  '\f': '\\f',
  '\n': '\\n',
  '\r': '\\r',
  '\t': '\\t',
  '\v': '\\v',
  '"': '\\"',
  '\\': '\\\\',
}

/** Go's strconv.Quote. */
export function goQuote(text: string): string {
  const body = text.replace(/["\\]|[^\p{L}\p{M}\p{N}\p{P}\p{S} ]/gu, (char) => {
    const known = ESCAPES[char]
    if (known) return known
    const code = char.codePointAt(0)!
    // A lone surrogate has no UTF-8 form; Go sees the replacement character.
    if (code >= 0xd800 && code <= 0xdfff) return '\ufffd'
    if (code < 0x80) return `\\x${code.toString(16).padStart(2, '0')}`
    if (code < 0x10000) return `\\u${code.toString(16).padStart(4, '0')}`
    return `\\U${code.toString(16).padStart(8, '0')}`
  })
  return `"${body}"`
}

/**
 * RFC 3339 in local time. SPIRE prints whole seconds unless a format is configured, and fractions
 * without idle zeros then.
 */
export function localRfc3339(epochMs: number, precision: 'seconds' | 'milliseconds'): string {
  const offsetMinutes = -new Date(epochMs).getTimezoneOffset()
  const shifted = new Date(epochMs + offsetMinutes * 60_000).toISOString()
  const fraction = precision === 'seconds' ? '' : shifted.slice(19, 23).replace(/\.?0+$/, '')
  return `${shifted.slice(0, 19)}${fraction}${zone(offsetMinutes)}`
}

function zone(offsetMinutes: number): string {
  if (offsetMinutes === 0) return 'Z'
  const two = (n: number) => String(Math.floor(n)).padStart(2, '0')
  const size = Math.abs(offsetMinutes)
  return `${offsetMinutes < 0 ? '-' : '+'}${two(size / 60)}:${two(size % 60)}`
}
