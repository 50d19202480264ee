/**
 * One outcome per item of a batch (api.md §5.1): what fails its checks is reported in its place,
 * the rest goes to the store in one call. When the store as a whole fails, so does each of those
 * items: clients look at items, and what was refused before must stay visible.
 */

import { assert } from '../../base/assert.ts'
import { type Outcome, type SignetError, toSignetError } from '../../base/error.ts'
import type { Status } from '../../wire/gen/spire/api/types/status.ts'
import { ITEM_OK, toItemStatus } from '../../wire/status.ts'
import type { CallContext } from './context.ts'
import { logFailure, withRequestId } from './failure.ts'

/** `check` throws for what must not reach `store`; outcomes come in the order of the items. */
export async function runBatch<Item, Checked, Value>(
  items: readonly Item[],
  check: (item: Item) => Checked,
  store: (checked: readonly Checked[]) => Promise<readonly Outcome<Value>[]>,
): Promise<Outcome<Value>[]> {
  const checks = items.map((item) => outcomeOf(() => check(item)))
  const good = checks.flatMap((check) => (check.ok ? [check.value] : []))
  const stored = await storeAll(good, store)
  let next = 0
  return checks.map((check) => (check.ok ? stored[next++]! : { ok: false, error: check.error }))
}

async function storeAll<Checked, Value>(
  good: readonly Checked[],
  store: (checked: readonly Checked[]) => Promise<readonly Outcome<Value>[]>,
): Promise<readonly Outcome<Value>[]> {
  if (good.length === 0) return []
  try {
    const outcomes = await store(good)
    assert(outcomes.length === good.length, 'the store answers each item')
    return outcomes
  } catch (thrown) {
    const error = toSignetError(thrown)
    return good.map(() => ({ ok: false, error }))
  }
}

function outcomeOf<T>(run: () => T): Outcome<T> {
  try {
    return { ok: true, value: run() }
  } catch (thrown) {
    return { ok: false, error: toSignetError(thrown) }
  }
}

/** The item's status; its failure is logged, as SPIRE does. */
export function itemStatus(context: CallContext, error: SignetError | undefined): Status {
  if (error === undefined) return ITEM_OK
  const shown = withRequestId(error, context.requestId)
  logFailure(context.log, shown)
  return toItemStatus(shown)
}
