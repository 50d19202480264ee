/**
 * The ports through which everything meets time, randomness, the log and metrics. Production
 * adapters live beside this file; tests pass fakes (`test/fakes/`).
 */

/** Whole seconds since 1970-01-01T00:00:00Z: the resolution of X.509 and JWT times. */
export type EpochSeconds = number

export interface Clock {
  nowSeconds(): EpochSeconds
  /** Milliseconds of the wall clock, for logs and metrics only. */
  nowMs(): number
  /** Milliseconds that never go back; the origin is arbitrary. */
  monotonicMs(): number
  /** Resolves after `ms`, or rejects with the signal's reason when it aborts first. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>
  /** Calls `fn` every `ms` until disposed; does not keep the process alive. */
  every(ms: number, fn: () => void): Disposable
}

export interface Random {
  /** `size` bytes from a cryptographically secure source, in a buffer the caller owns. */
  bytes(size: number): Uint8Array
}

/** Uniform in [0, 1) from a `Random`: for jitter, never for secrets. */
export function unitInterval(random: Random): number {
  const b = random.bytes(6)
  let n = 0
  for (const byte of b) n = n * 256 + byte
  return n / 2 ** 48
}

export type LogFields = Readonly<Record<string, unknown>>

export interface Log {
  debug(message: string, fields?: LogFields): void
  info(message: string, fields?: LogFields): void
  warn(message: string, fields?: LogFields): void
  error(message: string, fields?: LogFields): void
  /** A log that adds these fields (features.md §4.4: `subsystem_name`, `caller_id` …) to each line. */
  with(fields: LogFields): Log
}

/** Metric keys as in features.md §4.2, dot separated and without prefix: `ca.manager.x509_ca.activate`. */
export interface Metrics {
  counter(key: string, value?: number, labels?: Readonly<Record<string, string>>): void
  gauge(key: string, value: number, labels?: Readonly<Record<string, string>>): void
  /** A sample in the unit the key names (milliseconds for `elapsed_time`). */
  sample(key: string, value: number, labels?: Readonly<Record<string, string>>): void
}
