/**
 * Optional limits of the Workload API: a token bucket per method and attested set of selectors,
 * rate equal to burst (features.md §1.3). Off unless configured.
 */
import { createHash } from 'node:crypto'
import { SignetError } from '../../base/error.ts'
import { RATE_LIMIT_BUCKETS_MAX } from '../../base/limits.ts'
import type { Clock, Metrics } from '../../base/ports.ts'
import { type Selector, selectorKey } from '../../spiffe/selector.ts'

export interface WorkloadRateLimiter {
  /** Throws unavailable when the bucket of these selectors is empty. */
  check(method: string, selectors: readonly Selector[]): void
}

interface Bucket {
  tokens: number
  filledMs: number
}

/** `limits`: calls a second by full method; 0 and absent are no limit. */
export function createRateLimiter(
  limits: Readonly<Record<string, number>>,
  ports: { readonly clock: Clock; readonly metrics: Metrics },
): WorkloadRateLimiter {
  const { clock, metrics } = ports
  const buckets = new Map<string, Bucket>()
  return {
    check(method, selectors) {
      const limit = limits[method] ?? 0
      if (limit <= 0) return
      const key = `${method}\0${selectorSetKey(selectors)}`
      const nowMs = clock.monotonicMs()
      const bucket = buckets.get(key) ?? { tokens: limit, filledMs: nowMs }
      bucket.tokens = Math.min(limit, bucket.tokens + ((nowMs - bucket.filledMs) / 1000) * limit)
      bucket.filledMs = nowMs
      remember(buckets, key, bucket)
      if (bucket.tokens < 1) {
        metrics.counter('workload_api.rate_limit_exceeded', 1, { method })
        throw new SignetError('unavailable', 'rate_limited', `rate limit exceeded for ${method}`)
      }
      bucket.tokens -= 1
    },
  }
}

/** The bucket used longest ago makes room: it has long been full again. */
function remember(buckets: Map<string, Bucket>, key: string, bucket: Bucket): void {
  buckets.delete(key)
  if (buckets.size >= RATE_LIMIT_BUCKETS_MAX) {
    const oldest = buckets.keys().next()
    if (!oldest.done) buckets.delete(oldest.value)
  }
  buckets.set(key, bucket)
}

function selectorSetKey(selectors: readonly Selector[]): string {
  if (selectors.length === 0) return '<unattested>'
  const hash = createHash('sha256')
  for (const key of selectors.map(selectorKey).sort()) hash.update(`${key}\0`)
  return hash.digest('base64')
}
