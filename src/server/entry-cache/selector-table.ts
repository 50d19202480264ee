/**
 * One object per distinct selector in use: a hundred thousand entries of one cluster repeat the same
 * namespaces and images, and equal selectors become identical ones, so subset tests compare
 * addresses. Counted, because selectors with pod UIDs come and go for ever.
 */
import { assert } from '../../base/assert.ts'
import type { Selector } from '../../spiffe/selector.ts'

interface Counted {
  readonly selector: Selector
  uses: number
}

export class SelectorTable {
  /** By type, then by value: no joined key has to be kept. Owned by this table. */
  readonly #byType = new Map<string, Map<string, Counted>>()
  #size = 0

  get size(): number {
    return this.#size
  }

  /** Counts one use of each distinct selector; give them back with `release`. */
  acquire(selectors: readonly Selector[]): Selector[] {
    const acquired: Selector[] = []
    for (const selector of selectors) {
      const counted = this.#counted(selector)
      if (acquired.includes(counted.selector)) continue
      counted.uses += 1
      acquired.push(counted.selector)
    }
    return acquired
  }

  release(selectors: Iterable<Selector>): void {
    for (const { type, value } of selectors) {
      const byValue = this.#byType.get(type)
      const counted = byValue?.get(value)
      assert(byValue && counted, 'only acquired selectors are released')
      counted.uses -= 1
      if (counted.uses > 0) continue
      byValue.delete(value)
      this.#size -= 1
      if (byValue.size === 0) this.#byType.delete(type)
    }
  }

  #counted({ type, value }: Selector): Counted {
    let byValue = this.#byType.get(type)
    if (byValue === undefined) {
      byValue = new Map()
      this.#byType.set(type, byValue)
    }
    let counted = byValue.get(value)
    if (counted === undefined) {
      // A new object: the caller's may hold more than a selector, and its type another string.
      counted = { selector: { type, value }, uses: 0 }
      byValue.set(value, counted)
      this.#size += 1
    }
    return counted
  }
}
