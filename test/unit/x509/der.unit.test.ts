import { describe, expect, test } from 'vitest'
import { SignetError } from '../../../src/base/error.ts'
import {
  atEnd,
  decodeOid,
  derCursor,
  encodeNamedBits,
  encodeSmallUnsigned,
  encodeUnsigned,
  enter,
  expectEnd,
  headerSize,
  readBoolean,
  readContent,
  readElement,
  readNamedBits,
  readOctetBits,
  readSmallUnsigned,
  readUnsigned,
  setOf,
  TAG,
  tlv,
  writeHeader,
} from '../../../src/x509/der.ts'

const hex = (text: string) => new Uint8Array(Buffer.from(text.replaceAll(' ', ''), 'hex'))
const refuses = (read: () => unknown) => {
  try {
    read()
  } catch (thrown) {
    expect(thrown).toBeInstanceOf(SignetError)
    expect((thrown as SignetError).code).toBe('malformed_der')
    return
  }
  throw new Error('was accepted')
}

describe('lengths', () => {
  test.each([
    ['indefinite', '30 80 00 00'],
    ['long form under 128', '04 81 01 aa'],
    ['leading zero', '04 82 00 80'],
    ['too many length bytes', '04 84 00 00 00 01 aa'],
    ['reserved first byte', '04 ff'],
    ['truncated length', '04 82 01'],
    ['content beyond the end', '04 05 00 00'],
    ['no length', '04'],
    ['nothing', ''],
    ['multi-byte tag', '1f 81 01 00'],
  ])('%s is refused', (_name, text) => {
    const bytes = hex(text)
    refuses(() => readContent(derCursor(bytes), bytes[0] ?? TAG.octetString))
  })

  test.each([0, 1, 127, 128, 255, 256, 65_535, 65_536])('%i bytes survive', (length) => {
    const element = tlv(TAG.octetString, new Uint8Array(length).fill(7))
    expect(element.length).toBe(headerSize(length) + length)
    const cursor = derCursor(element)
    expect(readContent(cursor, TAG.octetString).length).toBe(length)
    expect(atEnd(cursor)).toBe(true)
  })

  test('more than 16 MiB is not written', () => {
    refuses(() => writeHeader(new Uint8Array(8), 0, TAG.sequence, 0x1000000))
  })

  test('an inner element cannot leave its container', () => {
    // The inner OCTET STRING claims 4 bytes, its SEQUENCE holds 3, the buffer has enough.
    const cursor = enter(derCursor(hex('30 03 04 04 00 00 00 00')), TAG.sequence)
    refuses(() => readContent(cursor, TAG.octetString))
  })
})

describe('integers', () => {
  test.each([
    ['02 01 00', '00'],
    ['02 01 7f', '7f'],
    ['02 02 00 80', '80'],
    ['02 02 01 00', '0100'],
  ])('%s is %s', (text, magnitude) => {
    expect(Buffer.from(readUnsigned(derCursor(hex(text)))).toString('hex')).toBe(magnitude)
    expect(Buffer.from(encodeUnsigned(hex(magnitude))).toString('hex')).toBe(
      text.replaceAll(' ', ''),
    )
  })

  test.each([
    ['empty', '02 00'],
    ['negative', '02 01 80'],
    ['padded', '02 02 00 7f'],
  ])('%s is refused', (_name, text) => refuses(() => readUnsigned(derCursor(hex(text)))))

  test('small numbers', () => {
    for (const value of [0, 1, 127, 128, 65_537, 2 ** 32 - 1]) {
      expect(readSmallUnsigned(derCursor(encodeSmallUnsigned(value)))).toBe(value)
    }
    refuses(() => readSmallUnsigned(derCursor(encodeSmallUnsigned(2 ** 32))))
  })
})

describe('bits, booleans, identifiers', () => {
  test.each([
    ['01 01 01', 'boolean that is neither'],
    ['01 02 ff ff', 'long boolean'],
  ])('%s is refused: %s', (text) => refuses(() => readBoolean(derCursor(hex(text)))))

  test('named bits', () => {
    for (const bits of [[], [0], [5, 6], [8], [0, 2, 4]]) {
      expect(readNamedBits(derCursor(encodeNamedBits(bits)))).toEqual(bits)
    }
    // RFC 5280 keyUsage of a CA: keyCertSign and cRLSign.
    expect(Buffer.from(encodeNamedBits([5, 6])).toString('hex')).toBe('03020106')
  })

  test.each([
    ['trailing zero bits', '03 02 00 06'],
    ['unused bits set', '03 02 01 07'],
    ['eight unused bits', '03 02 08 00'],
    ['unused bits of nothing', '03 01 01'],
    ['empty', '03 00'],
  ])('named bits with %s are refused', (_name, text) =>
    refuses(() => readNamedBits(derCursor(hex(text)))),
  )

  test('a key or signature of broken bytes is refused', () => {
    refuses(() => readOctetBits(derCursor(hex('03 02 04 f0'))))
  })

  test.each([
    ['2a8648ce3d0201', '1.2.840.10045.2.1'],
    ['551d0f', '2.5.29.15'],
    ['2b', '1.3'],
    ['8837', '2.999'],
  ])('identifier %s is %s', (text, dotted) => expect(decodeOid(hex(text))).toBe(dotted))

  test.each([
    ['padded', '2a8001'],
    ['unfinished', '2a86'],
    ['empty', ''],
    ['huge', '2affffffffffffffffff7f'],
  ])('%s identifier is refused', (_name, text) => refuses(() => decodeOid(hex(text))))
})

test('elements are views, and nothing may follow', () => {
  const bytes = hex('05 00 05 00')
  const cursor = derCursor(bytes)
  const element = readElement(cursor)
  expect(element.buffer).toBe(bytes.buffer)
  refuses(() => expectEnd(cursor))
})

test('a SET OF is ordered by its encodings', () => {
  const set = setOf([hex('0402ffff'), hex('040100'), hex('0401ff')])
  expect(Buffer.from(set).toString('hex')).toBe('310a0401000401ff0402ffff')
})
