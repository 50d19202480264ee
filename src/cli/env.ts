/**
 * What a command may touch of the world: its streams, environment, files and clock. Commands take
 * it as a parameter, so tests run them without a process.
 */
import type { Clock, Random } from '../base/ports.ts'

export interface CliEnv {
  out(text: string): void
  err(text: string): void
  /**
   * A next step for a person: shown at a terminal only and after all else, so that scripts get
   * SPIRE's bytes. Of several the last counts.
   */
  hint(text: string): void
  /** All of standard input. */
  readStdin(): Promise<string>
  variable(name: string): string | undefined
  readonly workingDir: string
  readonly files: CliFiles
  readonly clock: Clock
  readonly random: Random
  /** Aborts on SIGINT: `api watch` ends with it. */
  readonly interrupted: AbortSignal
}

export interface CliFiles {
  /** Rejects with Node's own error. */
  readText(path: string): string
  size(path: string): number
  /** Replaces the file in one step. */
  write(path: string, content: string, mode: number): void
}

/** Readable by everybody (certificates) and by the owner alone (keys, tokens). */
export const PUBLIC_MODE = 0o644
export const PRIVATE_MODE = 0o600
