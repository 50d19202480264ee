/**
 * The rotation planner over simulated time: any ticks, any downtime, crashes between steps, short
 * and long lives. The rows live in the in-memory store; keys and certificates are blanks, since the
 * planner never looks at them.
 */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { type Authority, CLUSTER_CONTROL } from '../../../src/ca/authority/authority.ts'
import {
  planRotation,
  type RotationConfig,
  type RotationStep,
} from '../../../src/ca/authority/plan.ts'
import {
  createMemoryAuthorityStore,
  type MemoryAuthorityStore,
} from '../../fakes/memory-authority-store.ts'

const START = 1_800_000_000
const DAY = 86_400
const STEPS_MAX = 64

interface World {
  readonly store: MemoryAuthorityStore
  readonly config: RotationConfig
  now: number
  made: number
}

async function apply(world: World, step: RotationStep): Promise<void> {
  if (step.step === 'activate') return world.store.activate(step.authority.id)
  if (step.step === 'drop_holder') return world.store.dropHolder(step.holder)
  if (step.step === 'prune') return void (await world.store.pruneAuthorities(step.expiredBefore))
  const n = ++world.made
  const { step: _step, reason: _reason, issuer, ...fields } = step
  await world.store.insertPrepared({
    ...fields,
    issuerId: issuer?.id,
    holder: world.config.holder,
    authorityId: `authority${n}`,
    publicKey: new Uint8Array(0),
    certificate: fields.kind === 'jwt' ? undefined : Uint8Array.of(n >> 16, n >> 8, n),
    sealed: undefined,
  })
}

/** One tick of the rotator; a crash stops it after some steps. Returns the steps done. */
async function tick(world: World, crashAfter = STEPS_MAX): Promise<RotationStep[]> {
  const done: RotationStep[] = []
  while (done.length < crashAfter) {
    const rows = await world.store.listAuthorities()
    const [step] = planRotation({ rows, now: world.now, config: world.config })
    if (!step) return done
    await apply(world, step)
    done.push(step)
    await checkAlways(world)
  }
  expect(crashAfter, 'the plan converges').toBeLessThan(STEPS_MAX)
  return done
}

/** Holds between any two steps. */
async function checkAlways(world: World): Promise<void> {
  const rows = await world.store.listAuthorities()
  const active = rows.filter((row) => row.state === 'active')
  const slots = active.map((row) => `${row.kind}/${row.clusterId}/${row.holder}`)
  expect(new Set(slots).size, 'one active per slot').toBe(slots.length)
  for (const row of rows.filter((r) => r.kind === 'x509_intermediate' && r.notAfter > world.now)) {
    const issuer = rows.find((other) => other.id === row.issuerId)
    expect(issuer, 'the root of a live intermediate is there').toBeDefined()
    expect(row.notAfter, 'no intermediate outlives its root').toBeLessThanOrEqual(issuer!.notAfter)
    if (row.state === 'active') {
      expect(['active', 'old'], 'its root was activated').toContain(issuer!.state)
      expect(world.store.bundle, 'its root is published').toContain(
        `x509:${Buffer.from(issuer!.certificate!).toString('hex')}`,
      )
    }
    expect(row.notBefore).toBeGreaterThanOrEqual(issuer!.notBefore)
  }
  for (const row of active.filter((r) => r.kind === 'jwt')) {
    expect(world.store.bundle).toContain(`jwt:${row.authorityId}`)
  }
}

function needed(config: RotationConfig): [Authority['kind'], number][] {
  return [
    ['x509_root', 0],
    ...config.clusterIds.map((id): [Authority['kind'], number] => ['x509_intermediate', id]),
    ...config.clusterIds
      .filter((id) => id !== CLUSTER_CONTROL.id)
      .map((id): [Authority['kind'], number] => ['jwt', id]),
  ]
}

/** Holds after every whole tick. Returns the least remaining life of what signs SVIDs. */
async function checkSettled(world: World): Promise<number> {
  const rows = await world.store.listAuthorities()
  let least = Number.POSITIVE_INFINITY
  for (const [kind, clusterId] of needed(world.config)) {
    const active = rows.find(
      (row) => row.kind === kind && row.clusterId === clusterId && row.state === 'active',
    )
    expect(active, `${kind} of cluster ${clusterId} is active`).toBeDefined()
    expect(active!.notAfter, `${kind} is usable`).toBeGreaterThan(world.now)
    if (kind !== 'x509_root') least = Math.min(least, active!.notAfter - world.now)
  }
  const jwtKeys = rows.filter((row) => row.kind === 'jwt').length
  const roots = rows.filter((row) => row.kind === 'x509_root').length
  expect(jwtKeys, 'JWT keys are bounded').toBeLessThanOrEqual(6)
  expect(roots, 'roots are bounded').toBeLessThanOrEqual(6)
  expect(world.store.bundle.size).toBe(jwtKeys + roots)
  return least
}

