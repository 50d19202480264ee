/**
 * Flags with the semantics of Go's `flag` package, which every script around SPIRE relies on: `-x`
 * and `--x` alike, `-x=v` or `-x v`, booleans without a value, repetition by the last value (or by
 * appending, for lists), a first word without a dash or a `--` ends them. Pure.
 *
 * commander was tried for this and cannot do it: to it `-spiffeID` is a bundle of short options.
 */
import { formatGoDuration, parseGoDuration } from '../base/duration.ts'
import { goQuote } from '../base/log-text.ts'

export interface Flag<T> {
  readonly initial: T
  readonly usage: string
  /** What stands after the name in the usage; empty for booleans, which take no value. */
  readonly valueName: string
  /** The `(default …)` of the usage; empty when the default is the type's zero. */
  readonly shownDefault: string
  readonly isBool: boolean
  /** Throws an Error whose message is the complaint's tail. */
  set(current: T, text: string): T
}

export type FlagSet = Readonly<Record<string, Flag<unknown>>>
export type FlagValues<Flags extends FlagSet> = {
  readonly [K in keyof Flags]: Flags[K] extends Flag<infer T> ? T : never
}

export type ParsedFlags<Flags extends FlagSet> =
  | { readonly ok: true; readonly values: FlagValues<Flags> }
  | {
      readonly ok: false
      /** Without usage; `flag: help requested` for `-h`. */
      readonly message: string
      /** What goes to standard error: the message unless it is help, then the usage. */
      readonly output: string
    }

const HELP = 'flag: help requested'

export function parseFlags<Flags extends FlagSet>(
  command: string,
  flags: Flags,
  args: readonly string[],
): ParsedFlags<Flags> {
  const values: Record<string, unknown> = {}
  for (const [name, flag] of Object.entries(flags)) values[name] = flag.initial
  const fail = (message: string): ParsedFlags<Flags> => {
    const lead = message === HELP ? '' : `${message}\n`
    return { ok: false, message, output: `${lead}${usageOf(command, flags)}` }
  }
  let at = 0
  while (at < args.length) {
    const word = args[at]!
    if (word.length < 2 || !word.startsWith('-') || word === '--') break
    at += 1
    const body = word.slice(word.startsWith('--') ? 2 : 1)
    if (body === '' || body.startsWith('-') || body.startsWith('=')) {
      return fail(`bad flag syntax: ${word}`)
    }
    const equals = body.indexOf('=')
    const name = equals === -1 ? body : body.slice(0, equals)
    let text = equals === -1 ? undefined : body.slice(equals + 1)
    const flag = Object.hasOwn(flags, name) ? flags[name] : undefined
    if (flag === undefined) {
      return fail(
        name === 'h' || name === 'help' ? HELP : `flag provided but not defined: -${name}`,
      )
    }
    if (text === undefined && !flag.isBool) {
      if (at >= args.length) return fail(`flag needs an argument: -${name}`)
      text = args[at]
      at += 1
    }
    try {
      values[name] = flag.set(values[name], text ?? 'true')
    } catch (thrown) {
      return fail(complaint(name, flag, text ?? 'true', thrown))
    }
  }
  return { ok: true, values: values as FlagValues<Flags> }
}

function complaint(name: string, flag: Flag<unknown>, text: string, thrown: unknown): string {
  const why = thrown instanceof Error ? thrown.message : String(thrown)
  const kind = flag.isBool ? 'boolean value' : 'value'
  return `invalid ${kind} ${goQuote(text)} for ${flag.isBool ? '' : 'flag '}-${name}: ${why}`
}

/** `Usage of NAME:` and the flags in alphabetical order, laid out as Go does. */
export function usageOf(command: string, flags: FlagSet): string {
  const names = Object.keys(flags).sort()
  const lines = names.map((name) => {
    const flag = flags[name]!
    const head = flag.valueName === '' ? `  -${name}` : `  -${name} ${flag.valueName}`
    const tail = flag.shownDefault === '' ? '' : ` (default ${flag.shownDefault})`
    return `${head}\n    \t${flag.usage}${tail}\n`
  })
  return `Usage of ${command}:\n${lines.join('')}`
}

