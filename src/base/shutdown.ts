/**
 * What the operating system tells a program: stop (SIGINT, SIGTERM), look at plugin data again
 * (SIGUSR1), reopen the log (SIGUSR2); and the umask it runs under (features.md §1.1).
 */
import { constants } from 'node:os'
import { unblockSignal } from './os/libc.ts'
import type { Log } from './ports.ts'

const UMASK_MIN = 0o027

export interface SignalActions {
  /** First SIGINT or SIGTERM. A second one ends the process at once. */
  stop(signal: NodeJS.Signals): void
  reconfigure(): void
  reopenLog(): void
}

export function onSignals(actions: SignalActions): Disposable {
  let stopping = false
  const stop = (signal: NodeJS.Signals) => {
    // An operator who asks twice does not want to wait for the first.
    if (stopping) process.exit(1)
    stopping = true
    actions.stop(signal)
  }
  const handlers: readonly [NodeJS.Signals, (signal: NodeJS.Signals) => void][] = [
    ['SIGINT', stop],
    ['SIGTERM', stop],
    ['SIGUSR1', () => actions.reconfigure()],
    ['SIGUSR2', () => actions.reopenLog()],
  ]
  for (const [signal, handler] of handlers) process.on(signal, handler)
  // Unheard, SIGUSR1 makes Node open its inspector: whoever may connect to that reads the keys. So
  // bin/signet starts Node with --disable-sigusr1, which blocks the signal; it comes through, one that
  // was sent during the start included, only while we listen.
  const unblocked = unblockSignal(constants.signals.SIGUSR1)
  return {
    [Symbol.dispose]: () => {
      unblocked[Symbol.dispose]()
      for (const [signal, handler] of handlers) process.off(signal, handler)
    },
  }
}

/** At least 0027, whatever we were started with: files we make are nobody else's. */
export function tightenUmask(log: Log): void {
  const before = process.umask(UMASK_MIN)
  const octal = (mask: number) => mask.toString(8).padStart(4, '0')
  if ((before & UMASK_MIN) === UMASK_MIN) {
    process.umask(before)
    return
  }
  const now = before | UMASK_MIN
  process.umask(now)
  log.warn(`Current umask ${octal(before)} is too permissive; setting umask ${octal(now)}`)
}
