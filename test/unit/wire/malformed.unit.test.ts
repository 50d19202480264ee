import { expect, test } from 'vitest'
import { Entry } from '../../../src/wire/gen/spire/api/types/entry.ts'

/** What Go's decoder refuses is refused, never read as something else. */
test.each([
  ['a field number of zero', '00'],
  ['a field number of zero and a length', '0200'],
  ['a field number of zero inside a message', '1203001a00'],
  ['the end of a group that never began', '7c'],
  ['the end of another group', 'fb0108018402'],
  ['a group without an end', 'fb010801'],
  ['a message that ends behind the one it is in', '12030a056161616161'],
  ['a wire type that there is not', '0f'],
])('%s', (_, hex) => {
  expect(() => Entry.decode(Buffer.from(hex, 'hex'))).toThrow()
})

test.each([
  ['a group', 'fb010801fc01'],
  ['groups in one another', 'fb010bfb01fc010cfc01'],
  ['a field', 'f80701'],
])('%s that nobody knows is read past', (_, hex) => {
  const id = Buffer.from('0a0178', 'hex')
  expect(Entry.decode(Buffer.concat([Buffer.from(hex, 'hex'), id])).id).toBe('x')
})