export function text(usage: string, initial = ''): Flag<string> {
  const shownDefault = initial === '' ? '' : goQuote(initial)
  return { ...VALUE, initial, usage, valueName: 'string', shownDefault, set: (_, value) => value }
}

const VALUE = { isBool: false, valueName: 'value', shownDefault: '' } as const

const INT64_MAX = 2n ** 63n - 1n
const INT64_MIN = -(2n ** 63n)

/** A 64-bit integer in Go's notation (decimal, `0x`, `0o`, `0b`). */
export function int64(usage: string, initial = 0n): Flag<bigint> {
  const shownDefault = initial === 0n ? '' : String(initial)
  return {
    ...VALUE,
    initial,
    usage,
    valueName: 'int',
    shownDefault,
    set: (_, value) => intOf(value),
  }
}

function intOf(value: string): bigint {
  const match = /^([+-]?)(0[xX][0-9a-fA-F_]+|0[bB][01_]+|0[oO]?[0-7_]*|[1-9][0-9]*)$/.exec(value)
  if (match === null || /__|_$/.test(value)) throw new Error('parse error')
  const digits = match[2]!.replaceAll('_', '')
  const magnitude = BigInt(/^0[0-7]+$/.test(digits) ? `0o${digits.slice(1)}` : digits)
  const number = match[1] === '-' ? -magnitude : magnitude
  if (number > INT64_MAX || number < INT64_MIN) throw new Error('value out of range')
  return number
}

const TRUE_WORDS = new Set(['1', 't', 'T', 'TRUE', 'true', 'True'])
const FALSE_WORDS = new Set(['0', 'f', 'F', 'FALSE', 'false', 'False'])

export function bool(usage: string): Flag<boolean> {
  return {
    initial: false,
    usage,
    valueName: '',
    shownDefault: '',
    isBool: true,
    set: (_, value) => {
      if (TRUE_WORDS.has(value)) return true
      if (FALSE_WORDS.has(value)) return false
      throw new Error('parse error')
    },
  }
}

/** Present or not: any value, even `false`, sets it (Go's BoolFunc, as SPIRE uses it). */
export function presence(usage: string): Flag<boolean> {
  return { ...bool(usage), set: () => true }
}

/** Milliseconds of a Go duration. */
export function duration(usage: string, initialMs = 0): Flag<number> {
  return {
    ...VALUE,
    initial: initialMs,
    usage,
    valueName: 'duration',
    shownDefault: initialMs === 0 ? '' : formatGoDuration(initialMs),
    set: (_, value) => {
      try {
        return parseGoDuration(value)
      } catch {
        throw new Error('parse error')
      }
    },
  }
}

/** Like `duration`, with the complaint that says what is wrong. */
export function timeout(usage: string, initialMs: number): Flag<number> {
  return {
    ...duration(usage, initialMs),
    valueName: 'value',
    set: (_, value) => parseGoDuration(value),
  }
}

/** Each use adds one. */
export function list(usage: string): Flag<readonly string[]> {
  return { ...VALUE, initial: [], usage, set: (current, value) => [...current, value] }
}

/** One use gives all, separated by commas. */
export function commaList(usage: string): Flag<readonly string[]> {
  return { ...VALUE, initial: [], usage, set: (_, value) => value.split(',') }
}

/** `true` and `false` filter, anything else does not. */
export function maybe(usage: string): Flag<boolean | undefined> {
  return {
    ...VALUE,
    initial: undefined,
    usage,
    set: (_, value) => (value === 'true' ? true : value === 'false' ? false : undefined),
  }
}

export type OutputFormat = 'pretty' | 'json'

/** `-output`; setting it twice to different forms is an error. */
export function output(): Flag<OutputFormat | undefined> {
  return {
    ...VALUE,
    initial: undefined,
    usage: 'Form of the output: pretty or json; default: pretty.',
    set: (current, value) => {
      if (current !== undefined && current !== value) {
        throw new Error(`the output format has already been set to ${goQuote(current)}`)
      }
      const name = value.toLowerCase()
      if (name === 'json') return 'json'
      if (name === 'pretty' || name === 'prettyprint') return 'pretty'
      throw new Error(`bad formatter flag: unknown format option: ${goQuote(value)}`)
    },
  }
}
