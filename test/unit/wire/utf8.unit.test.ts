import { expect, test } from 'vitest'
import { NewJWTSVIDRequest } from '../../../src/wire/gen/spire/api/server/svid/v1/svid.ts'
import { JWTSVIDRequest } from '../../../src/wire/gen/workload.ts'

/** Field 1 with one byte that no UTF-8 text holds, between two that any does. */
const INVALID = Uint8Array.of(0x0a, 3, 0x61, 0xff, 0x62)
const REPLACEMENT = Uint8Array.of(0x0a, 3, 0xef, 0xbf, 0xbd)

test.each([
  ['a workload', JWTSVIDRequest],
  ['an agent', NewJWTSVIDRequest],
])('text of %s that is not UTF-8 is refused, not replaced', (_from, codec) => {
  expect(() => codec.decode(INVALID)).toThrow(/encoded data was not valid/)
  expect(codec.decode(REPLACEMENT)).toBeDefined()
})
