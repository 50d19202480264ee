/** How Go prints moments and counts: scripts cut these texts apart. Pure but for the local zone. */
import { formatGoDuration } from '../../base/duration.ts'
import type { EpochSeconds } from '../../base/ports.ts'
import { dateAndTime, rfc3339, utcTime } from '../../base/time-text.ts'

export { formatGoDuration, rfc3339, utcTime }

/** `time.Time.String()` in the local zone, which SPIRE uses for agents. */
export function localTime(at: EpochSeconds): string {
  const offsetMinutes = -new Date(at * 1000).getTimezoneOffset()
  const size = Math.abs(offsetMinutes)
  const two = (n: number) => String(Math.floor(n)).padStart(2, '0')
  const offset = `${offsetMinutes < 0 ? '-' : '+'}${two(size / 60)}${two(size % 60)}`
  return `${dateAndTime(at + offsetMinutes * 60)} ${offset} ${zoneName(at, offset)}`
}

/** `1 entry`, `2 entries`. */
export function plural(count: number, one: string, many: string): string {
  return count === 1 ? one : many
}

/** The zone's abbreviation; Go falls back to the offset where a zone has none. */
function zoneName(at: EpochSeconds, offset: string): string {
  const part = new Intl.DateTimeFormat('en-GB', { timeZoneName: 'short' })
    .formatToParts(new Date(at * 1000))
    .find((candidate) => candidate.type === 'timeZoneName')
  const name = part?.value ?? ''
  if (name === 'GMT' && Intl.DateTimeFormat().resolvedOptions().timeZone === 'UTC') return 'UTC'
  return /^(GMT|UTC)[+-]/.test(name) || name === '' ? offset.replace(/00$/, '') : name
}
