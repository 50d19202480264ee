import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { gathering, merge } from '../../../../src/ca/signer/gather.ts'
import {
  ITEM,
  ITEM_WORDS,
  type SigningBatch,
  type SigningEngine,
} from '../../../../src/ca/signer/port.ts'

/** Items whose message, request and digest all hold the item's own number. */
function batchOf(numbers: readonly number[]): SigningBatch {
  const items = new Uint32Array(numbers.length * ITEM_WORDS)
  numbers.forEach((_number, i) => {
    const word = i * ITEM_WORDS
    items[word + ITEM.messageOffset] = i
    items[word + ITEM.messageLength] = 1
    for (const field of [ITEM.infoOffset, ITEM.publicKeyOffset, ITEM.signatureOffset]) {
      items[word + field] = i
    }
  })
  const bytes = Uint8Array.from(numbers)
  const digests = new Uint8Array(numbers.length * 32)
  numbers.forEach((number, i) => void digests.fill(number, i * 32, i * 32 + 32))
  return { items, messages: bytes, requests: bytes, digests }
}

function echoEngine(): SigningEngine & { calls: number[]; fail: boolean } {
  const engine = {
    name: 'node' as const,
    calls: [] as number[],
    fail: false,
    importKey: () => 5,
    closeKey() {},
    async sign(batch: SigningBatch) {
      if (engine.fail) throw new Error('engine failed')
      const count = batch.items.length / ITEM_WORDS
      engine.calls.push(count)
      const signatures = Array.from({ length: count }, (_, i) => {
        const word = i * ITEM_WORDS
        const values = [
          batch.messages[batch.items[word + ITEM.messageOffset]!]!,
          batch.requests[batch.items[word + ITEM.infoOffset]!]!,
          batch.requests[batch.items[word + ITEM.publicKeyOffset]!]!,
          batch.requests[batch.items[word + ITEM.signatureOffset]!]!,
          batch.digests[i * 32]!,
        ]
        expect(new Set(values).size).toBe(1)
        return Uint8Array.of(values[0]!)
      })
      return { status: Uint8Array.from(signatures, (s) => s[0]!), signatures }
    },
  }
  return engine
}

const answered = (numbers: readonly number[]) => ({
  status: Uint8Array.from(numbers),
  signatures: numbers.map((number) => Uint8Array.of(number)),
})

describe('what one turn brings', () => {
  test('becomes one call, and each gets its own answer', async () => {
    const engine = echoEngine()
    const gathered = gathering(engine)
    const asked = [[1], [2, 3], [], [4, 5, 6]]
    const answers = await Promise.all(asked.map((numbers) => gathered.sign(batchOf(numbers))))
    expect(answers).toEqual(asked.map(answered))
    expect(engine.calls).toEqual([6])
  })

  test('and the next turn another', async () => {
    const engine = echoEngine()
    const gathered = gathering(engine)
    await gathered.sign(batchOf([1]))
    await gathered.sign(batchOf([2]))
    expect(engine.calls).toEqual([1, 1])
  })

  test('large batches go by themselves, after the small ones of the same turn', async () => {
    const engine = echoEngine()
    const gathered = gathering(engine)
    const asked = [[1, 2, 3, 4, 5, 6, 7, 8], [9], [10]]
    const answers = await Promise.all(asked.map((numbers) => gathered.sign(batchOf(numbers))))
    expect(answers).toEqual(asked.map(answered))
    expect(engine.calls).toEqual([2, 8])
  })

  test('a failing engine fails all of them and none later', async () => {
    const engine = echoEngine()
    const gathered = gathering(engine)
    engine.fail = true
    const answers = await Promise.allSettled([
      gathered.sign(batchOf([1])),
      gathered.sign(batchOf([2])),
    ])
    expect(answers.map((answer) => answer.status)).toEqual(['rejected', 'rejected'])
    engine.fail = false
    expect(await gathered.sign(batchOf([3]))).toEqual(answered([3]))
  })

  test('keys are the engine’s', () => {
    expect(gathering(echoEngine()).importKey(new Uint8Array())).toBe(5)
  })
})

test('merging keeps every item with its bytes', async () => {
  const numbers = fc.array(fc.integer({ min: 1, max: 250 }), { maxLength: 10 })
  await fc.assert(
    fc.asyncProperty(fc.array(numbers, { maxLength: 10 }), async (batches) => {
      const merged = await echoEngine().sign(merge(batches.map(batchOf)))
      expect(merged).toEqual(answered(batches.flat()))
    }),
  )
})
