import { describe, expect, test } from 'vitest'
import { newUuid } from '../../../src/base/uuid.ts'
import { createSeededRandom } from '../../fakes/seeded-random.ts'

describe('random UUIDs', () => {
  test.each([
    [0x00, '00000000-0000-4000-8000-000000000000'],
    [0xff, 'ffffffff-ffff-4fff-bfff-ffffffffffff'],
  ])('bytes %i keep version 4 and the variant of RFC 9562', (byte, text) => {
    expect(newUuid({ bytes: (size) => new Uint8Array(size).fill(byte) })).toBe(text)
  })

  test('each one takes new bytes', () => {
    const random = createSeededRandom()
    expect(new Set(Array.from({ length: 100 }, () => newUuid(random))).size).toBe(100)
  })
})
