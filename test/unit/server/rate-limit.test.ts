import { afterEach, describe, expect, test } from 'vitest'
import { SignetError } from '../../../src/base/error.ts'
import { RATE_BUCKETS_MAX, RATE_WAIT_MS_MAX } from '../../../src/base/limits.ts'
import type { Metrics } from '../../../src/base/ports.ts'
import {
  createRateLimiter,
  type RateLimitCall,
  type RateLimiter,
  rateLimitsOf,
} from '../../../src/server/rate-limit.ts'
import { FakeClock } from '../../fakes/fake-clock.ts'

const OPTIONS = { attestation: true, attestationPerSecond: 1, signing: true }
const open: RateLimiter[] = []

afterEach(() => {
  for (const limiter of open.splice(0)) limiter[Symbol.dispose]()
})

function limiterOf(options = OPTIONS) {
  const clock = new FakeClock()
  const counted: string[] = []
  const metrics: Metrics = {
    counter: (key, _value, labels) => void counted.push(`${key} ${labels?.status}`),
    gauge: () => {},
    sample: () => {},
  }
  const limiter = createRateLimiter({ clock, metrics }, rateLimitsOf(options))
  open.push(limiter)
  const wait = (change: Partial<RateLimitCall> = {}) =>
    limiter.wait({
      name: 'csr',
      key: 'a',
      cost: 1,
      metricKey: 'rateLimit.x',
      deadlineMs: Number.POSITIVE_INFINITY,
      signal: new AbortController().signal,
      ...change,
    })
  return { clock, counted, wait }
}

/** Whether a promise has settled, looked at after all that could settle it has run. */
async function isPending(promise: Promise<unknown>): Promise<boolean> {
  const marker = Symbol('pending')
  promise.catch(() => {})
  for (let i = 0; i < 10; i++) await Promise.resolve()
  return (await Promise.race([promise.catch(() => {}), Promise.resolve(marker)])) === marker
}

describe('waiting', () => {
  test('the burst passes at once, what follows waits for its tokens', async () => {
    const { clock, wait } = limiterOf()
    await wait({ cost: 500 })
    const next = wait({ cost: 100 })
    await clock.untilArmed()
    clock.advanceMs(199)
    expect(await isPending(next)).toBe(true)
    clock.advanceMs(1)
    await next
  })

  test('waiters go in turn: each reserves behind the others', async () => {
    const { clock, wait } = limiterOf()
    await wait({ cost: 500 })
    const order: string[] = []
    const first = wait({ cost: 250 }).then(() => order.push('first'))
    const second = wait({ cost: 250 }).then(() => order.push('second'))
    clock.advanceMs(500)
    await first
    expect(order).toEqual(['first'])
    clock.advanceMs(500)
    await second
    expect(order).toEqual(['first', 'second'])
  })

  test('tokens come back with time, up to the burst', async () => {
    const { clock, wait } = limiterOf()
    await wait({ cost: 500 })
    clock.advanceMs(10_000)
    await wait({ cost: 500 })
    expect(await isPending(wait())).toBe(true)
  })

  test('callers and limits do not share tokens', async () => {
    const { wait } = limiterOf()
    await wait({ cost: 500 })
    await wait({ cost: 500, key: 'b' })
    await wait({ cost: 500, name: 'jwt' })
  })

  test('a cost of nothing and a limit switched off never wait', async () => {
    const { wait } = limiterOf({ ...OPTIONS, signing: false, attestation: false })
    await wait({ cost: 10_000 })
    await wait({ name: 'jwt', cost: 10_000 })
    await wait({ name: 'attest', cost: 10_000 })
    const on = limiterOf()
    await on.wait({ cost: 500 })
    await on.wait({ cost: 0 })
  })

  test('keys and posts are limited whatever is configured', async () => {
    const { wait } = limiterOf({ ...OPTIONS, signing: false, attestation: false })
    await expect(wait({ name: 'key', cost: 501 })).rejects.toMatchObject({ code: 'rate_limited' })
    await expect(wait({ name: 'post', cost: 11 })).rejects.toMatchObject({ code: 'rate_limited' })
  })

  test.each([
    ['attest', 1],
    ['csr', 500],
    ['jwt', 500],
    ['key', 500],
    ['post', 10],
  ] as const)('%s: %i at once, and not one more', async (name, burst) => {
    const { wait } = limiterOf()
    await wait({ name, cost: burst })
    await expect(wait({ name, key: 'b', cost: burst + 1 })).rejects.toMatchObject({
      code: 'rate_limited',
    })
  })

  test('attestations have a rate of their own', async () => {
    const { wait } = limiterOf({ ...OPTIONS, attestationPerSecond: 20 })
    await wait({ name: 'attest', cost: 20 })
    expect(await isPending(wait({ name: 'attest' }))).toBe(true)
  })
})

