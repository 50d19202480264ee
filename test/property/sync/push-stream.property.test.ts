import fc from 'fast-check'
import { expect, test } from 'vitest'
import { makeEntry } from '../../fakes/make-entry.ts'
import { makeBundle, OWN, RigAgent, SyncRig, settle } from '../../rigs/sync-rig.ts'

const PATHS = ['/spire/agent/test/a', '/spire/agent/test/b']
const FOREIGN = ['f1.test', 'f2.test']
const NODE_SELECTORS = [{ type: 'k8s', value: 'c:1' }]

const agentIndex = fc.nat({ max: PATHS.length - 1 })
const step = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant('put' as const),
      id: fc.constantFrom('e1', 'e2', 'e3', 'e4', 'e5'),
      parent: fc.constantFrom(...PATHS, '/group', '/spire/server'),
      spiffe: fc.constantFrom('/group', '/w1', '/w2'),
      federatesWith: fc.subarray(FOREIGN),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant('delete' as const),
      id: fc.constantFrom('e1', 'e2', 'e3', 'e4', 'e5'),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant('bundle' as const),
      name: fc.constantFrom(OWN, ...FOREIGN),
      isGone: fc.boolean(),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('selectors' as const),
      agent: agentIndex,
      isMember: fc.boolean(),
    }),
  },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('connect' as const), agent: agentIndex }) },
  {
    weight: 2,
    arbitrary: fc.record({ do: fc.constant('disconnect' as const), agent: agentIndex }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('stop' as const), agent: agentIndex }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('resume' as const), agent: agentIndex }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('reload' as const) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('settle' as const) }) },
)
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never

class World {
  readonly rig: SyncRig
  readonly agents: RigAgent[]
  #revision = 0n

  constructor(rig: SyncRig) {
    this.rig = rig
    this.agents = PATHS.map((path) => new RigAgent(rig, path))
  }

  async take(step: Step): Promise<void> {
    const { rig } = this
    const revision = this.#revision++
    switch (step.do) {
      case 'put': {
        const { do: _, ...fields } = step
        const selectors = ['k8s:c:1']
        return rig.putEntries(makeEntry({ ...fields, selectors, revisionNumber: revision }))
      }
      case 'delete':
        return rig.deleteEntry(step.id)
      case 'bundle':
        if (step.isGone) return rig.deleteBundle(step.name)
        return rig.putBundle(makeBundle(step.name, revision + 1n))
      case 'selectors':
        return rig.putAgent(PATHS[step.agent]!, {
          selectors: step.isMember ? NODE_SELECTORS : [],
        })
      case 'connect':
        void this.agents[step.agent]!.connect()
        return
      case 'disconnect':
        return this.agents[step.agent]!.disconnect()
      case 'stop':
        return this.agents[step.agent]!.stopReading()
      case 'resume':
        return this.agents[step.agent]!.resumeReading()
      case 'reload':
        return rig.load()
      case 'settle':
        return settle()
    }
  }

  /** What the agent holds is what it may serve, and the bundles that this needs. */
  check(agent: RigAgent): void {
    const expected = this.rig.entries.authorizedEntries(agent.id)
    const view = (id: string, revision: bigint) => `${id}@${revision}`
    expect([...agent.entries.values()].map((e) => view(e.id, e.revisionNumber)).sort()).toEqual(
      expected.map((e) => view(e.id, e.revisionNumber)),
    )
    const names = new Set([OWN, ...expected.flatMap((entry) => entry.federatesWith)])
    const bundles = [...names].flatMap((name) => this.rig.rows.bundles.get(name) ?? [])
    const held = [...agent.bundles.values()]
    expect(held.map((b) => view(b.trustDomain, b.sequenceNumber)).sort()).toEqual(
      bundles.map((b) => view(b.trustDomain, b.sequenceNumber)).sort(),
    )
  }
}

// Method: any history of changes, reloads, broken connections and slow reading on two agents; in the
// end both connect, read and must hold exactly what the server would tell them from nothing.
test('whatever happened, an agent that reads ends with the state of the server', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 25 }), async (steps) => {
      const rig = await SyncRig.start()
      for (const path of PATHS) await rig.putAgent(path, {})
      const world = new World(rig)
      for (const one of steps) await world.take(one)
      for (const agent of world.agents) {
        agent.resumeReading()
        if (agent.ended !== undefined || agent.messages.length === 0) void agent.connect()
      }
      await settle()
      for (const agent of world.agents) world.check(agent)
      rig.service[Symbol.dispose]()
      await settle()
    }),
    { numRuns: 300 },
  )
}, 120_000)
