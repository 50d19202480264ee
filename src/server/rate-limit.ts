/**
 * Rate limits of the doors (api.md §4): token buckets with rate = burst that make a caller wait
 * instead of failing it, because agents count on success under short bursts. A call fails
 * resource_exhausted only when its cost exceeds the burst, or when the wait would pass its
 * deadline.
 *
 * Differs from SPIRE: buckets are kept per SPIFFE ID of the caller (AttestAgent: per address of
 * the peer), because one agent must not use up what all agents behind its NAT have. Waits are
 * bounded, and so is the number of buckets: callers beyond it share one.
 */
import { SignetError, toSignetError } from '../base/error.ts'
import { RATE_BUCKETS_MAX, RATE_WAIT_MS_MAX } from '../base/limits.ts'
import { countCall } from '../base/metrics.ts'
import type { Clock, Metrics } from '../base/ports.ts'
import { codeNameOf } from '../wire/status.ts'

const SWEEP_MS = 60_000

/** Labels of the RPC tables: which calls share a limit. */
export type RateLimitName = 'attest' | 'csr' | 'jwt' | 'wit' | 'key' | 'post'

/** Tokens per second, which is the burst as well; undefined switches a limit off. */
export type RateLimits = Readonly<Record<RateLimitName, number | undefined>>

export interface RateLimitOptions {
  readonly attestation: boolean
  readonly attestationPerSecond: number
  readonly signing: boolean
}

export interface RateLimitCall {
  readonly name: RateLimitName
  readonly key: string
  readonly cost: number
  /** Of the counter of this method's waits. */
  readonly metricKey: string
  /** Wall clock; Infinity when the call has none. */
  readonly deadlineMs: number
  readonly signal: AbortSignal
}

export interface RateLimiter extends Disposable {
  /** Resolves when the tokens are taken. */
  wait(call: RateLimitCall): Promise<void>
}

interface Bucket {
  /** Negative while callers wait for what they have reserved. */
  tokens: number
  atMs: number
}

const SIGNING_PER_SECOND = 500
const KEYS_PER_SECOND = 500
const POSTS_PER_SECOND = 10

export function rateLimitsOf(options: RateLimitOptions): RateLimits {
  const signing = options.signing ? SIGNING_PER_SECOND : undefined
  return {
    attest: options.attestation ? options.attestationPerSecond : undefined,
    csr: signing,
    jwt: signing,
    wit: signing,
    key: KEYS_PER_SECOND,
    post: POSTS_PER_SECOND,
  }
}

export function createRateLimiter(
  ports: { readonly clock: Clock; readonly metrics: Metrics },
  limits: RateLimits,
): RateLimiter {
  const { clock, metrics } = ports
  const buckets = new Map<string, Bucket>()
  const sweeper = clock.every(SWEEP_MS, () => sweep(buckets, limits, clock.monotonicMs()))
  return {
    async wait(call) {
      const rate = limits[call.name]
      if (rate === undefined) return
      const done = countCall(metrics, clock, call.metricKey)
      let status = 'OK'
      try {
        await take(buckets, call, rate, clock)
      } catch (thrown) {
        status = codeNameOf(toSignetError(thrown).kind)
        throw thrown
      } finally {
        done(status)
      }
    },
    [Symbol.dispose]: () => sweeper[Symbol.dispose](),
  }
}

async function take(
  buckets: Map<string, Bucket>,
  call: RateLimitCall,
  rate: number,
  clock: Clock,
): Promise<void> {
  if (call.cost === 0) return
  if (call.cost > rate) throw exhausted(`rate (${call.cost}) exceeds burst size (${rate})`)
  const bucket = bucketOf(buckets, call, rate, clock.monotonicMs())
  const waitMs = reserve(bucket, call.cost, rate, clock)
  if (waitMs === 0) return
  if (waitMs > Math.min(RATE_WAIT_MS_MAX, call.deadlineMs - clock.nowMs())) {
    bucket.tokens += call.cost
    throw exhausted(`rate: Wait(n=${call.cost}) would exceed context deadline`)
  }
  try {
    await clock.sleep(waitMs, call.signal)
  } catch (reason) {
    bucket.tokens += call.cost
    throw reason
  }
}

/** Takes the tokens, on credit if need be, and says how long until they are there. */
function reserve(bucket: Bucket, cost: number, rate: number, clock: Clock): number {
  refill(bucket, rate, clock.monotonicMs())
  bucket.tokens -= cost
  return bucket.tokens >= 0 ? 0 : Math.ceil((-bucket.tokens / rate) * 1000)
}

function refill(bucket: Bucket, rate: number, nowMs: number): void {
  bucket.tokens = Math.min(rate, bucket.tokens + ((nowMs - bucket.atMs) / 1000) * rate)
  bucket.atMs = nowMs
}

function bucketOf(
  buckets: Map<string, Bucket>,
  call: RateLimitCall,
  rate: number,
  nowMs: number,
): Bucket {
  const key = `${call.name} ${call.key}`
  const known = buckets.get(key)
  if (known !== undefined) return known
  // A flood of new keys (addresses are cheap) must neither grow memory nor buy a fresh burst each.
  const full = buckets.size >= RATE_BUCKETS_MAX
  const shared = full ? buckets.get(`${call.name} `) : undefined
  if (shared !== undefined) return shared
  const fresh = { tokens: rate, atMs: nowMs }
  buckets.set(full ? `${call.name} ` : key, fresh)
  return fresh
}

/** A full bucket is as good as none. */
function sweep(buckets: Map<string, Bucket>, limits: RateLimits, nowMs: number): void {
  for (const [key, bucket] of buckets) {
    const rate = limits[key.slice(0, key.indexOf(' ')) as RateLimitName] ?? 0
    refill(bucket, rate, nowMs)
    if (bucket.tokens >= rate) buckets.delete(key)
  }
}

function exhausted(text: string): SignetError {
  return new SignetError('resource_exhausted', 'rate_limited', text)
}
