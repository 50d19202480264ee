/** A clock that stands still until a test moves it. Sleepers wake in the order of their deadlines. */
import type { Clock, EpochSeconds } from '../../src/base/ports.ts'

interface Sleeper {
  readonly at: number
  readonly wake: () => void
}

export class FakeClock implements Clock {
  #wallMs: number
  #monotonicMs = 0
  #sleepers: Sleeper[] = []
  #armed: (() => void)[] = []
  readonly #tickers = new Set<{ readonly ms: number; readonly fn: () => void; next: number }>()

  constructor(startSeconds: EpochSeconds = 1_800_000_000) {
    this.#wallMs = startSeconds * 1000
  }

  nowSeconds(): EpochSeconds {
    return Math.floor(this.#wallMs / 1000)
  }

  nowMs(): number {
    return this.#wallMs
  }

  monotonicMs(): number {
    return this.#monotonicMs
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason)
      const sleeper: Sleeper = { at: this.#monotonicMs + ms, wake: resolve }
      this.#sleepers.push(sleeper)
      signal?.addEventListener('abort', () => {
        this.#sleepers = this.#sleepers.filter((other) => other !== sleeper)
        reject(signal.reason)
      })
      for (const armed of this.#armed.splice(0)) armed()
    })
  }

  every(ms: number, fn: () => void): Disposable {
    const ticker = { ms, fn, next: this.#monotonicMs + ms }
    this.#tickers.add(ticker)
    return { [Symbol.dispose]: () => void this.#tickers.delete(ticker) }
  }

  /** Resolves once somebody sleeps. */
  async untilArmed(): Promise<void> {
    if (this.#sleepers.length > 0) return
    await new Promise<void>((resolve) => this.#armed.push(resolve))
  }

  /** Both clocks go on; sleepers and tickers that fall due are served. */
  advanceMs(ms: number): void {
    this.#wallMs += ms
    this.#monotonicMs += ms
    const due = this.#sleepers.filter((sleeper) => sleeper.at <= this.#monotonicMs)
    this.#sleepers = this.#sleepers.filter((sleeper) => sleeper.at > this.#monotonicMs)
    for (const sleeper of due.sort((a, b) => a.at - b.at)) sleeper.wake()
    for (const ticker of this.#tickers) {
      while (ticker.next <= this.#monotonicMs) {
        ticker.next += ticker.ms
        ticker.fn()
      }
    }
  }

  /** Goes on in steps, with time for others between them, until `happened`. */
  async advanceUntil(happened: () => boolean, stepMs: number): Promise<void> {
    for (;;) {
      await new Promise(setImmediate)
      if (happened()) return
      this.advanceMs(stepMs)
    }
  }

  advanceSeconds(seconds: number): void {
    this.advanceMs(seconds * 1000)
  }

  /** Somebody sets the wall clock; the monotonic one goes on. */
  jumpSeconds(seconds: number): void {
    this.#wallMs += seconds * 1000
  }
}
