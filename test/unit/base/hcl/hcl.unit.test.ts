// biome-ignore-all lint/suspicious/noTemplateCurlyInString: dollars are the subject here
/** HCL v1 text to plain values: the language's shapes, its mistakes with their places, its limits. */
import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { SignetError } from '../../../../src/base/error.ts'
import { parseHcl } from '../../../../src/base/hcl/parser.ts'
import { mergeRaw, parseConfigText } from '../../../../src/base/hcl/raw.ts'
import { CONFIG_BYTES_MAX, CONFIG_DEPTH_MAX } from '../../../../src/base/limits.ts'

const NONE: ReadonlySet<string> = new Set()
const read = (text: string, repeatable = NONE) => parseConfigText(text, repeatable).value
const vector = (name: string) =>
  readFileSync(new URL(`../../../vectors/hcl/${name}`, import.meta.url), 'utf8')

function failure(run: () => unknown): SignetError {
  try {
    run()
  } catch (thrown) {
    if (thrown instanceof SignetError) return thrown
    throw thrown
  }
  throw new Error('nothing was thrown')
}

test('every shape of the language', () => {
  expect(read(vector('language.conf'))).toEqual({
    'quoted key': 1,
    empty: {},
    'a-b.c': -1500,
    octal: 15,
    list: [1, 'two', true, [3], { four: 4 }],
    nested: { one: { two: { three: 3 }, more: 1 } },
    text: 'first\n  second\n',
    indented: 'first\n  second\n',
    escapes: 'tab\tquote" back\\ eé é A',
    template: '${keep "this" as it is}',
    scalar: 2,
    repeated: [1, 2],
    commas: { a: 1, b: 2 },
    last: 'no line end after this',
  })
})

describe('what counts as the same', () => {
  test.each([
    ['a { b = 1 }', 'a = { b = 1 }'],
    ['a "b" { c = 1 }', 'a { b { c = 1 } }'],
    ['a { b = 1 } a { c = 2 }', 'a { b = 1 c = 2 }'],
    ['a = 1\r\nb = 2\r\n', 'a = 1\nb = 2\n'],
    ['a = 0x10', 'a = 16'],
    ['// c\na = 1 # d\n/* e\n*/ b = 2', 'a = 1 b = 2'],
    ['a = [1,,2]', 'a = [1, 2]'],
    ['{"a": {"b": [1]}}', 'a { b = [1] }'],
    ['{"a": null}', 'a = ""'],
  ])('%j and %j', (one, other) => {
    expect(read(one)).toEqual(read(other))
  })
})

test('repeated blocks are a list where the consumer says so', () => {
  const text = 'statsd { a = 1 } statsd { a = 2 }'
  expect(read(text, new Set(['statsd']))).toEqual({ statsd: [{ a: 1 }, { a: 2 }] })
  expect(read('statsd { a = 1 }', new Set(['statsd']))).toEqual({ statsd: [{ a: 1 }] })
})

describe('mistakes name their line and column', () => {
  test.each([
    ['a = ', 'At 1:5: unexpected EOF where a value should be'],
    ['a', "At 1:2: key 'a' expected start of object ('{') or assignment ('=')"],
    ['a {', 'At 1:4: object expected closing RBRACE got: EOF'],
    ['a {\n  b = 1\n', 'At 3:1: object expected closing RBRACE got: EOF'],
    ['}', 'At 1:1: expected: IDENT | STRING | ASSIGN | LBRACE got: RBRACE'],
    ['= 1', 'At 1:1: no object keys found!'],
    ['a b = 1', 'At 1:5: nested object expected: LBRACE got: ASSIGN'],
    ['a = [1 2]', 'At 1:8: error parsing list, expected comma or list end, got: NUMBER'],
    ['a = "x', 'At 1:5: literal not terminated'],
    ['a = "x\ny"', 'At 1:5: literal not terminated'],
    ['a = "\\q"', 'At 1:5: illegal char escape'],
    ['a = "\\ud800"', 'At 1:5: illegal char escape'],
    ['a = "\\777"', 'At 1:5: illegal char escape'],
    ['\n/* open', 'At 2:1: comment not terminated'],
    ['a = <<\nX', 'At 1:5: zero-length heredoc anchor'],
    ['a = <X', "At 1:5: heredoc expected second '<', didn't see it"],
    ['a = <<X Y\nX\n', 'At 1:5: invalid characters in heredoc anchor'],
    ['a = <<X\ny\n', 'At 1:5: heredoc not terminated'],
    ['a = 089', 'At 1:5: illegal number'],
    ['a = 9007199254740993', 'At 1:5: illegal number'],
    ['a = 1e999', 'At 1:5: illegal number'],
    ['a = /', "At 1:5: expected '/' for comment"],
    ['\0', 'At 1:1: unexpected null character (0x00)'],
    ['a : 1', 'At 1:3: illegal character'],
  ])('%j', (text, message) => {
    const error = failure(() => read(text))
    expect(error.code).toBe('bad_hcl')
    expect(error.message).toBe(message)
  })
})

