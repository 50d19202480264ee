/**
 * Times of certificates (RFC 5280 §4.1.2.5): UTCTime until 2049, GeneralizedTime from 2050 on, both
 * with seconds and `Z`. Everywhere else a time is whole epoch seconds.
 */
import type { EpochSeconds } from '../base/ports.ts'
import { type DerCursor, malformed, peekTag, readContent, TAG } from './der.ts'

const SECONDS_OF_2050 = 2_524_608_000
const DAY = 86_400

export function readTime(cursor: DerCursor): EpochSeconds {
  const tag = peekTag(cursor)
  if (tag !== TAG.utcTime && tag !== TAG.generalizedTime) throw malformed('expected a time')
  const content = readContent(cursor, tag)
  const yearDigits = tag === TAG.utcTime ? 2 : 4
  if (content.length !== yearDigits + 11 || content[yearDigits + 10] !== 0x5a) {
    throw malformed('time is not in the form of RFC 5280')
  }
  const shortYear = digits(content, 0, yearDigits)
  const year = yearDigits === 4 ? shortYear : shortYear + (shortYear < 50 ? 2000 : 1900)
  const at = (pair: number) => digits(content, yearDigits + 2 * pair, 2)
  const [month, day, hour, minute, second] = [at(0), at(1), at(2), at(3), at(4)]
  if (hour > 23 || minute > 59 || second > 59) throw malformed('time out of range')
  const days = daysFromCivil(year, month, day)
  const back = civilFromDays(days)
  if (back.year !== year || back.month !== month || back.day !== day) {
    throw malformed('no such date')
  }
  return days * DAY + hour * 3600 + minute * 60 + second
}

/** Bytes that `writeTime` needs, tag and length included. */
export function timeSize(time: EpochSeconds): number {
  return time < SECONDS_OF_2050 && time >= -631_152_000 ? 15 : 17
}

/** Writes the whole element at `pos` and returns where it ends. */
export function writeTime(out: Uint8Array, pos: number, time: EpochSeconds): number {
  const days = Math.floor(time / DAY)
  const rest = time - days * DAY
  const { year, month, day } = civilFromDays(days)
  if (year < 0 || year > 9999) throw malformed('year out of range')
  const short = timeSize(time) === 15
  out[pos] = short ? TAG.utcTime : TAG.generalizedTime
  out[pos + 1] = short ? 13 : 15
  let at = pos + 2
  if (!short) at = pair(out, at, Math.floor(year / 100))
  at = pair(out, at, year % 100)
  at = pair(out, at, month)
  at = pair(out, at, day)
  at = pair(out, at, Math.floor(rest / 3600))
  at = pair(out, at, Math.floor(rest / 60) % 60)
  at = pair(out, at, rest % 60)
  out[at] = 0x5a
  return at + 1
}

export function encodeTime(time: EpochSeconds): Uint8Array {
  const out = new Uint8Array(timeSize(time))
  writeTime(out, 0, time)
  return out
}

function pair(out: Uint8Array, at: number, value: number): number {
  out[at] = 0x30 + Math.floor(value / 10)
  out[at + 1] = 0x30 + (value % 10)
  return at + 2
}

function digits(content: Uint8Array, start: number, count: number): number {
  let value = 0
  for (let i = start; i < start + count; i++) {
    const digit = content[i]! - 0x30
    if (digit < 0 || digit > 9) throw malformed('time holds a non-digit')
    value = value * 10 + digit
  }
  return value
}

/** Days since the epoch of a proleptic Gregorian date; eras of 400 years start on 1 March. */
function daysFromCivil(year: number, month: number, day: number): number {
  const y = month <= 2 ? year - 1 : year
  const era = Math.floor(y / 400)
  const yearOfEra = y - era * 400
  const dayOfYear = Math.floor((153 * (month + (month > 2 ? -3 : 9)) + 2) / 5) + day - 1
  const leapDays = Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100)
  return era * 146_097 + yearOfEra * 365 + leapDays + dayOfYear - 719_468
}

function civilFromDays(days: number): { year: number; month: number; day: number } {
  const z = days + 719_468
  const era = Math.floor(z / 146_097)
  const dayOfEra = z - era * 146_097
  const yearOfEra = Math.floor(
    (dayOfEra -
      Math.floor(dayOfEra / 1460) +
      Math.floor(dayOfEra / 36_524) -
      Math.floor(dayOfEra / 146_096)) /
      365,
  )
  const dayOfYear =
    dayOfEra - (365 * yearOfEra + Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100))
  const m = Math.floor((5 * dayOfYear + 2) / 153)
  const month = m < 10 ? m + 3 : m - 9
  return {
    year: yearOfEra + era * 400 + (month <= 2 ? 1 : 0),
    month,
    day: dayOfYear - Math.floor((153 * m + 2) / 5) + 1,
  }
}
