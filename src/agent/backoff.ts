/**
 * Exponential backoff with SPIRE's constants (api.md §11.3): ×1.5 from the interval on, ±10 %
 * jitter, up to a ceiling. A success resets it.
 */
import type { Random } from '../base/ports.ts'
import { unitInterval } from '../base/ports.ts'

const FACTOR = 1.5
const JITTER = 0.1
const CEILING_INTERVALS = 24

export interface Backoff {
  /** The next wait in milliseconds. */
  next(): number
  reset(): void
}

export function createBackoff(
  random: Random,
  intervalMs: number,
  ceilingMs: number = intervalMs * CEILING_INTERVALS,
  jitter: number = JITTER,
): Backoff {
  let currentMs = intervalMs
  return {
    next() {
      const ms = currentMs * (1 + jitter * (2 * unitInterval(random) - 1))
      currentMs = Math.min(currentMs * FACTOR, ceilingMs)
      return ms
    },
    reset() {
      currentMs = intervalMs
    },
  }
}

/** Size of signing batches: halved by a failure, doubled by a success (api.md §4). */
export function createBatchSize(max: number): { size(): number; fail(): void; succeed(): void } {
  let size = max
  return {
    size: () => size,
    fail() {
      size = Math.max(1, Math.floor(size / 2))
    },
    succeed() {
      size = Math.min(max, size * 2)
    },
  }
}
