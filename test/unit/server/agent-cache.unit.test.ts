import { describe, expect, test } from 'vitest'
import { AGENT_ROW_AGE_MS_MAX } from '../../../src/base/limits.ts'
import { createAgentCache } from '../../../src/server/agent-cache.ts'
import { checkAgent } from '../../../src/server/authz/agent-check.ts'
import type { Connection } from '../../../src/server/connection.ts'
import type { Actor, AgentStore } from '../../../src/server/ports.ts'
import type { AttestedAgent } from '../../../src/spiffe/attested-agent.ts'
import { SpiffeId } from '../../../src/spiffe/spiffe-id.ts'
import { FakeClock } from '../../fakes/fake-clock.ts'
import { silentLog } from '../../rigs/silent-log.ts'

const ID = SpiffeId.parse('spiffe://example.org/spire/agent/a')
const OTHER = SpiffeId.parse('spiffe://example.org/spire/agent/b')
const ACTOR: Actor = { kind: 'local', id: 'uid:0', requestId: '' }

function setUp(maxStalenessMs = 0) {
  const clock = new FakeClock()
  const feed = { asOfMs: 0, away: false }
  const row = (id: SpiffeId) => ({ id, serialNumber: '1' }) as AttestedAgent
  const calls: string[] = []
  let gate: Promise<void> = Promise.resolve()
  const act = (name: string) => async () => {
    await gate
    calls.push(name)
  }
  const store = {
    getAgent: async () => undefined,
    banAgent: act('ban'),
    deleteAgent: act('delete'),
    setNewSerial: act('setNewSerial'),
    promoteNewSerial: act('promote'),
    recordAttestation: act('record'),
    pruneAgents: act('prune'),
  } as unknown as AgentStore
  const cache = createAgentCache({
    clock,
    rows: { agent: row },
    store,
    feed: { currentAsOfMs: () => feed.asOfMs, isDatabaseAway: () => feed.away },
    maxStalenessMs,
  })
  return {
    clock,
    feed,
    calls,
    ...cache,
    cached: async (id = ID) => (await cache.lookup.get(id)) !== undefined,
    hold() {
      let release = () => {}
      gate = new Promise((resolve) => {
        release = resolve
      })
      return release
    },
  }
}

describe('a cached row is used', () => {
  test('while the feed has read within the limit', async () => {
    const rig = setUp()
    rig.clock.advanceMs(1_500)
    expect(await rig.cached()).toBe(true)
    rig.clock.advanceMs(1)
    expect(await rig.cached()).toBe(false)
    rig.feed.asOfMs = 1_501
    expect(await rig.cached()).toBe(true)
  })

  test('for as long as the configuration tolerates', async () => {
    const rig = setUp(60_000)
    rig.clock.advanceMs(60_000)
    expect(await rig.cached()).toBe(true)
    rig.clock.advanceMs(1)
    expect(await rig.cached()).toBe(false)
  })

  test('however old it is, while the database is away', async () => {
    const rig = setUp()
    rig.clock.advanceMs(3_600_000)
    rig.feed.away = true
    expect(await rig.cached()).toBe(true)
  })
})

describe('max_attested_node_info_staleness decides when a ban made elsewhere bites', () => {
  const banned = { id: ID, serialNumber: '', newSerialNumber: '' } as AttestedAgent
  const connection = {
    spiffeId: ID,
    chain: [{ notAfter: 2_000_000_000, serialNumber: Uint8Array.of(1) }],
  } as unknown as Connection

  test.each([
    ['0: never later than without it', 0, AGENT_ROW_AGE_MS_MAX],
    ['less than the bound: the same', 1, AGENT_ROW_AGE_MS_MAX],
    ['more: as late as it says', 60_000, 60_000],
  ])('%s', async (_name, staleness, allowedMs) => {
    const rig = setUp(staleness)
    const ports = {
      clock: rig.clock,
      agents: rig.lookup,
      store: { getAgent: async () => banned, promoteNewSerial: async () => undefined },
    }
    rig.clock.advanceMs(allowedMs)
    expect(await checkAgent(ports, connection, silentLog)).toMatchObject({ serialNumber: '1' })
    rig.clock.advanceMs(1)
    await expect(checkAgent(ports, connection, silentLog)).rejects.toMatchObject({
      code: 'agent_banned',
    })
  })
})

describe('after a write of ours', () => {
  test.each<[string, (store: AgentStore) => Promise<unknown>]>([
    ['ban', (store) => store.banAgent(ID, ACTOR)],
    ['delete', (store) => store.deleteAgent(ID, ACTOR)],
    ['setNewSerial', (store) => store.setNewSerial(ID, '2', 0)],
    ['promote', (store) => store.promoteNewSerial(ID, '2')],
    ['record', (store) => store.recordAttestation({ id: ID } as never, ACTOR)],
  ])('%s: the row waits for a read that began later', async (name, write) => {
    const rig = setUp()
    rig.clock.advanceMs(10)
    await write(rig.store)
    expect(rig.calls).toEqual([name])
    expect([await rig.cached(), await rig.cached(OTHER)]).toEqual([false, true])
    // A read that began before the write ended proves nothing.
    rig.feed.asOfMs = 10
    expect(await rig.cached()).toBe(false)
    rig.feed.asOfMs = 11
    expect(await rig.cached()).toBe(true)
  })

  test('and also while it is under way', async () => {
    const rig = setUp()
    const release = rig.hold()
    const banning = rig.store.banAgent(ID, ACTOR)
    rig.feed.asOfMs = 1_000
    expect(await rig.cached()).toBe(false)
    release()
    await banning
    expect(await rig.cached()).toBe(true)
  })

  test('and also when it failed: it may have been committed', async () => {
    const rig = setUp()
    rig.clock.advanceMs(10)
    const failing = { ...rig.store, banAgent: () => Promise.reject(new Error('connection lost')) }
    const cache = createAgentCache({
      clock: rig.clock,
      rows: { agent: () => ({ id: ID }) as AttestedAgent },
      store: failing,
      feed: { currentAsOfMs: () => 0, isDatabaseAway: () => false },
      maxStalenessMs: 0,
    })
    await expect(cache.store.banAgent(ID, ACTOR)).rejects.toThrow()
    expect(await cache.lookup.get(ID)).toBeUndefined()
  })

  test('pruning makes every row wait', async () => {
    const rig = setUp()
    await rig.store.pruneAgents(0, { tofu: false, limit: 1 }, ACTOR)
    expect([await rig.cached(), await rig.cached(OTHER)]).toEqual([false, false])
    rig.feed.asOfMs = 1
    expect([await rig.cached(), await rig.cached(OTHER)]).toEqual([true, true])
  })
})
