/** Serial numbers of everything Signet signs (RFC 5280 §4.1.2.2, reliability.md I1). */
import { assert } from '../../base/assert.ts'
import type { Random } from '../../base/ports.ts'

export const SERIAL_BYTES = 16

export function newSerialNumber(random: Random): Uint8Array {
  const serial = random.bytes(SERIAL_BYTES)
  assert(serial.length === SERIAL_BYTES, 'the random source returned the size asked for')
  // DER integers are signed. Leading bits 01 keep the serial positive, non-zero and always 16 bytes
  // long, so bulk signing can patch it into a prebuilt TBSCertificate at a fixed offset. 126 random
  // bits are left: unique without an index to prove it.
  serial[0] = (serial[0]! & 0x3f) | 0x40
  return serial
}
