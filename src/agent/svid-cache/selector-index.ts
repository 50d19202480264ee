/**
 * Two indexes over sets of selector keys, so that neither a workload nor a change of an entry is
 * compared with everything (1,000 identities on a node share `unix:user:root` easily).
 *
 * `SubsetIndex` files each set under one of its keys only, the one fewest others were filed under:
 * a set can lie within a workload's only if that key does. `SupersetIndex` files each set under all
 * of its keys and asks the rarest key of the question.
 */
import { isSubset } from '../../spiffe/selector.ts'

interface Filed<T> {
  readonly keys: ReadonlySet<string>
  readonly value: T
}

export class SubsetIndex<T> {
  readonly #buckets = new Map<string, Set<Filed<T>>>()
  readonly #filed = new Map<T, { readonly pivot: string; readonly filed: Filed<T> }>()

  /** Files or re-files `value`. An empty set is never found: no selector must not match everybody. */
  set(value: T, keys: ReadonlySet<string>): void {
    this.delete(value)
    let pivot: string | undefined
    let size = Number.POSITIVE_INFINITY
    for (const key of keys) {
      const bucketSize = this.#buckets.get(key)?.size ?? 0
      if (bucketSize < size) {
        size = bucketSize
        pivot = key
      }
    }
    if (pivot === undefined) return
    const filed = { keys, value }
    addTo(this.#buckets, pivot, filed)
    this.#filed.set(value, { pivot, filed })
  }

  delete(value: T): void {
    const known = this.#filed.get(value)
    if (known === undefined) return
    this.#filed.delete(value)
    removeFrom(this.#buckets, known.pivot, known.filed)
  }

  /** The values whose set is a subset of `keys`. */
  within(keys: ReadonlySet<string>): T[] {
    const found: T[] = []
    for (const key of keys) {
      const bucket = this.#buckets.get(key)
      if (bucket === undefined) continue
      for (const filed of bucket) if (isSubset(filed.keys, keys)) found.push(filed.value)
    }
    return found
  }
}

export class SupersetIndex<T> {
  readonly #buckets = new Map<string, Set<Filed<T>>>()
  readonly #filed = new Map<T, Filed<T>>()

  set(value: T, keys: ReadonlySet<string>): void {
    this.delete(value)
    const filed = { keys, value }
    this.#filed.set(value, filed)
    for (const key of keys) addTo(this.#buckets, key, filed)
  }

  delete(value: T): void {
    const filed = this.#filed.get(value)
    if (filed === undefined) return
    this.#filed.delete(value)
    for (const key of filed.keys) removeFrom(this.#buckets, key, filed)
  }

  /** The values whose set contains all of `keys`; none for an empty question. */
  containing(keys: ReadonlySet<string>): T[] {
    let rarest: Set<Filed<T>> | undefined
    for (const key of keys) {
      const bucket = this.#buckets.get(key)
      if (bucket === undefined) return []
      if (rarest === undefined || bucket.size < rarest.size) rarest = bucket
    }
    const found: T[] = []
    for (const filed of rarest ?? []) if (isSubset(keys, filed.keys)) found.push(filed.value)
    return found
  }
}

function addTo<T>(buckets: Map<string, Set<T>>, key: string, item: T): void {
  const bucket = buckets.get(key)
  if (bucket === undefined) buckets.set(key, new Set([item]))
  else bucket.add(item)
}

function removeFrom<T>(buckets: Map<string, Set<T>>, key: string, item: T): void {
  const bucket = buckets.get(key)
  if (bucket === undefined) return
  bucket.delete(item)
  if (bucket.size === 0) buckets.delete(key)
}
