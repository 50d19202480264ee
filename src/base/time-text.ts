/** Moments as Go prints them, in UTC. Pure. */
import type { EpochSeconds } from './ports.ts'

/** RFC 3339: `2026-01-02T15:04:05Z`. */
export function rfc3339(at: EpochSeconds): string {
  return `${new Date(at * 1000).toISOString().slice(0, 19)}Z`
}

/** `time.Time.String()`: `2026-01-02 15:04:05 +0000 UTC`. */
export function utcTime(at: EpochSeconds): string {
  return `${dateAndTime(at)} +0000 UTC`
}

/** `2026-01-02 15:04:05` */
export function dateAndTime(at: EpochSeconds): string {
  return new Date(at * 1000).toISOString().slice(0, 19).replace('T', ' ')
}
