/**
 * Go's time layout `2006-01-02 15:04:05 -0700 -07`, in which CLI and API carry `expiresBefore`.
 */
import type { EpochSeconds } from '../../base/ports.ts'

const LAYOUT =
  /^(\d{4})-(\d{2})-(\d{2}) (\d{2}):(\d{2}):(\d{2})(?:[.,]\d+)? ([+-]\d{2})(\d{2}) ([+-]\d{2})$/

/** Undefined for text that is not in the layout or names no moment. */
export function parseGoTime(text: string): EpochSeconds | undefined {
  const match = LAYOUT.exec(text)
  if (match === null) return undefined
  const [, year, month, day, hour, minute, second, zoneHours, zoneMinutes] = match
  const local = `${year}-${month}-${day}T${hour}:${minute}:${second}`
  const ms = Date.parse(`${local}Z`)
  // Date.parse rolls 30 February over to March; Go refuses it.
  if (Number.isNaN(ms) || new Date(ms).toISOString().slice(0, 19) !== local) return undefined
  const sign = zoneHours!.startsWith('-') ? -1 : 1
  const zoneSeconds = sign * (Math.abs(Number(zoneHours)) * 3600 + Number(zoneMinutes) * 60)
  return ms / 1000 - zoneSeconds
}
