import fc from 'fast-check'
import { expect, test } from 'vitest'
import { EntryIndex, type Touched } from '../../../src/server/entry-cache/entry-index.ts'
import { sameEntry } from '../../../src/server/entry-cache/same-entry.ts'
import type { AttestedAgent } from '../../../src/spiffe/attested-agent.ts'
import type { RegistrationEntry } from '../../../src/spiffe/registration-entry.ts'
import type { Selector } from '../../../src/spiffe/selector.ts'
import { SpiffeId } from '../../../src/spiffe/spiffe-id.ts'
import { TrustDomain } from '../../../src/spiffe/trust-domain.ts'
import { FakeClock } from '../../fakes/fake-clock.ts'
import { naiveAuthorized } from './naive-model.ts'

const NOW = 1_800_000_000
const ours = TrustDomain.parse('example.org')
const AGENTS = ['/spire/agent/a', '/spire/agent/b', '/spire/agent/c']
/** Few IDs, so that chains, shared IDs and cycles are common. */
const WORKLOADS = ['/w0', '/w1', '/w2', '/w3', '/w4']
const ENTRY_IDS = Array.from({ length: 12 }, (_, n) => `entry-${n}`)
const SELECTORS: Selector[] = Array.from({ length: 4 }, (_, n) => ({ type: 't', value: `v${n}` }))

interface EntryOp {
  readonly op: 'entry'
  readonly id: string
  /** undefined deletes. */
  readonly entry: Partial<RegistrationEntry> | undefined
}
interface AgentOp {
  readonly op: 'agent'
  readonly path: string
  readonly agent: { readonly selectors: Selector[]; readonly life: number } | undefined
}
interface TimeOp {
  readonly op: 'time'
  readonly seconds: number
}
type Op = EntryOp | AgentOp | TimeOp

const selectors = fc.uniqueArray(fc.constantFrom(...SELECTORS), { minLength: 1, maxLength: 3 })
const trustDomainName = fc.oneof(
  { weight: 19, arbitrary: fc.constant('example.org') },
  { weight: 1, arbitrary: fc.constant('other.test') },
)
const idAmong = (paths: string[]) =>
  fc
    .tuple(trustDomainName, fc.constantFrom(...paths))
    .map(([name, path]) => SpiffeId.of(TrustDomain.parse(name), path))
const entryFields = fc.record({
  parentId: idAmong([...AGENTS, ...AGENTS, ...WORKLOADS, '/spire/server', '/spire/server']),
  spiffeId: idAmong(WORKLOADS),
  selectors,
  hint: fc.constantFrom('', 'h'),
})
const operation: fc.Arbitrary<Op> = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({
      op: fc.constant('entry' as const),
      id: fc.constantFrom(...ENTRY_IDS),
      entry: fc.option(entryFields, { freq: 5, nil: undefined }),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      op: fc.constant('agent' as const),
      path: fc.constantFrom(...AGENTS),
      agent: fc.option(fc.record({ selectors, life: fc.integer({ min: -5, max: 50 }) }), {
        freq: 5,
        nil: undefined,
      }),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ op: fc.constant('time' as const), seconds: fc.integer({ max: 30 }) }),
  },
)

class World {
  readonly clock = new FakeClock(NOW)
  readonly index = new EntryIndex(ours, this.clock)
  readonly entries = new Map<string, RegistrationEntry>()
  readonly agents = new Map<string, AttestedAgent>()
  #revision = 0n

  authorized(path: string, withExpiry = true): Map<string, RegistrationEntry> {
    const state = { trustDomain: ours.name, entries: this.entries, agents: this.agents }
    const now = withExpiry ? this.clock.nowSeconds() : undefined
    return naiveAuthorized(state, SpiffeId.of(ours, path), now)
  }