describe('what is counted', () => {
  test('each call of a method that has a limit, with how it ended', async () => {
    const { counted, wait } = limiterOf()
    await wait()
    await wait({ cost: 0 })
    await expect(wait({ cost: 501 })).rejects.toThrow()
    const [ok, refused] = ['rateLimit.x OK', 'rateLimit.x ResourceExhausted']
    expect(counted).toEqual([ok, ok, refused])
  })

  test('nothing where the limit is switched off', async () => {
    const { counted, wait } = limiterOf({ ...OPTIONS, signing: false })
    await wait({ cost: 501 })
    expect(counted).toEqual([])
  })
})

describe('refusing', () => {
  test('a cost above the burst fails at once and takes nothing', async () => {
    const { wait } = limiterOf()
    await expect(wait({ cost: 501 })).rejects.toMatchObject({
      kind: 'resource_exhausted',
      message: 'rate (501) exceeds burst size (500)',
    })
    await wait({ cost: 500 })
  })

  test('a wait beyond the deadline fails at once and takes nothing', async () => {
    const { clock, wait } = limiterOf()
    await wait({ cost: 500 })
    const deadlineMs = clock.nowMs() + 999
    await expect(wait({ cost: 500, deadlineMs })).rejects.toMatchObject({
      kind: 'resource_exhausted',
      message: 'rate: Wait(n=500) would exceed context deadline',
    })
    const inTime = wait({ cost: 500, deadlineMs: clock.nowMs() + 1000 })
    clock.advanceMs(1000)
    await inTime
  })

  test('without a deadline a wait is bounded all the same', async () => {
    const { wait } = limiterOf()
    const seconds = RATE_WAIT_MS_MAX / 1000
    const waiting = Array.from({ length: seconds + 1 }, () => wait({ cost: 500 }))
    expect(await isPending(waiting[seconds]!)).toBe(true)
    await expect(wait({ cost: 1 })).rejects.toMatchObject({ kind: 'resource_exhausted' })
  })

  test('a caller that goes away gives its tokens back', async () => {
    const { clock, wait } = limiterOf()
    await wait({ cost: 500 })
    const controller = new AbortController()
    const gone = wait({ cost: 500, signal: controller.signal })
    const reason = new SignetError('canceled', 'canceled', 'context canceled')
    controller.abort(reason)
    await expect(gone).rejects.toBe(reason)
    const next = wait({ cost: 250 })
    clock.advanceMs(500)
    await next
  })
})

describe('buckets', () => {
  test('a flood of callers shares one bucket instead of growing', async () => {
    const { wait } = limiterOf()
    for (let i = 0; i < RATE_BUCKETS_MAX; i++) await wait({ key: `k${i}`, cost: 1 })
    await wait({ key: 'beyond-1', cost: 500 })
    expect(await isPending(wait({ key: 'beyond-2' }))).toBe(true)
  })

  test('buckets that are full again are dropped', async () => {
    const { clock, wait } = limiterOf()
    for (let i = 0; i < RATE_BUCKETS_MAX; i++) await wait({ key: `k${i}`, cost: 1 })
    clock.advanceMs(60_000)
    await wait({ key: 'beyond-1', cost: 500 })
    await wait({ key: 'beyond-2', cost: 500 })
  })
})
