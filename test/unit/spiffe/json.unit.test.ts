import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { JSON_DEPTH_MAX } from '../../../src/base/limits.ts'
import { type JsonValue, parseJson, parseJsonBytes } from '../../../src/spiffe/jwks-json.ts'

/** As the platform writes it, which knows neither bigint nor a negative zero. */
function written(value: unknown): string {
  return JSON.stringify(value, (_, v) => (typeof v === 'bigint' ? Number(v) : v))
}

describe('JSON', () => {
  // Method: any JSON value, written by the platform, is read as the platform reads it.
  test('is read as JSON.parse reads it', () => {
    fc.assert(
      fc.property(fc.json(), (text) => {
        expect(written(parseJson(text))).toBe(JSON.stringify(JSON.parse(text)))
      }),
    )
  })

  // Method: JSON with one edit somewhere. What we accept, the platform accepts with the same value.
  test('is accepted only if JSON.parse accepts it', () => {
    const edit = fc.tuple(
      fc.json(),
      fc.nat(),
      fc.constantFrom('', '"', '{', ',', '\\', '0', '\n', ':', '\u0001'),
    )
    fc.assert(
      fc.property(edit, ([text, at, inserted]) => {
        const i = at % (text.length + 1)
        const edited = text.slice(0, i) + inserted + text.slice(i + (inserted === '' ? 1 : 0))
        let ours: JsonValue
        try {
          ours = parseJson(edited)
        } catch (error) {
          expect(error).toMatchObject({ code: 'malformed_json' })
          return
        }
        expect(written(ours)).toBe(JSON.stringify(JSON.parse(edited)))
      }),
      { numRuns: 1000 },
    )
  })

  test('keeps large integers exactly', () => {
    expect(parseJson('18446744073709551615')).toBe(18446744073709551615n)
    expect(parseJson('-9007199254740993')).toBe(-9007199254740993n)
    expect(parseJson('9007199254740991')).toBe(9007199254740991)
    expect(parseJson('1e20')).toBe(1e20)
  })

  test('members named like parts of objects stay members', () => {
    const value = parseJson('{"__proto__":{"polluted":true},"constructor":1}') as object
    expect(Object.keys(value)).toEqual(['__proto__', 'constructor'])
    expect(Object.getPrototypeOf(value)).toBe(Object.prototype)
    expect(({} as { polluted?: boolean }).polluted).toBeUndefined()
  })

  test('nesting is bounded at its limit', () => {
    const nested = (depth: number) => '['.repeat(depth) + ']'.repeat(depth)
    expect(parseJson(nested(JSON_DEPTH_MAX))).toBeDefined()
    expect(() => parseJson(nested(JSON_DEPTH_MAX + 1))).toThrow('nested too deep')
  })

  test.each([
    [
      '',
      '[1,]',
      '{"a":1,}',
      "{'a':1}",
      '{a:1}',
      '01',
      '+1',
      '.5',
      '1.',
      'NaN',
      'Infinity',
      'tru',
      '[1 2]',
    ],
    [
      '"\u0000"',
      '"a',
      '"\\x"',
      '"\\u12"',
      '"\\',
      '\ufeff1',
      '1 1',
      '{"a"}',
      '{"a":}',
      '[',
      '{',
      'undefined',
    ],
    ['"\\ud800"', '1e999', '{"a":1,"a":1}', '{"a":1,"\\u0061":1}', '\u00a01', '// x\n1'],
  ])('refuses %j and its like', (...texts) => {
    for (const text of texts) {
      expect(() => parseJson(text), text).toThrowError(
        expect.objectContaining({ code: 'malformed_json' }),
      )
    }
  })

  test('long texts and deep garbage take linear time', () => {
    const start = performance.now()
    expect(parseJson(`"${'a'.repeat(4_000_000)}"`)).toHaveLength(4_000_000)
    for (const text of [
      `"${'\\'.repeat(999_999)}`,
      `"${'a'.repeat(1_000_000)}`,
      '['.repeat(1_000_000),
      '1'.repeat(1_000_000),
    ]) {
      expect(() => parseJson(text)).toThrow()
    }
    expect(performance.now() - start).toBeLessThan(2000)
  })

  test('bytes must be UTF-8', () => {
    expect(parseJsonBytes(Buffer.from('"ü"'))).toBe('ü')
    expect(() => parseJsonBytes(Buffer.from('"\xff"', 'latin1'))).toThrow('not UTF-8')
    expect(() => parseJsonBytes(Buffer.from('"\xed\xa0\x80"', 'latin1'))).toThrow('not UTF-8')
  })
})
