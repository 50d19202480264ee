/**
 * One object per distinct selector in use: a hundred thousand entries of one cluster repeat a few
 * namespaces and images. Equal selectors become identical ones, so subset tests compare addresses.
 * Counted, because selectors with pod UIDs come and go for ever.
 */
import { assert } from '../../base/assert.ts'
import type { Selector } from '../../spiffe/selector.ts'

/** The count is private, so that the object is a selector and nothing else to all others. */
class SharedSelector implements Selector {
  readonly type: string
  readonly value: string
  #uses = 0

  constructor(type: string, value: string) {
    this.type = type
    this.value = value
  }

  /** How many uses there are now. */
  addUses(count: number): number {
    this.#uses += count
    return this.#uses
  }
}

export class SelectorTable {
  /** By type, then by value: no joined key has to be kept. Owned by this table. */
  readonly #byType = new Map<string, Map<string, SharedSelector>>()
  #size = 0

  get size(): number {
    return this.#size
  }

  /** Counts one use of each distinct selector; give them back with `release`. */
  acquire(selectors: readonly Selector[]): Selector[] {
    // Not pushed one by one: V8 would leave room for a dozen more in each of 100,000 arrays.
    const listed = selectors.map((selector) => this.#shared(selector))
    const distinct = new Set(listed)
    const acquired = distinct.size === listed.length ? listed : [...distinct]
    for (const shared of acquired) shared.addUses(1)
    return acquired
  }

  release(selectors: Iterable<Selector>): void {
    for (const { type, value } of selectors) {
      const byValue = this.#byType.get(type)
      const shared = byValue?.get(value)
      assert(byValue && shared, 'only acquired selectors are released')
      if (shared.addUses(-1) > 0) continue
      byValue.delete(value)
      this.#size -= 1
      if (byValue.size === 0) this.#byType.delete(type)
    }
  }

  #shared({ type, value }: Selector): SharedSelector {
    let byValue = this.#byType.get(type)
    if (byValue === undefined) {
      byValue = new Map()
      this.#byType.set(type, byValue)
    }
    let shared = byValue.get(value)
    if (shared === undefined) {
      // A new object: the caller's may hold more than a selector.
      shared = new SharedSelector(type, value)
      byValue.set(value, shared)
      this.#size += 1
    }
    return shared
  }
}
