import { expect, test } from 'vitest'
import { createTurns } from '../../../src/ca/turns.ts'

/** Work that ends when told to; `log` says who has begun. */
function bench() {
  const turns = createTurns(2, 100)
  const log: string[] = []
  const take = (name: string, size = 100) => {
    const { promise, resolve, reject } = Promise.withResolvers<string>()
    const result = turns.take(size, () => {
      log.push(name)
      return promise
    })
    return { result, resolve: () => resolve(name), reject }
  }
  return { log, take }
}

test('two work at once, the others wait in order', async () => {
  const { log, take } = bench()
  const [a, b, c, d] = [take('a'), take('b'), take('c'), take('d')]
  expect(log).toEqual(['a', 'b'])
  b.resolve()
  expect(await b.result).toBe('b')
  await expect.poll(() => log).toEqual(['a', 'b', 'c'])
  a.resolve()
  await expect.poll(() => log).toEqual(['a', 'b', 'c', 'd'])
  c.resolve()
  d.resolve()
  expect(await Promise.all([a.result, c.result, d.result])).toEqual(['a', 'c', 'd'])
})

test('work that fails hands its place on', async () => {
  const { log, take } = bench()
  const [a, b, c] = [take('a'), take('b'), take('c')]
  a.reject(new Error('out of paper'))
  await expect(a.result).rejects.toThrow('out of paper')
  await expect.poll(() => log).toEqual(['a', 'b', 'c'])
  const d = take('d')
  expect(log).toEqual(['a', 'b', 'c'])
  for (const each of [b, c, d]) each.resolve()
  expect(await Promise.all([b.result, c.result, d.result])).toEqual(['b', 'c', 'd'])
})

test('who comes while a place is handed on does not get in between', async () => {
  const { log, take } = bench()
  const [a, b, c] = [take('a'), take('b'), take('c')]
  a.resolve()
  await a.result
  const d = take('d')
  b.resolve()
  c.resolve()
  d.resolve()
  await Promise.all([b.result, c.result, d.result])
  expect(log).toEqual(['a', 'b', 'c', 'd'])
})

test('who waits together goes together, as far as a turn reaches', async () => {
  const { log, take } = bench()
  const [a, b] = [take('a'), take('b')]
  const [c, d, e, f] = [take('c', 50), take('d', 50), take('e', 1), take('f', 500)]
  a.resolve()
  await expect.poll(() => log).toEqual(['a', 'b', 'c', 'd'])
  // The turn is over when the last of those who share it has ended.
  d.resolve()
  await d.result
  expect(log).toEqual(['a', 'b', 'c', 'd'])
  c.resolve()
  await expect.poll(() => log).toEqual(['a', 'b', 'c', 'd', 'e'])
  // What is larger than a turn has one for itself.
  e.resolve()
  await expect.poll(() => log).toEqual(['a', 'b', 'c', 'd', 'e', 'f'])
  b.resolve()
  f.resolve()
  await Promise.all([a.result, b.result, c.result, e.result, f.result])
})
