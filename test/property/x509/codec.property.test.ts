import fc from 'fast-check'
import { expect, test } from 'vitest'
import { bytesEqual } from '../../../src/base/bytes.ts'
import {
  decodeOid,
  derCursor,
  encodeOid,
  encodeUnsigned,
  readOid,
  readUnsigned,
} from '../../../src/x509/der.ts'
import { encodeName, formatName, nameFields, normalizeName } from '../../../src/x509/name.ts'
import { formatPem, parsePem } from '../../../src/x509/pem.ts'
import { encodeTime, readTime } from '../../../src/x509/time.ts'

// Method: every day of ten centuries by JavaScript's own calendar, at a random second.
test('times survive, in the form their year asks for', () => {
  const from = Date.UTC(1900, 0, 1) / 86_400_000
  const to = Date.UTC(2900, 0, 1) / 86_400_000
  fc.assert(
    fc.property(
      fc.integer({ min: from, max: to }),
      fc.integer({ min: 0, max: 86_399 }),
      (day, s) => {
        const time = day * 86_400 + s
        const der = encodeTime(time)
        const [date, clock] = new Date(time * 1000).toISOString().split(/[T.]/)
        const digits = `${date}${clock}`.replace(/[-:]/g, '')
        const year = Number(digits.slice(0, 4))
        const short = year >= 1950 && year < 2050
        expect(Buffer.from(der.subarray(2)).toString()).toBe(`${short ? digits.slice(2) : digits}Z`)
        expect(readTime(derCursor(der))).toBe(time)
      },
    ),
    { numRuns: 2000 },
  )
})

test('integers and identifiers survive', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 1, maxLength: 40 }), (bytes) => {
      const read = readUnsigned(derCursor(encodeUnsigned(bytes)))
      expect(BigInt(`0x${Buffer.from(read).toString('hex')}`)).toBe(
        BigInt(`0x${Buffer.from(bytes).toString('hex')}`),
      )
    }),
  )
  const arcs = fc.tuple(
    fc.integer({ min: 0, max: 2 }),
    fc.integer({ min: 0, max: 39 }),
    fc.array(fc.nat()),
  )
  fc.assert(
    fc.property(arcs, ([first, second, rest]) => {
      const dotted = [first, second, ...rest.slice(0, 8)].join('.')
      const element = encodeOid(dotted)
      expect(readOid(derCursor(element))).toBe(dotted)
      expect(decodeOid(element.subarray(2))).toBe(dotted)
    }),
  )
})

test('names survive, and normalising twice changes nothing', () => {
  const text = fc.string({ unit: 'grapheme', minLength: 1, maxLength: 30 })
  const texts = fc.array(text, { minLength: 1, maxLength: 1 })
  const fields = fc.record(
    { country: texts, organization: texts, organizationalUnit: texts, commonName: texts },
    { requiredKeys: [] },
  )
  fc.assert(
    fc.property(fields, (name) => {
      const der = encodeName(name)
      expect(nameFields(der)).toEqual(name)
      expect(bytesEqual(normalizeName(der), der)).toBe(true)
      formatName(der)
    }),
  )
})

test('PEM survives', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (der) => {
      expect(parsePem(`noise\n${formatPem('CERTIFICATE', der)}noise`)).toEqual([
        { label: 'CERTIFICATE', der },
      ])
    }),
  )
})
