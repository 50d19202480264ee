/**
 * ECDSA signatures from X.509's form to JWS's: DER `SEQUENCE { r, s }` (RFC 3279 §2.2.3) to r ‖ s
 * of fixed size (RFC 7518 §3.4, IEEE P1363). Strict, because it reads what a signing engine wrote:
 * a value that does not fit is a fault of ours, not input.
 */
import { assert } from '../../base/assert.ts'

const TAG_SEQUENCE = 0x30
const TAG_INTEGER = 0x02

export function derToP1363(der: Uint8Array, fieldBytes: number): Uint8Array {
  const out = new Uint8Array(2 * fieldBytes)
  // P-384 signatures stay below 128 bytes: the short form of a length is the only one there is.
  assert(der[0] === TAG_SEQUENCE && der[1] === der.length - 2, 'an ECDSA signature is a sequence')
  const end = copyInteger(der, 2, out.subarray(0, fieldBytes))
  assert(copyInteger(der, end, out.subarray(fieldBytes)) === der.length, 'it holds two integers')
  return out
}

/** Right-aligned into `out`; returns where the integer ended. */
function copyInteger(der: Uint8Array, start: number, out: Uint8Array): number {
  const length = der[start + 1] ?? 0
  const end = start + 2 + length
  assert(der[start] === TAG_INTEGER && length > 0 && end <= der.length, 'an integer has bytes')
  let first = start + 2
  const isPadded = der[first] === 0
  if (isPadded) first++
  // A sign byte only before a set high bit (X.690 §8.3.2); without one the value is not negative.
  assert(isPadded === (der[first] ?? 0) >= 0x80, 'the integer is positive and minimal')
  assert(first < end && end - first <= out.length, 'the integer fits the field')
  out.set(der.subarray(first, end), out.length - (end - first))
  return end
}