const caTtl = fc.constantFrom(60, 600, 3600, DAY, 7 * DAY, 90 * DAY)
const configuration = fc.record({
  caTtlSeconds: caTtl,
  rootFactor: fc.constantFrom(1, 1.5, 3, 40),
  holder: fc.constantFrom('', 'server-1'),
})

function world(c: { caTtlSeconds: number; rootFactor: number; holder: string }): World {
  return {
    store: createMemoryAuthorityStore(),
    config: {
      caTtlSeconds: c.caTtlSeconds,
      rootTtlSeconds: Math.round(c.caTtlSeconds * c.rootFactor),
      keyType: 'ec-p256',
      jwtKeyType: 'ec-p256',
      clusterIds: [1, 2],
      holder: c.holder,
    },
    now: START,
    made: 0,
  }
}

describe('rotation', () => {
  // Method: steady ticks of at most a sixtieth of the life, over several lives of the root.
  test('in steady operation no SVID of a sixth of the life is ever cut short', async () => {
    const step = fc.double({ min: 0.2, max: 1, noNaN: true })
    await fc.assert(
      fc.asyncProperty(configuration, step, async (c, fraction) => {
        const w = world(c)
        const tickSeconds = Math.max(1, Math.floor((c.caTtlSeconds / 60) * fraction))
        const preparedAt = new Map<number, number>()
        const promised = Math.min(c.caTtlSeconds / 6, 7 * DAY)
        for (let i = 0; i < 600; i++) {
          for (const done of await tick(w)) {
            if (done.step !== 'activate' || done.reason !== 'due') continue
            const since = w.now - preparedAt.get(done.authority.id)!
            expect(since, 'published long before use').toBeGreaterThanOrEqual(
              Math.min(c.caTtlSeconds / 4, 20 * DAY),
            )
          }
          for (const row of await w.store.listAuthorities()) {
            if (!preparedAt.has(row.id)) preparedAt.set(row.id, w.now)
          }
          const least = await checkSettled(w)
          // One tick may pass between the threshold and the look at it; the slack of `covers`.
          const slack = tickSeconds + c.caTtlSeconds / 60
          expect(least).toBeGreaterThanOrEqual(promised - slack)
          w.now += tickSeconds
        }
      }),
      { numRuns: 30 },
    )
  })

  // Method: arbitrary pauses (none to ten lives), each tick may crash after any step; then a whole tick.
  test('after any downtime and any crash one whole tick puts everything right', async () => {
    const events = fc.array(
      fc.record({
        pause: fc.double({ min: 0, max: 10, noNaN: true }),
        near: fc.boolean(),
        crashAfter: fc.nat({ max: 9 }),
      }),
      { maxLength: 40 },
    )
    await fc.assert(
      fc.asyncProperty(configuration, events, async (c, list) => {
        const w = world(c)
        for (const event of list) {
          w.now += Math.floor(c.caTtlSeconds * (event.near ? event.pause / 20 : event.pause))
          await tick(w, event.crashAfter)
          const again = await tick(w)
          expect(again.length).toBeLessThan(20)
          await checkSettled(w)
          expect(await tick(w), 'a second tick finds nothing to do').toEqual([])
        }
      }),
      { numRuns: 60 },
    )
  })

  test('ten years of a root with intermediates of 30 days', async () => {
    const w = world({ caTtlSeconds: 30 * DAY, rootFactor: 121.67, holder: '' })
    const roots: number[] = []
    for (let day = 0; day < 3700; day++) {
      for (const step of await tick(w)) {
        if (step.step === 'activate' && step.authority.kind === 'x509_root') roots.push(day)
      }
      const least = await checkSettled(w)
      expect(least).toBeGreaterThanOrEqual(4 * DAY)
      w.now += DAY
    }
    expect(roots[0]).toBe(0)
    expect(roots).toHaveLength(2)
    expect(roots[1]).toBeGreaterThan(3600)
    expect(roots[1]).toBeLessThan(3650)
  })
})
