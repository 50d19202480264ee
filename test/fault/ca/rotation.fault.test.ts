/**
 * Rotation under crashes and races (reliability.md F09, F10): the rows alone must carry a rotation
 * over any interruption, with one winner, no gap, and no key left over.
 */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { SignetError } from '../../../src/base/error.ts'
import type { Authority, AuthorityStore } from '../../../src/ca/authority/authority.ts'
import { FakeClock } from '../../fakes/fake-clock.ts'
import { createMemoryAuthorityStore } from '../../fakes/memory-authority-store.ts'
import { createTestServer, type TestServer } from '../../rigs/test-authorities.ts'

const NOW = 1_800_000_000
const DAY = 24 * 3600

class Crash extends Error {}

type Mutation = 'insertPrepared' | 'activate' | 'pruneAuthorities' | 'dropHolder'

/** The store, with something done before and after each write. */
function around(store: AuthorityStore, hook: (when: 'before' | 'after') => Promise<void>) {
  const wrapped = { ...store }
  const wrap = <K extends Mutation>(name: K) => {
    const original = store[name] as (argument: unknown) => Promise<unknown>
    wrapped[name] = (async (argument: unknown) => {
      await hook('before')
      const result = await original(argument)
      await hook('after')
      return result
    }) as AuthorityStore[K]
  }
  for (const name of ['insertPrepared', 'activate', 'pruneAuthorities', 'dropHolder'] as const) {
    wrap(name)
  }
  return wrapped
}

function checkRows(rows: readonly Authority[], now: number): void {
  for (const state of ['active', 'prepared']) {
    const slots = rows
      .filter((row) => row.state === state)
      .map((row) => `${row.kind}/${row.clusterId}/${row.holder}`)
    expect(new Set(slots).size, `one ${state} per slot`).toBe(slots.length)
  }
  for (const slot of ['x509_root/0', 'x509_intermediate/1', 'x509_intermediate/2', 'jwt/2']) {
    const active = rows.find(
      (row) => row.state === 'active' && `${row.kind}/${row.clusterId}` === slot,
    )
    expect(active?.notAfter, `${slot} is usable`).toBeGreaterThan(now)
  }
}

/** Ages, in lives of an authority, at which a tick has something to do. */
const AGES = { 'first start': 0, preparing: 0.5, activating: 5 / 6, pruning: 2.1 }

async function aged(age: number) {
  const store = createMemoryAuthorityStore()
  const clock = new FakeClock(NOW)
  const server = createTestServer({ store, clock, name: 'before' })
  for (const stop of [0, 0.5, 5 / 6, 1.1, 2.1].filter((other) => other < age)) {
    clock.advanceSeconds(NOW + stop * DAY - clock.nowSeconds())
    await server.rotator.step()
  }
  clock.advanceSeconds(NOW + age * DAY - clock.nowSeconds())
  return { store, clock }
}

async function stepsOf(age: number): Promise<number> {
  const { store, clock } = await aged(age)
  return (await createTestServer({ store, clock }).rotator.step()).length
}

describe('a crash', () => {
  test.each(Object.entries(AGES))('anywhere while %s costs nothing', async (_name, age) => {
    const steps = await stepsOf(age)
    expect(steps).toBeGreaterThan(0)
    for (let point = 0; point < steps * 2; point++) {
      const { store, clock } = await aged(age)
      const reference = await aged(age)
      await createTestServer(reference).rotator.step()
      let calls = 0
      const crashing = around(store, async () => {
        if (calls++ === point) throw new Crash()
      })
      const server = createTestServer({ store: crashing, clock, name: `crashed ${point}` })
      await expect(server.rotator.step()).rejects.toThrow(Crash)
      const after = createTestServer({ store, clock, name: `restarted ${point}` })
      await after.authorities.reload()
      await after.rotator.step()
      expect(await after.rotator.step()).toEqual([])
      const rows = await store.listAuthorities()
      checkRows(rows, clock.nowSeconds())
      // Nothing is left over: as many rows and bundle elements as without the crash.
      expect(rows).toHaveLength((await reference.store.listAuthorities()).length)
      expect(store.bundle.size).toBe(reference.store.bundle.size)
    }
  })

  test('in a loop makes no heap of keys', async () => {
    const store = createMemoryAuthorityStore()
    const clock = new FakeClock(NOW)
    for (let start = 0; start < 50; start++) {
      const crashing = around(store, async (when) => {
        if (when === 'after') throw new Crash()
      })
      const server = createTestServer({ store: crashing, clock, name: `start ${start}` })
      await server.rotator.step().catch(() => {})
      clock.advanceSeconds(5)
    }
    checkRows(await store.listAuthorities(), clock.nowSeconds())
    expect(store.bundle.size).toBe(2)
  })
})