  apply(op: EntryOp | AgentOp): Touched[] {
    if (op.op === 'entry') {
      const entry = op.entry && makeEntry(op.id, op.entry, this.#revision++)
      if (entry) this.entries.set(op.id, entry)
      else this.entries.delete(op.id)
      return this.index.applyEntry(op.id, entry)
    }
    const id = SpiffeId.of(ours, op.path)
    const agent = op.agent && makeAgent(id, op.agent.selectors, NOW + op.agent.life)
    if (agent) this.agents.set(id.toString(), agent)
    else this.agents.delete(id.toString())
    return this.index.applyAgent(id.toString(), agent)
  }
}

function makeEntry(
  id: string,
  fields: Partial<RegistrationEntry>,
  revisionNumber: bigint,
): RegistrationEntry {
  const id0 = SpiffeId.of(ours, '/w0')
  return {
    ...{ id, spiffeId: id0, parentId: id0, selectors: [], federatesWith: [], dnsNames: [] },
    ...{ x509SvidTtlSeconds: 0, jwtSvidTtlSeconds: 0, admin: false, downstream: false },
    ...{ expiresAt: 0, storeSvid: false, hint: '', createdAt: NOW, revisionNumber },
    ...{ disableX509SvidPrefetch: false, jwtSvidIncludeJti: false },
    ...fields,
  }
}

function makeAgent(id: SpiffeId, selectors: Selector[], expiresAt: number): AttestedAgent {
  return {
    ...{ id, selectors, expiresAt, attestationType: 'test', serialNumber: '1', clusterId: 1 },
    ...{ newSerialNumber: '', newExpiresAt: 0, canReattest: true, agentVersion: '' },
  }
}

function checkAnswers(world: World): void {
  for (const path of AGENTS) {
    const agentId = SpiffeId.of(ours, path)
    const expected = world.authorized(path)
    const actual = world.index.authorizedEntries(agentId)
    expect(actual.map((entry) => entry.id)).toEqual([...expected.keys()].sort())
    for (const entry of actual) expect(sameEntry(entry, expected.get(entry.id)!)).toBe(true)
    for (const id of ENTRY_IDS) {
      expect(world.index.authorizedEntry(agentId, id)?.id).toBe(expected.get(id)?.id)
    }
  }
  for (const path of WORKLOADS) {
    const id = SpiffeId.of(ours, path)
    const expected = [...world.entries.values()].filter((entry) => entry.spiffeId.equals(id))
    const actual = world.index.entriesBySpiffeId(id)
    expect(actual.map((entry) => entry.id).sort()).toEqual(expected.map((e) => e.id).sort())
  }
}

/** Everything that changed for an agent is named, and nothing it never had a right to. */
function checkTouched(path: string, touched: Touched[], before: View, after: View): void {
  const agentId = SpiffeId.of(ours, path).toString()
  const named = new Set(
    touched.filter((t) => t.agentIds.includes(agentId)).flatMap((t) => t.entryIds),
  )
  for (const id of ENTRY_IDS) {
    const changed = before.strict.get(id) !== after.strict.get(id)
    if (changed) expect(named).toContain(id)
    if (named.has(id)) expect(before.loose.has(id) || after.loose.has(id)).toBe(true)
  }
}

interface View {
  readonly strict: Map<string, RegistrationEntry>
  readonly loose: Map<string, RegistrationEntry>
}

// Method: any history of entries, aliases, cycles, foreign trust domains, agents and passing time;
// after each step every answer equals the naive model's, and the touched agents are right.
test('the entry index answers as the naive model does, after every step', () => {
  fc.assert(
    fc.property(fc.array(operation, { maxLength: 40 }), (operations) => {
      const world = new World()
      for (const op of operations) {
        if (op.op === 'time') {
          world.clock.jumpSeconds(op.seconds)
          checkAnswers(world)
          continue
        }
        const view = (path: string): View => ({
          strict: world.authorized(path),
          loose: world.authorized(path, false),
        })
        const before = new Map(AGENTS.map((path) => [path, view(path)]))
        const touched = world.apply(op)
        for (const path of AGENTS) checkTouched(path, touched, before.get(path)!, view(path))
        checkAnswers(world)
      }
    }),
    { numRuns: 400 },
  )
}, 120_000)

test('an index emptied again holds nothing', () => {
  fc.assert(
    fc.property(fc.array(operation, { maxLength: 40 }), (operations) => {
      const world = new World()
      for (const op of operations) if (op.op !== 'time') world.apply(op)
      for (const id of ENTRY_IDS) world.apply({ op: 'entry', id, entry: undefined })
      for (const path of AGENTS) world.apply({ op: 'agent', path, agent: undefined })
      expect(world.index.counts()).toEqual({
        ...{ entries: 0, aliases: 0, agents: 0, distinctIds: 0, distinctSelectors: 0 },
      })
    }),
  )
})

test('an answer stays the same array until the agent is touched', () => {
  fc.assert(
    fc.property(fc.array(operation, { maxLength: 30 }), (operations) => {
      const world = new World()
      const agentId = SpiffeId.of(ours, AGENTS[0]!)
      for (const op of operations) {
        // Expired agents are not served, and their answers not remembered.
        if (op.op === 'time' || (op.op === 'agent' && (op.agent?.life ?? 1) <= 0)) continue
        const before = world.index.authorizedEntries(agentId)
        const touched = world.apply(op)
        const isTouched =
          touched.some((t) => t.agentIds.includes(agentId.toString())) ||
          (op.op === 'agent' && op.path === AGENTS[0])
        if (!isTouched) expect(world.index.authorizedEntries(agentId)).toBe(before)
      }
    }),
  )
})
