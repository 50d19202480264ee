/** Keeps log lines and metrics for tests to look at. */
import type { Log, LogFields, Metrics } from '../../src/base/ports.ts'

export interface LogLine {
  readonly level: 'debug' | 'info' | 'warn' | 'error'
  readonly message: string
  readonly fields: LogFields
}

export interface MemoryLog extends Log {
  readonly lines: LogLine[]
  with(fields: LogFields): MemoryLog
}

export function createMemoryLog(lines: LogLine[] = [], fixed: LogFields = {}): MemoryLog {
  const at =
    (level: LogLine['level']) =>
    (message: string, fields: LogFields = {}) => {
      lines.push({ level, message, fields: { ...fixed, ...fields } })
    }
  return {
    lines,
    debug: at('debug'),
    info: at('info'),
    warn: at('warn'),
    error: at('error'),
    with: (fields) => createMemoryLog(lines, { ...fixed, ...fields }),
  }
}

export interface MemoryMetrics extends Metrics {
  readonly counters: Map<string, number>
  readonly gauges: Map<string, number>
  readonly samples: Map<string, number[]>
}

export function createMemoryMetrics(): MemoryMetrics {
  const counters = new Map<string, number>()
  const gauges = new Map<string, number>()
  const samples = new Map<string, number[]>()
  return {
    counters,
    gauges,
    samples,
    counter: (key, value = 1) => void counters.set(key, (counters.get(key) ?? 0) + value),
    gauge: (key, value) => void gauges.set(key, value),
    sample: (key, value) => void samples.set(key, [...(samples.get(key) ?? []), value]),
  }
}
