// biome-ignore-all lint/suspicious/noTemplateCurlyInString: dollars are the subject here
/** Environment expansion, corners included: they are Go's, because files depend on them. */
import { expect, test } from 'vitest'
import { expandEnv } from '../../../../src/base/hcl/expand-env.ts'

const VARIABLES: Readonly<Record<string, string>> = { NAME: 'value', a_1: 'x', DOLLAR: '$NAME' }
const expand = (text: string) => expandEnv(text, (name) => VARIABLES[name])

test.each([
  ['plain', 'plain'],
  ['$NAME', 'value'],
  ['${NAME}', 'value'],
  ['"${NAME}/$NAME"', '"value/value"'],
  ['$NAMEx', ''],
  ['${NAME}x', 'valuex'],
  ['$a_1-b', 'x-b'],
  ['[$UNSET][${UNSET}]', '[][]'],
  ['cost: $$5', 'cost: $5'],
  ['${$}', '$'],
  ['$$NAME', '$NAME'],
  ['$DOLLAR', '$NAME'],
  ['end $', 'end $'],
  ['$ alone', '$ alone'],
  ['${}', ''],
  ['${open', 'open'],
  ['$1 $* $@', '  '],
  ['${NAME:-fallback}', ''],
  ['$é', '$é'],
])('%j becomes %j', (text, expected) => {
  expect(expand(text)).toBe(expected)
})
