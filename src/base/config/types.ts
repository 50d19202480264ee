/** Parts of the checked configuration that server and agent share (features.md §1.4, §4.1). */
import type { LogFormat, LogLevel } from '../log-text.ts'

export interface LogConfig {
  /** Absolute path, or empty for standard output. */
  readonly file: string
  readonly level: LogLevel
  readonly format: LogFormat
  readonly sourceLocation: boolean
}

export interface HealthChecksConfig {
  readonly listenerEnabled: boolean
  readonly bindAddress: string
  readonly bindPort: number
  readonly livePath: string
  readonly readyPath: string
}

export interface TelemetryConfig {
  readonly prometheus: { readonly host: string; readonly port: number } | undefined
  /** Empty: `spire_server` or `spire_agent`. */
  readonly metricPrefix: string
  readonly enableTrustDomainLabel: boolean
  readonly enableHostnameLabel: boolean
  readonly allowedPrefixes: readonly string[]
  readonly blockedPrefixes: readonly string[]
  readonly allowedLabels: readonly string[]
  readonly blockedLabels: readonly string[]
}

/** An enabled plugin block. */
export interface PluginConfig {
  readonly type: string
  readonly name: string
  /** `plugin_data` as plain values; its consumer checks it. */
  readonly data: Readonly<Record<string, unknown>>
  /** `plugin_data_file`, where `data` was read from; empty when it stands in the file itself. */
  readonly dataFile: string
}

/** Everything the parsers need from outside. */
export interface ConfigSources {
  readonly expandEnv: boolean
  readonly env: (name: string) => string | undefined
  /** Relative paths in a file are relative to it (SPIRE: the process's working directory). */
  readonly workingDir: string
  /** `plugin_data_file`, `join_token_file` and the check for SPIRE's own data read files. */
  readonly files: ConfigFiles
}

export interface ConfigFiles {
  /** Rejects what is missing or unreadable with Node's own error. */
  readText(path: string): string
  /** 0 when there is no such file. */
  size(path: string): number
}

/** What a parser returns; each notice is said once in the log, as a warning. */
export interface Parsed<T> {
  readonly config: T
  readonly notices: readonly string[]
  /** Notices of what goes away one day: SPIRE marks such lines, and alerts are set on the mark. */
  readonly deprecations: readonly string[]
}
