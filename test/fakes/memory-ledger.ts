/** A ledger in memory whose commits a test can hold back or refuse. */
import { SignetError } from '../../src/base/error.ts'
import type { Ledger, LedgerRow } from '../../src/ca/ledger.ts'

export interface MemoryLedger extends Ledger {
  readonly rows: LedgerRow[]
  readonly failures: { readonly rows: readonly LedgerRow[]; readonly reason: string }[]
  /** Until it is released, `record` waits. */
  hold(): () => void
  down: boolean
}

export function createMemoryLedger(): MemoryLedger {
  let gate: Promise<void> = Promise.resolve()
  const ledger: MemoryLedger = {
    rows: [],
    failures: [],
    down: false,
    hold() {
      let open = () => {}
      gate = new Promise((resolve) => {
        open = resolve
      })
      return () => open()
    },
    async record(rows) {
      await gate
      if (ledger.down) {
        throw new SignetError('unavailable', 'ledger_unavailable', 'ledger is unavailable', {
          retryAfterSeconds: 1,
        })
      }
      ledger.rows.push(...rows)
    },
    recordFailure(rows, reason) {
      ledger.failures.push({ rows, reason })
    },
  }
  return ledger
}
