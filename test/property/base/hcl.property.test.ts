/**
 * HCL by properties. Method: any tree of values is printed in either language and read back; any
 * text at all is either read or refused with our own error, never with another.
 */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { SignetError } from '../../../src/base/error.ts'
import { expandEnv } from '../../../src/base/hcl/expand-env.ts'
import { parseConfigText } from '../../../src/base/hcl/raw.ts'
import type { Raw, RawObject } from '../../../src/base/hcl/value.ts'

const NONE: ReadonlySet<string> = new Set()

const key = fc.oneof(fc.stringMatching(/^[a-z_][a-z0-9_]{0,8}$/), fc.string({ minLength: 1 }))
const scalar = fc.oneof(
  fc.string({ unit: 'binary' }),
  fc.boolean(),
  fc.maxSafeInteger(),
  // Whole numbers beyond what a double holds exactly are refused (hcl.unit.test.ts).
  fc
    .double({ noNaN: true, noDefaultInfinity: true })
    .filter((n) => !Number.isInteger(n) || Number.isSafeInteger(n))
    .map((n) => (n === 0 ? 0.5 : n)),
)
const { tree } = fc.letrec<{ node: Raw; tree: RawObject }>((tie) => ({
  node: fc.oneof(
    { depthSize: 'small' },
    scalar,
    fc.array(tie('node'), { maxLength: 3 }),
    tie('tree'),
  ),
  tree: fc.dictionary(key, tie('node'), { maxKeys: 4, noNullPrototype: true }),
}))

function print(value: Raw): string {
  if (typeof value === 'string') return quoted(value)
  if (Array.isArray(value)) return `[${value.map(print).join(', ')}]`
  if (typeof value === 'object') return `{ ${printItems(value as RawObject)} }`
  return Object.is(value, -0) ? '0' : String(value)
}

function printItems(object: RawObject): string {
  return Object.entries(object)
    .map(([name, value]) => `${quoted(name)} = ${print(value)}\n`)
    .join('')
}

/** `$` is escaped so that no text looks like an interpolation, which is carried verbatim. */
function quoted(text: string): string {
  const escaped = text.replace(/["\\$]|[^\x20-\x7e]/gu, (character) => {
    if (character === '"' || character === '\\') return `\\${character}`
    return `\\U${character.codePointAt(0)!.toString(16).padStart(8, '0')}`
  })
  return `"${escaped}"`
}

test('what is printed is read back, in HCL and in JSON', () => {
  fc.assert(
    fc.property(tree, (value) => {
      const positive = JSON.parse(JSON.stringify(value))
      expect(parseConfigText(` ${printItems(value)}`, NONE).value).toEqual(positive)
      expect(parseConfigText(JSON.stringify(value), NONE).value).toEqual(positive)
    }),
  )
})

const fragment = fc.constantFrom(
  ...[
    '{',
    '}',
    '[',
    ']',
    '=',
    ',',
    '"',
    '\\',
    '$',
    '<<',
    '-',
    'E',
    '\n',
    ' ',
    '#',
    '/',
    '*',
    '0x',
    '1',
    'a',
    '.',
    'e',
    'true',
    '\0',
    'é',
    '𝒳',
  ],
)

test('any text is read or refused with its place', () => {
  fc.assert(
    fc.property(fc.array(fragment, { maxLength: 60 }), (fragments) => {
      try {
        parseConfigText(fragments.join(''), NONE)
      } catch (thrown) {
        expect(thrown).toBeInstanceOf(SignetError)
        expect((thrown as SignetError).message).toMatch(/^At \d+:\d+: |one JSON object/)
      }
    }),
    { numRuns: 2000 },
  )
})

test('expansion leaves text without dollars alone and never leaves a known name', () => {
  fc.assert(
    fc.property(fc.string(), fc.string(), (before, after) => {
      const plain = `${before}|${after}`.replaceAll('$', '')
      expect(expandEnv(plain, () => 'never')).toBe(plain)
      const text = `${plain}\${NAME}${plain}`
      expect(expandEnv(text, () => 'value')).toBe(`${plain}value${plain}`)
    }),
  )
})
