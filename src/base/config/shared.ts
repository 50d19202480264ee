/**
 * Blocks and values that server and agent files share: `telemetry`, `health_checks`, the log keys,
 * durations and paths (features.md §1.4, §4.1). Texts are SPIRE's where it has one.
 */
import { isAbsolute, resolve } from 'node:path'
import type { z } from 'zod'
import { parseGoDuration } from '../duration.ts'
import { SignetError } from '../error.ts'
import { parseLogLevel } from '../log-text.ts'
import { notYet, refuse } from './document.ts'
import { anything, flag, lenientSection, section, text, texts, whole } from './fields.ts'
import type { HealthChecksConfig, LogConfig, TelemetryConfig } from './types.ts'

export const HEALTH_CHECKS = section({
  listener_enabled: flag,
  bind_address: text,
  bind_port: whole,
  live_path: text,
  ready_path: text,
})

export const TELEMETRY = lenientSection({
  Prometheus: section({ host: text, port: whole, tls: anything }),
  DogStatsd: anything,
  Statsd: anything,
  M3: anything,
  InMem: section({}),
  MetricPrefix: text,
  EnableTrustDomainLabel: flag,
  EnableHostnameLabel: flag,
  AllowedPrefixes: texts,
  BlockedPrefixes: texts,
  AllowedLabels: texts,
  BlockedLabels: texts,
})

export const LOG_KEYS = {
  log_file: text,
  log_level: text,
  log_format: text,
  log_source_location: flag,
}

export const PROFILING_KEYS = {
  profiling_enabled: flag,
  profiling_port: whole,
  profiling_freq: whole,
  profiling_names: texts,
}

export function readHealthChecks(raw: z.output<typeof HEALTH_CHECKS>): HealthChecksConfig {
  const bindPort = raw?.bind_port ?? 80
  checkPort(bindPort, 'health_checks.bind_port')
  return {
    listenerEnabled: raw?.listener_enabled ?? false,
    bindAddress: unbracketed(raw?.bind_address || 'localhost'),
    bindPort,
    livePath: raw?.live_path || '/live',
    readyPath: raw?.ready_path || '/ready',
  }
}

const TELEMETRY_KEYS = new Set(
  [
    'Prometheus',
    'DogStatsd',
    'Statsd',
    'M3',
    'InMem',
    'MetricPrefix',
    'EnableTrustDomainLabel',
    'EnableHostnameLabel',
    'AllowedPrefixes',
    'BlockedPrefixes',
    'AllowedLabels',
    'BlockedLabels',
  ].map((key) => key.toLowerCase()),
)

export function readTelemetry(raw: z.output<typeof TELEMETRY>, notices: string[]): TelemetryConfig {
  for (const sink of ['DogStatsd', 'Statsd', 'M3'] as const) {
    if (raw?.[sink] !== undefined) throw notYet(`telemetry.${sink}`)
  }
  if (raw?.InMem !== undefined) {
    notices.push('telemetry.InMem has no meaning here and is ignored; use telemetry.Prometheus')
  }
  for (const key of Object.keys(raw ?? {})) {
    if (!TELEMETRY_KEYS.has(key.toLowerCase()))
      notices.push(`unknown key telemetry.${key} is ignored`)
  }
  return {
    prometheus: readPrometheus(raw?.Prometheus),
    metricPrefix: raw?.MetricPrefix ?? '',
    enableTrustDomainLabel: raw?.EnableTrustDomainLabel ?? false,
    enableHostnameLabel: raw?.EnableHostnameLabel ?? true,
    allowedPrefixes: raw?.AllowedPrefixes ?? [],
    blockedPrefixes: raw?.BlockedPrefixes ?? [],
    allowedLabels: raw?.AllowedLabels ?? [],
    blockedLabels: raw?.BlockedLabels ?? [],
  }
}

function readPrometheus(
  raw: NonNullable<z.output<typeof TELEMETRY>>['Prometheus'],
): TelemetryConfig['prometheus'] {
  if (raw === undefined) return undefined
  if (raw.tls !== undefined) throw notYet('telemetry.Prometheus.tls')
  const port = raw.port ?? 0
  checkPort(port, 'telemetry.Prometheus.port')
  return { host: unbracketed(raw.host || 'localhost'), port }
}

export interface LogKeys {
  readonly file: string | undefined
  readonly level: string | undefined
  readonly format: string | undefined
  readonly sourceLocation: boolean | undefined
}

export function readLog(keys: LogKeys, workingDir: string): LogConfig {
  const format = (keys.format ?? '').toLowerCase()
  if (format !== '' && format !== 'text' && format !== 'json') {
    throw refuse(`could not start logger: unknown logger format: ${JSON.stringify(keys.format)}`)
  }
  let level: LogConfig['level']
  try {
    level = parseLogLevel(keys.level || 'INFO')
  } catch (cause) {
    throw refuse(
      `could not start logger: ${cause instanceof Error ? cause.message : String(cause)}`,
    )
  }
  return {
    file: keys.file ? resolve(workingDir, keys.file) : '',
    level,
    format,
    sourceLocation: keys.sourceLocation ?? false,
  }
}

/** Refused only when switched on: files often carry the port with `profiling_enabled = false`. */
export function refuseProfiling(enabled: boolean | undefined): void {
  if (enabled) throw notYet('profiling_enabled')
}

/** Milliseconds of a Go duration; `what` leads SPIRE's complaint. Not negative. */
export function readDurationMs(what: string, value: string): number {
  let ms: number
  try {
    ms = parseGoDuration(value)
  } catch (cause) {
    if (cause instanceof SignetError) throw refuse(`${what}: ${cause.message}`)
    throw cause
  }
  if (ms < 0) throw refuse(`${what}: must not be negative`)
  return ms
}

/** Whole seconds, rounded down: certificates know no fractions. */
export function readDurationSeconds(what: string, value: string): number {
  return Math.floor(readDurationMs(what, value) / 1000)
}

function checkPort(port: number, path: string): void {
  if (port < 0 || port > 65_535) throw refuse(`${path}: must be between 0 and 65535`)
}

/** `[::1]` as Go writes it in addresses. */
export function unbracketed(address: string): string {
  return address.replace(/^\[|\]$/g, '')
}

export function absolutePath(path: string, workingDir: string): string {
  return isAbsolute(path) ? resolve(path) : resolve(workingDir, path)
}
