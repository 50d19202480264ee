/** Random UUIDs (RFC 9562 §5.4) from the injected source. */
import { toHex } from '../../base/bytes.ts'
import type { Random } from '../../base/ports.ts'

export function randomUuid(random: Random): string {
  const bytes = random.bytes(16)
  bytes[6] = (bytes[6]! & 0x0f) | 0x40
  bytes[8] = (bytes[8]! & 0x3f) | 0x80
  const hex = toHex(bytes)
  return [0, 8, 12, 16, 20].map((at, i, ats) => hex.slice(at, ats[i + 1])).join('-')
}
