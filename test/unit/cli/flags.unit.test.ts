/** Flags as Go's package reads them. The complaints are compared with SPIRE's in commands.test.ts. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  bool,
  commaList,
  duration,
  int64,
  list,
  maybe,
  output,
  parseFlags,
  presence,
  text,
  timeout,
  usageOf,
} from '../../../src/cli/flags.ts'

const FLAGS = {
  name: text('A name', 'anon'),
  count: int64('A count', 3n),
  on: bool('A switch'),
  set: presence('A mark'),
  wait: duration('A pause', 90_000),
  limit: timeout('A limit', 5000),
  each: list('One of many'),
  all: commaList('All at once'),
  which: maybe('Which'),
  output: output(),
}

function valuesOf(...args: string[]) {
  const parsed = parseFlags('test', FLAGS, args)
  if (!parsed.ok) throw new Error(parsed.message)
  return parsed.values
}

function messageOf(...args: string[]) {
  const parsed = parseFlags('test', FLAGS, args)
  return parsed.ok ? undefined : parsed.message
}

test('defaults', () => {
  expect(valuesOf()).toEqual({
    name: 'anon',
    count: 3n,
    on: false,
    set: false,
    wait: 90_000,
    limit: 5000,
    each: [],
    all: [],
    which: undefined,
    output: undefined,
  })
})

describe('forms', () => {
  test.each([
    [['-name', 'a'], { name: 'a' }],
    [['--name', 'a'], { name: 'a' }],
    [['-name=a'], { name: 'a' }],
    [['--name=a=b'], { name: 'a=b' }],
    [['-name='], { name: '' }],
    [['-name', '-on'], { name: '-on', on: false }],
    [['-name', 'a', '-name', 'b'], { name: 'b' }],
    [['-on'], { on: true }],
    [['-on', '-on=false'], { on: false }],
    [['-on', 'false'], { on: true }],
    [['-on=T'], { on: true }],
    [['-set=false'], { set: true }],
    [['-each', 'a', '-each=b,c'], { each: ['a', 'b,c'] }],
    [['-all', 'a,b', '-all', 'c,'], { all: ['c', ''] }],
    [['-which', 'true'], { which: true }],
    [['-which', 'false'], { which: false }],
    [['-which', 'true', '-which', 'any'], { which: undefined }],
    [['-wait', '1h2m3.5s'], { wait: 3_723_500 }],
    [['-limit', '-1s'], { limit: -1000 }],
    [['-output', 'JSON', '-output', 'json'], { output: 'json' }],
    [['-output', 'prettyprint'], { output: 'pretty' }],
    [['word', '-name', 'a'], { name: 'anon' }],
    [['--', '-name', 'a'], { name: 'anon' }],
    [['-', '-name', 'a'], { name: 'anon' }],
    [['-count', '0x10'], { count: 16n }],
    [['-count', '0b101'], { count: 5n }],
    [['-count', '0o17'], { count: 15n }],
    [['-count', '017'], { count: 15n }],
    [['-count', '-7'], { count: -7n }],
    [['-count', '+7'], { count: 7n }],
    [['-count', '9223372036854775807'], { count: 2n ** 63n - 1n }],
  ])('%j', (args, expected) => {
    expect(valuesOf(...args)).toMatchObject(expected)
  })
})

describe('mistakes', () => {
  test.each([
    [['-nope'], 'flag provided but not defined: -nope'],
    [['-constructor'], 'flag provided but not defined: -constructor'],
    [['-name'], 'flag needs an argument: -name'],
    [['---name'], 'bad flag syntax: ---name'],
    [['-=a'], 'bad flag syntax: -=a'],
    [['-h'], 'flag: help requested'],
    [['-on=maybe'], 'invalid boolean value "maybe" for -on: parse error'],
    [['-count', ''], 'invalid value "" for flag -count: parse error'],
    [['-count', '1.5'], 'invalid value "1.5" for flag -count: parse error'],
    [['-count', '08'], 'invalid value "08" for flag -count: parse error'],
    [['-count', '9223372036854775808'], 'value out of range'],
    [['-wait', 'x'], 'invalid value "x" for flag -wait: parse error'],
    [['-limit', 'x'], 'invalid value "x" for flag -limit: time: invalid duration "x"'],
    [['-output', 'xml'], 'bad formatter flag: unknown format option: "xml"'],
    [['-output', 'json', '-output', 'pretty'], 'the output format has already been set to "json"'],
  ])('%j', (args, message) => {
    expect(messageOf(...args)).toContain(message)
  })

  test('the usage follows the complaint, but for help it stands alone', () => {
    const wrong = parseFlags('test', FLAGS, ['-nope'])
    const help = parseFlags('test', FLAGS, ['-help'])
    const usage = usageOf('test', FLAGS)
    expect(wrong).toMatchObject({ output: `flag provided but not defined: -nope\n${usage}` })
    expect(help).toMatchObject({ output: usage })
  })
})

test('the usage is laid out as by Go, in alphabetical order', () => {
  expect(
    usageOf('test', { on: FLAGS.on, name: FLAGS.name, count: FLAGS.count, wait: FLAGS.wait }),
  ).toBe(
    [
      'Usage of test:',
      '  -count int',
      '    \tA count (default 3)',
      '  -name string',
      '    \tA name (default "anon")',
      '  -on',
      '    \tA switch',
      '  -wait duration',
      '    \tA pause (default 1m30s)',
      '',
    ].join('\n'),
  )
})

// Method: any value at all, in either form, behind any number of dashes that Go allows.
test('a value arrives as it was given', () => {
  fc.assert(
    fc.property(fc.string(), fc.boolean(), fc.boolean(), (value, joined, twoDashes) => {
      const dashes = twoDashes ? '--' : '-'
      const args = joined ? [`${dashes}name=${value}`] : [`${dashes}name`, value]
      expect(valuesOf(...args).name).toBe(value)
    }),
  )
})

test('any 64-bit number comes back', () => {
  fc.assert(
    fc.property(fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }), (n) => {
      expect(valuesOf('-count', String(n)).count).toBe(n)
    }),
  )
})
