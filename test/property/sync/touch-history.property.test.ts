import fc from 'fast-check'
import { expect, test } from 'vitest'
import { SYNC_HISTORY_WEIGHT_MAX } from '../../../src/base/limits.ts'
import { TouchHistory } from '../../../src/server/sync/touch-history.ts'

const AGENTS = ['a', 'b', 'c']
const touched = fc.record({
  agentIds: fc.uniqueArray(fc.constantFrom(...AGENTS), { minLength: 1 }),
  entryIds: fc.uniqueArray(fc.constantFrom('1', '2', '3', '4'), { minLength: 1 }),
})
const steps = fc.array(fc.array(touched, { maxLength: 3 }), { maxLength: 20 })

test('nothing forgotten: every question is answered as by reading the whole record', () => {
  fc.assert(
    fc.property(steps, (record) => {
      const history = new TouchHistory()
      record.forEach((step, index) => {
        history.record(index + 1, step)
      })
      for (const agent of AGENTS) {
        for (let since = 0; since <= record.length; since++) {
          const expected = record
            .slice(since)
            .flatMap((step) => step.filter((t) => t.agentIds.includes(agent)))
            .flatMap((t) => t.entryIds)
          expect(history.since(agent, since)).toEqual(new Set(expected))
        }
      }
    }),
  )
})

const many = (count: number, prefix: string) =>
  Array.from({ length: count }, (_, n) => `${prefix}${n}`)

test('what was forgotten is unknown to the agents it concerned, and to them alone', () => {
  const history = new TouchHistory()
  history.record(1, [{ agentIds: ['a'], entryIds: ['1'] }])
  history.record(2, [{ agentIds: ['b'], entryIds: many(SYNC_HISTORY_WEIGHT_MAX - 3, 'e') }])
  expect(history.since('a', 0)).toEqual(new Set(['1']))
  history.record(3, [{ agentIds: ['c'], entryIds: ['3'] }])
  expect(history.since('a', 0)).toBeUndefined()
  expect(history.since('a', 1)).toEqual(new Set())
  expect(history.since('b', 0)?.size).toBe(SYNC_HISTORY_WEIGHT_MAX - 3)
  expect(history.since('c', 0)).toEqual(new Set(['3']))
  expect(history.since('never touched', 0)).toEqual(new Set())
})

test('a step larger than the memory is forgotten at once', () => {
  const history = new TouchHistory()
  history.record(1, [{ agentIds: ['a'], entryIds: many(SYNC_HISTORY_WEIGHT_MAX, 'e') }])
  expect(history.since('a', 0)).toBeUndefined()
  expect(history.since('a', 1)).toEqual(new Set())
})

test('the memory of who was forgotten is bounded too: then everybody is', () => {
  const history = new TouchHistory()
  const agents = many(100_001, 'agent-')
  history.record(1, [{ agentIds: agents, entryIds: ['1'] }])
  history.record(2, [{ agentIds: ['x'], entryIds: many(SYNC_HISTORY_WEIGHT_MAX - 1, 'e') }])
  expect(history.since('never touched', 0)).toBeUndefined()
  expect(history.since('never touched', 1)).toEqual(new Set())
  history.clear()
  expect(history.since('never touched', 0)).toEqual(new Set())
})

test('long use keeps answering', () => {
  const history = new TouchHistory()
  const weight = 1_000
  const ids = many(weight - 1, 'e')
  for (let n = 1; n <= 5_000; n++) history.record(n, [{ agentIds: ['a'], entryIds: ids }])
  const kept = SYNC_HISTORY_WEIGHT_MAX / weight
  expect(history.since('a', 5_000 - kept)?.size).toBe(ids.length)
  expect(history.since('a', 5_000 - kept - 1)).toBeUndefined()
})
