/**
 * Carries committed changes from the change log to everything that lives on them: the caches, the
 * authorities, through them the push streams and the server's own certificate.
 *
 * One reader per server. It reads when PostgreSQL notifies, and once a second besides, which is
 * what bounds the age of the caches should a notification be lost. A change is given to all
 * consumers, in order, before the next read; if one of them fails, the same changes are given
 * again. Owns the position in the log.
 */
import { SignetError } from '../base/error.ts'
import { CHANGE_READ_MS, CHANGE_RETRY_MS_MAX } from '../base/limits.ts'
import type { Clock, Log, Metrics } from '../base/ports.ts'
import type { Change, ChangeLog } from './ports.ts'

export interface ChangeConsumer {
  readonly name: string
  /** Reads everything anew; `position` is from before the call. */
  load(position: string): Promise<void>
  /** May be given the same changes again after a failure. */
  handleChanges(changes: readonly Change[], position: string): Promise<void>
}

export interface ChangeFeed {
  /** Loads all consumers; rejects when the database can't be read. Then `run`. */
  start(): Promise<void>
  /** Reads and hands on until the signal aborts. Never rejects. */
  run(signal: AbortSignal): Promise<void>
  /** One read. Resolves with how many changes were handed on; rejects when it failed. */
  step(): Promise<number>
  /**
   * Monotonic time at which the newest state that all consumers hold was certainly current: the
   * beginning of the last read that was handed on. -Infinity before the first.
   */
  currentAsOfMs(): number
  /** False from a failed read until the next good one. */
  isConnected(): boolean
  /** Did the last read fail because the database could not be reached, not for a fault of ours? */
  isDatabaseAway(): boolean
}

export interface ChangeFeedParts {
  readonly changeLog: ChangeLog
  readonly consumers: readonly ChangeConsumer[]
  readonly clock: Clock
  readonly log: Log
  readonly metrics: Metrics
}

export function createChangeFeed(parts: ChangeFeedParts): ChangeFeed {
  const { changeLog, consumers, clock } = parts
  let position: string | undefined
  let asOfMs = -Infinity
  let failures = 0
  let lastError: unknown

  const reload = async (): Promise<number> => {
    const startMs = clock.monotonicMs()
    // Before the state it goes with: what commits in between is read twice, never missed.
    const from = await changeLog.position()
    for (const consumer of consumers) await consumer.load(from)
    position = from
    asOfMs = startMs
    return 0
  }
  const read = async (): Promise<number> => {
    if (position === undefined) return reload()
    const startMs = clock.monotonicMs()
    const news = await changeLog.readSince(position)
    if (news.changes.length > 0) {
      for (const consumer of consumers) {
        await consumer.handleChanges(news.changes, news.position)
      }
    }
    position = news.position
    asOfMs = startMs
    return news.changes.length
  }
  const step = async (): Promise<number> => {
    try {
      const count = await read()
      if (failures > 0) parts.log.info('Changes are read again', { failures })
      failures = 0
      return count
    } catch (error) {
      if (isStale(error)) {
        parts.log.warn('Change log can not be continued; reading everything anew', { error })
        position = undefined
      }
      failures++
      lastError = error
      throw error
    }
  }
  return {
    start: async () => void (await step()),
    run: (signal) => follow(parts, step, () => failures, signal),
    step,
    currentAsOfMs: () => asOfMs,
    isConnected: () => failures === 0 && asOfMs !== -Infinity,
    isDatabaseAway: () =>
      failures > 0 && lastError instanceof SignetError && lastError.kind === 'unavailable',
  }
}

async function follow(
  parts: ChangeFeedParts,
  step: () => Promise<number>,
  failures: () => number,
  signal: AbortSignal,
): Promise<void> {
  const { clock, log, metrics } = parts
  let wake = new AbortController()
  let woken = false
  await using _listening = parts.changeLog.listen(() => {
    woken = true
    wake.abort()
  })
  while (!signal.aborted) {
    woken = false
    try {
      const count = await step()
      if (count > 0) metrics.counter('change_feed.changes', count)
    } catch (error) {
      metrics.counter('change_feed.failures')
      // The first of a row only: a database that is away for an hour is one event.
      if (failures() === 1 && !isStale(error)) log.error('Unable to read changes', { error })
    }
    if (woken) continue
    wake = new AbortController()
    await clock.sleep(pauseMs(failures()), AbortSignal.any([signal, wake.signal])).catch(() => {})
  }
}

function pauseMs(failures: number): number {
  if (failures === 0) return CHANGE_READ_MS
  return Math.min(CHANGE_READ_MS * 2 ** (failures - 1), CHANGE_RETRY_MS_MAX)
}

function isStale(error: unknown): boolean {
  return error instanceof SignetError && error.code === 'stale_position'
}