test('an insert that committed but was not acknowledged is used, with keys in memory too', async () => {
  for (const holder of ['', 'server-1']) {
    const store = createMemoryAuthorityStore()
    const clock = new FakeClock(NOW)
    let lost = 0
    const lossy = around(store, async (when) => {
      if (when === 'before' || lost++ % 2 === 1) return
      throw new SignetError('unavailable', 'database_lost', 'database is unavailable')
    })
    const server = createTestServer({ store: lossy, clock, holder })
    for (let tick = 0; tick < 8; tick++) {
      await server.rotator.step().catch((error) => expect(error.kind).toBe('unavailable'))
      clock.advanceSeconds(10)
    }
    checkRows(await store.listAuthorities(), clock.nowSeconds())
    expect(await store.listAuthorities()).toHaveLength(4)
    const { keyHandle } = server.authorities.jwtIssuer(2)
    expect(server.engine.keys.has(keyHandle)).toBe(true)
  }
})

describe('racing servers', () => {
  // Method: 2 to 4 servers tick at once; before and after each write a server yields a seeded number
  // of turns, so every run interleaves differently. Reads yield too.
  test('make one winner per step and agree', async () => {
    const turns = fc.array(fc.nat({ max: 4 }), { minLength: 40, maxLength: 40 })
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 2, max: 4 }), turns, async (count, schedule) => {
        const store = createMemoryAuthorityStore()
        const clock = new FakeClock(NOW)
        let drawn = 0
        const pause = async () => {
          for (let i = schedule[drawn++ % schedule.length]!; i > 0; i--) {
            await new Promise((resolve) => setImmediate(resolve))
          }
        }
        const slow = around(store, pause)
        const listAuthorities = slow.listAuthorities
        slow.listAuthorities = async () => {
          await pause()
          return listAuthorities()
        }
        const servers: TestServer[] = Array.from({ length: count }, (_, i) =>
          createTestServer({ store: slow, clock, name: `server ${i}` }),
        )
        for (const [age, rows] of [
          [0, 4],
          [0.5, 7],
          [5 / 6, 7],
        ] as const) {
          clock.advanceSeconds(Math.max(0, Math.round(NOW + age * DAY - clock.nowSeconds())))
          await Promise.all(servers.map((server) => server.rotator.step()))
          await Promise.all(servers.map((server) => server.authorities.reload()))
          checkRows(await store.listAuthorities(), clock.nowSeconds())
          expect(await store.listAuthorities()).toHaveLength(rows)
          for (const server of servers) {
            for (const cluster of [1, 2]) {
              expect(server.authorities.x509Issuer(cluster).authority).toEqual(
                servers[0]!.authorities.x509Issuer(cluster).authority,
              )
            }
          }
        }
        await closeLeftovers(servers, clock)
        for (const { engine } of servers) expect(engine.keys.size).toBe(3)
      }),
      { numRuns: 25 },
    )
  })

  test('a server that slept over its turn is refused and reloads', async () => {
    const store = createMemoryAuthorityStore()
    const clock = new FakeClock(NOW)
    let wake = () => {}
    const sleeping = new Promise<void>((resolve) => {
      wake = resolve
    })
    let slept = false
    const sleepy = around(store, async (when) => {
      if (when === 'after' || slept) return
      slept = true
      await sleeping
    })
    const paused = createTestServer({ store: sleepy, clock, name: 'paused' })
    const other = createTestServer({ store, clock, name: 'other' })
    const pending = paused.rotator.step()
    while (!slept) await new Promise((resolve) => setImmediate(resolve))
    await other.rotator.step()
    const rows = await store.listAuthorities()
    wake()
    expect(await pending).toEqual([])
    expect(await store.listAuthorities()).toEqual(rows)
    expect(paused.authorities.jwtIssuer(2).authority).toEqual(
      other.authorities.jwtIssuer(2).authority,
    )
  })
})

async function closeLeftovers(servers: readonly TestServer[], clock: FakeClock): Promise<void> {
  for (let i = 0; i < 2; i++) {
    await Promise.all(servers.map((server) => server.authorities.reload()))
    clock.advanceSeconds(31)
  }
  await Promise.all(servers.map((server) => server.authorities.reload()))
}