test('a mistake in JSON is placed without quoting the file', () => {
  const error = failure(() => read('{\n  "join_token": "secret" x\n}'))
  expect(error.code).toBe('bad_json')
  expect(error.message).toMatch(/^At 2:\d+: not valid JSON$/)
  expect(error.message).not.toContain('secret')
})

describe('limits', () => {
  const nested = (depth: number) => `a = ${'['.repeat(depth)}${']'.repeat(depth)}`
  const blocks = (depth: number) => `${'a {'.repeat(depth)}${'}'.repeat(depth)}`

  test('depth', () => {
    expect(() => parseHcl(nested(CONFIG_DEPTH_MAX))).not.toThrow()
    expect(failure(() => parseHcl(nested(CONFIG_DEPTH_MAX + 1))).code).toBe('bad_hcl')
    expect(() => parseHcl(blocks(CONFIG_DEPTH_MAX))).not.toThrow()
    expect(failure(() => parseHcl(blocks(CONFIG_DEPTH_MAX + 1))).code).toBe('bad_hcl')
    const json = (depth: number) => `{"a":${'['.repeat(depth)}${']'.repeat(depth)}}`
    expect(() => read(json(CONFIG_DEPTH_MAX))).not.toThrow()
    expect(failure(() => read(json(CONFIG_DEPTH_MAX + 2))).code).toBe('bad_json')
  })

  test('size', () => {
    const padded = (size: number) => 'a = 1'.padEnd(size, ' ')
    expect(read(padded(CONFIG_BYTES_MAX))).toEqual({ a: 1 })
    expect(failure(() => read(padded(CONFIG_BYTES_MAX + 1))).code).toBe('bad_hcl')
    expect(failure(() => read(`{${' '.repeat(CONFIG_BYTES_MAX)}}`)).code).toBe('bad_json')
  })

  test('a file of one long line is read in one pass', () => {
    const text = 'a = "x" '.repeat(CONFIG_BYTES_MAX / 8)
    expect(read(text)).toEqual({ a: 'x' })
  })
})

test('positions and repetitions are known by path', () => {
  const document = parseConfigText('a {\n  b = 1\n}\na "c" {}\na "c" {}\n', NONE)
  expect(document.positionOf(['a', 'b'])).toEqual({ line: 2, column: 3 })
  expect(document.positionOf(['x'])).toBeUndefined()
  expect(document.isRepeated(['a', 'c'])).toBe(true)
  expect(document.isRepeated(['a', 'b'])).toBe(false)
})

test('a key named __proto__ is a key and changes no object', () => {
  for (const text of ['__proto__ { polluted = 1 }', '{"__proto__": {"polluted": 1}}']) {
    const value = read(text)
    expect(Object.keys(value)).toEqual(['__proto__'])
    expect(Object.getPrototypeOf(value)).toBe(Object.prototype)
  }
  expect(({} as { polluted?: unknown }).polluted).toBeUndefined()
})

test('merging: objects by key, lists by appending, anything else by the later value', () => {
  expect(mergeRaw({ a: 1, b: { c: [1] } }, { b: { c: [2], d: 3 } })).toEqual({
    a: 1,
    b: { c: [1, 2], d: 3 },
  })
  expect(mergeRaw(1, [2])).toEqual([2])
  expect(mergeRaw(undefined, 'x')).toBe('x')
})
