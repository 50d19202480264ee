/** A wait that ends early: by `wake`, which also counts when nobody waits yet. */
import type { Clock } from '../base/ports.ts'

export interface Wakeup {
  /** Resolves after `ms`, at once when woken before, or rejects when `signal` aborts. */
  wait(ms: number, signal: AbortSignal): Promise<void>
  wake(): void
}

export function createWakeup(clock: Clock): Wakeup {
  let woken = false
  let interrupt: AbortController | undefined
  return {
    async wait(ms, signal) {
      signal.throwIfAborted()
      if (!woken) {
        const own = new AbortController()
        interrupt = own
        try {
          await clock.sleep(ms, AbortSignal.any([own.signal, signal]))
        } catch (error) {
          if (signal.aborted || !own.signal.aborted) throw error
        } finally {
          interrupt = undefined
        }
      }
      woken = false
    },
    wake() {
      woken = true
      interrupt?.abort()
    },
  }
}
