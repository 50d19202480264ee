/**
 * Go's time layout `2006-01-02 15:04:05 -0700 -07`, in which CLI and API carry `expiresBefore`.
 */
import { goQuote } from '../../base/log-text.ts'
import type { EpochSeconds } from '../../base/ports.ts'

const LAYOUT = '2006-01-02 15:04:05 -0700 -07'

interface Element {
  readonly before: string
  readonly pattern: RegExp
  readonly layout: string
}

const ELEMENTS: readonly Element[] = [
  { before: '', pattern: /^\d{4}/, layout: '2006' },
  { before: '-', pattern: /^\d{2}/, layout: '01' },
  { before: '-', pattern: /^\d{2}/, layout: '02' },
  { before: ' ', pattern: /^\d{1,2}/, layout: '15' },
  { before: ':', pattern: /^\d{2}/, layout: '04' },
  { before: ':', pattern: /^\d{2}(?:[.,]\d+)?/, layout: '05' },
  { before: ' ', pattern: /^[+-]\d{4}/, layout: '-0700' },
  { before: ' ', pattern: /^[+-]\d{2}/, layout: '-07' },
]

/** Undefined for text that is not in the layout or names no moment. */
export function parseGoTime(text: string): EpochSeconds | undefined {
  const read = readGoTime(text)
  return typeof read === 'number' ? read : undefined
}

/** What Go says of text that `parseGoTime` can't read; empty for text that it can. */
export function goTimeComplaint(text: string): string {
  const read = readGoTime(text)
  return typeof read === 'number' ? '' : `parsing time ${goQuote(text)}${read}`
}

/** The moment, or the end of the complaint. */
function readGoTime(text: string): EpochSeconds | string {
  const parts: string[] = []
  let rest = text
  for (const { before, pattern, layout } of ELEMENTS) {
    const after = skip(rest, before)
    if (after === undefined) return cannot(rest, before)
    const part = pattern.exec(after)?.[0]
    if (part === undefined) return cannot(after, layout)
    parts.push(part)
    rest = after.slice(part.length)
  }
  if (rest !== '') return `: extra text: ${goQuote(rest)}`
  return moment(parts.map((part) => part.replace(/[.,].*$/, '')))
}

/** Undefined when something else stands there. To Go many blanks are one, and so is the end. */
function skip(text: string, before: string): string | undefined {
  if (before === ' ' && (text === '' || text.startsWith(' '))) return text.replace(/^ +/, '')
  return text.startsWith(before) ? text.slice(before.length) : undefined
}

function cannot(rest: string, expected: string): string {
  return ` as ${goQuote(LAYOUT)}: cannot parse ${goQuote(rest)} as ${goQuote(expected)}`
}

function moment(parts: readonly string[]): EpochSeconds | string {
  const [year, month, day, hour, minute, second, zone, zoneHour] = parts as [string, ...string[]]
  const zoneHours = Number(zone!.slice(1, 3))
  const zoneMinutes = Number(zone!.slice(3))
  const ranges: readonly (readonly [string, number, number, number])[] = [
    ['month', Number(month), 1, 12],
    ['hour', Number(hour), 0, 23],
    ['minute', Number(minute), 0, 59],
    ['second', Number(second), 0, 59],
    ['time zone offset hour', zoneHours, 0, 24],
    ['time zone offset minute', zoneMinutes, 0, 60],
    ['time zone offset hour', Number(zoneHour!.slice(1)), 0, 24],
  ]
  const wrong = ranges.find(([, value, min, max]) => value < min || value > max)
  if (wrong !== undefined) return `: ${wrong[0]} out of range`
  const local = `${year}-${month}-${day}T${hour!.padStart(2, '0')}:${minute}:${second}`
  const ms = Date.parse(`${local}Z`)
  // Date.parse rolls 30 February over to March; Go refuses it.
  if (Number.isNaN(ms) || new Date(ms).toISOString().slice(0, 19) !== local) {
    return ': day out of range'
  }
  const sign = zone!.startsWith('-') ? -1 : 1
  return ms / 1000 - sign * (zoneHours * 3600 + zoneMinutes * 60)
}
