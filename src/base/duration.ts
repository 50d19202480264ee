/** Durations in Go's notation (`1h30m`, `300ms`), which SPIRE's files and flags use. */
import { SignetError } from './error.ts'

const UNIT_NS: Readonly<Record<string, bigint>> = {
  ns: 1n,
  us: 1_000n,
  µs: 1_000n,
  μs: 1_000n,
  ms: 1_000_000n,
  s: 1_000_000_000n,
  m: 60_000_000_000n,
  h: 3_600_000_000_000n,
}

/** Milliseconds (fractional below one). Throws invalid_argument with Go's text on bad input. */
export function parseGoDuration(text: string): number {
  const bad = () =>
    new SignetError(
      'invalid_argument',
      'bad_duration',
      `time: invalid duration ${JSON.stringify(text)}`,
    )
  const sign = text.startsWith('-') ? -1 : 1
  let rest = text.replace(/^[+-]/, '')
  if (rest === '0') return 0
  if (rest === '') throw bad()
  let totalNs = 0
  while (rest !== '') {
    const match = /^(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)/.exec(rest)
    if (!match) throw bad()
    totalNs += Number(match[1]) * Number(UNIT_NS[match[2]!]!)
    rest = rest.slice(match[0].length)
  }
  return (sign * totalNs) / 1e6
}

/** Go's `time.Duration.String()`: `1h0m0s`, `1.5s`, `20ms`, `0s`. */
export function formatGoDuration(ms: number): string {
  const ns = Math.round(Math.abs(ms) * 1e6)
  const sign = ms < 0 ? '-' : ''
  if (ns === 0) return '0s'
  const trim = (n: number, digits: number) => n.toFixed(digits).replace(/\.?0+$/, '')
  if (ns < 1e3) return `${sign}${ns}ns`
  if (ns < 1e6) return `${sign}${trim(ns / 1e3, 3)}µs`
  if (ns < 1e9) return `${sign}${trim(ns / 1e6, 6)}ms`
  const hours = Math.floor(ns / 3.6e12)
  const minutes = Math.floor((ns % 3.6e12) / 6e10)
  const seconds = (ns % 6e10) / 1e9
  const s = seconds === 0 ? '0' : trim(seconds, 9)
  if (hours > 0) return `${sign}${hours}h${minutes}m${s}s`
  if (minutes > 0) return `${sign}${minutes}m${s}s`
  return `${sign}${s}s`
}
