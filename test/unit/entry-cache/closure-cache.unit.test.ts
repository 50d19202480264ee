import { expect, test } from 'vitest'
import { AUTHORIZED_ENTRIES_CACHED_MAX } from '../../../src/base/limits.ts'
import { ClosureCache } from '../../../src/server/entry-cache/closure-cache.ts'
import type { RegistrationEntry } from '../../../src/spiffe/registration-entry.ts'
import { makeEntry } from '../../fakes/make-entry.ts'

const ROW_COST = 8
const entry = makeEntry({ id: 'one' })
const entries = (count: number): RegistrationEntry[] => new Array(count).fill(entry)

test('an answer holds until its agent expires', () => {
  const cache = new ClosureCache()
  const answer = entries(1)
  cache.set('a', answer, 100)
  expect(cache.get('a', 99)).toBe(answer)
  expect(cache.get('a', 100)).toBeUndefined()
  expect(cache.get('a', 99)).toBeUndefined()
  cache.set('b', answer, undefined)
  expect(cache.get('b', Number.MAX_SAFE_INTEGER)).toBe(answer)
  cache.delete('b')
  expect(cache.get('b', 0)).toBeUndefined()
})

test('at the limit both answers stay; one more slot drops the oldest', () => {
  const half = AUTHORIZED_ENTRIES_CACHED_MAX / 2 - ROW_COST
  const cache = new ClosureCache()
  cache.set('a', entries(half), undefined)
  cache.set('b', entries(half), undefined)
  expect(cache.get('a', 0)).toHaveLength(half)
  cache.set('b', entries(half + 1), undefined)
  expect(cache.get('a', 0)).toBeUndefined()
  expect(cache.get('b', 0)).toHaveLength(half + 1)
})

test('an answer above the limit alone is not kept', () => {
  const cache = new ClosureCache()
  cache.set('a', entries(AUTHORIZED_ENTRIES_CACHED_MAX + 1), undefined)
  expect(cache.get('a', 0)).toBeUndefined()
})
