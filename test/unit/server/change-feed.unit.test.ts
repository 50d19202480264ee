import { describe, expect, test } from 'vitest'
import { SignetError } from '../../../src/base/error.ts'
import { type ChangeConsumer, createChangeFeed } from '../../../src/server/change-feed.ts'
import type { Change, ChangeLog } from '../../../src/server/ports.ts'
import { FakeClock } from '../../fakes/fake-clock.ts'
import { createMemoryLog, createMemoryMetrics } from '../../fakes/memory-log.ts'

const ENTRY: Change = { kind: 'entry', id: 'e1' }
const AGENT: Change = { kind: 'agent', id: 'a1' }

/** A log kept as a list; positions are lengths of it. */
function setUp() {
  const clock = new FakeClock()
  const log = createMemoryLog()
  const committed: Change[] = []
  const seen: string[] = []
  let failLog: unknown
  let failConsumer: unknown
  let wake = () => {}
  let reads = 0
  const changeLog: ChangeLog = {
    position: async () => {
      if (failLog) throw failLog
      return String(committed.length)
    },
    readSince: async (position) => {
      reads++
      if (failLog) throw failLog
      return {
        changes: committed.slice(Number(position)),
        position: String(committed.length),
      }
    },
    listen: (fn) => {
      wake = fn
      return { [Symbol.asyncDispose]: async () => {} }
    },
  }
  const consumer = (name: string): ChangeConsumer => ({
    name,
    load: async (position) => void seen.push(`${name} load ${position}`),
    handleChanges: async (changes, position) => {
      if (name === 'two' && failConsumer) throw failConsumer
      seen.push(`${name} ${changes.map(({ id }) => id)} @${position}`)
    },
  })
  const feed = createChangeFeed({
    changeLog,
    consumers: [consumer('one'), consumer('two')],
    clock,
    log,
    metrics: createMemoryMetrics(),
  })
  return {
    clock,
    log,
    committed,
    seen,
    feed,
    reads: () => reads,
    wake: () => wake(),
    failLog: (error: unknown) => {
      failLog = error
    },
    failConsumer: (error: unknown) => {
      failConsumer = error
    },
  }
}

describe('step', () => {
  test('loads first, then hands each change to all consumers in order, once', async () => {
    const rig = setUp()
    await rig.feed.start()
    rig.committed.push(ENTRY, AGENT)
    expect(await rig.feed.step()).toBe(2)
    expect(await rig.feed.step()).toBe(0)
    expect(rig.seen).toEqual(['one load 0', 'two load 0', 'one e1,a1 @2', 'two e1,a1 @2'])
  })

  test('a failing consumer is given the same changes again, with later ones', async () => {
    const rig = setUp()
    await rig.feed.start()
    rig.committed.push(ENTRY)
    rig.failConsumer(new Error('database is away'))
    await expect(rig.feed.step()).rejects.toThrow()
    rig.failConsumer(undefined)
    rig.committed.push(AGENT)
    await rig.feed.step()
    expect(rig.seen.slice(2)).toEqual(['one e1 @1', 'one e1,a1 @2', 'two e1,a1 @2'])
  })

  test('a position that is not known any more makes everything be read anew', async () => {
    const rig = setUp()
    await rig.feed.start()
    rig.failLog(new SignetError('failed_precondition', 'stale_position', 'pruned'))
    await expect(rig.feed.step()).rejects.toMatchObject({ code: 'stale_position' })
    rig.failLog(undefined)
    rig.committed.push(ENTRY)
    await rig.feed.step()
    expect(rig.seen.slice(2)).toEqual(['one load 1', 'two load 1'])
  })
})

test('tells since when its state is certainly current, and whether it still reads', async () => {
  const rig = setUp()
  expect([rig.feed.currentAsOfMs(), rig.feed.isConnected()]).toEqual([-Infinity, false])
  rig.clock.advanceMs(50)
  await rig.feed.start()
  expect([rig.feed.currentAsOfMs(), rig.feed.isConnected()]).toEqual([50, true])
  rig.clock.advanceMs(1_000)
  rig.failLog(new Error('away'))
  await rig.feed.step().catch(() => {})
  expect([rig.feed.currentAsOfMs(), rig.feed.isConnected()]).toEqual([50, false])
  rig.failLog(undefined)
  await rig.feed.step()
  expect([rig.feed.currentAsOfMs(), rig.feed.isConnected()]).toEqual([1_050, true])
})

test('tells a database that is away from a fault of ours', async () => {
  const rig = setUp()
  await rig.feed.start()
  const away = async (error: unknown) => {
    rig.failLog(error)
    await rig.feed.step().catch(() => {})
    return rig.feed.isDatabaseAway()
  }
  expect(await away(new SignetError('unavailable', 'database', 'away'))).toBe(true)
  expect(await away(new TypeError('a bug'))).toBe(false)
  expect(await away(undefined)).toBe(false)
})

describe('run', () => {
  test('reads when woken, and every second besides', async () => {
    const rig = setUp()
    await rig.feed.start()
    const stop = new AbortController()
    const running = rig.feed.run(stop.signal)
    await rig.clock.untilArmed()
    expect(rig.reads()).toBe(1)
    rig.clock.advanceMs(1_000)
    await rig.clock.untilArmed()
    expect(rig.reads()).toBe(2)
    rig.committed.push(ENTRY)
    rig.wake()
    await until(() => rig.seen.includes('two e1 @1'))
    stop.abort()
    await running
  })

  test('a database that is away is one line, asked less and less, and found again', async () => {
    const rig = setUp()
    await rig.feed.start()
    rig.failLog(new Error('away'))
    const stop = new AbortController()
    const running = rig.feed.run(stop.signal)
    for (const pauseMs of [1_000, 2_000, 4_000, 5_000, 5_000]) {
      await rig.clock.untilArmed()
      const before = rig.reads()
      rig.clock.advanceMs(pauseMs - 1)
      expect(rig.reads()).toBe(before)
      rig.clock.advanceMs(1)
      await until(() => rig.reads() > before)
    }
    rig.failLog(undefined)
    await rig.clock.untilArmed()
    rig.clock.advanceMs(5_000)
    await until(() => rig.feed.isConnected())
    expect(rig.log.lines.map(({ message }) => message)).toEqual([
      'Unable to read changes',
      'Changes are read again',
    ])
    stop.abort()
    await running
  })

  test('a wake-up during a read is not lost', async () => {
    const rig = setUp()
    await rig.feed.start()
    const stop = new AbortController()
    rig.committed.push(ENTRY)
    const running = rig.feed.run(stop.signal)
    // The first read has begun and not ended.
    rig.wake()
    await rig.clock.untilArmed()
    expect(rig.reads()).toBe(2)
    stop.abort()
    await running
  })
})

async function until(condition: () => boolean): Promise<void> {
  for (let turns = 0; !condition(); turns++) {
    if (turns > 1_000) throw new Error('did not come')
    await new Promise((resolve) => setImmediate(resolve))
  }
}
