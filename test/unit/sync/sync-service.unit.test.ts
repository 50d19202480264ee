import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import {
  SYNC_CHECK_MS,
  SYNC_CLOSE_AFTER_MS,
  SYNC_CONFIRM_MS_MAX,
  SYNC_DIRTY_ENTRIES_MAX,
  SYNC_HEARTBEAT_MS,
  SYNC_HELLO_MS_MAX,
} from '../../../src/base/limits.ts'
import { SpiffeId } from '../../../src/spiffe/spiffe-id.ts'
import { makeEntry } from '../../fakes/make-entry.ts'
import { makeBundle, OWN, RigAgent, SyncRig, settle } from '../../rigs/sync-rig.ts'

const A = '/spire/agent/test/a'
const B = '/spire/agent/test/b'

let rig: SyncRig
let agent: RigAgent

beforeEach(async () => {
  rig = await SyncRig.start()
  await rig.putAgent(A, { serialNumber: '1' })
  await rig.putAgent(B, { serialNumber: '1' })
  await rig.putEntries(makeEntry({ id: 'one' }), makeEntry({ id: 'other', parent: B }))
  agent = new RigAgent(rig, A)
})

afterEach(async () => {
  rig.service[Symbol.dispose]()
  await settle()
})

async function connect(connecting = agent): Promise<void> {
  void connecting.connect()
  await settle()
  expect(connecting.ended).toBeUndefined()
}

describe('snapshot and pushes', () => {
  test('a new agent gets its entries and the own bundle, with a mask', async () => {
    await rig.putEntries(makeEntry({ id: 'two', dnsNames: ['a.test'], x509SvidTtlSeconds: 60 }))
    await connect()
    expect(agent.entryIds()).toEqual(['one', 'two'])
    expect([...agent.bundles.keys()]).toEqual([OWN])
    expect(agent.entries.get('two')).toMatchObject({
      spiffeId: { trustDomain: OWN, path: '/workload/two' },
      parentId: undefined,
      selectors: [{ type: 'unix', value: 'uid:1' }],
      ...{ dnsNames: [], x509SvidTtl: 0, revisionNumber: 0n, createdAt: 1_800_000_000n },
    })
    expect(agent.messages.map((message) => message.cursor === '')).toEqual([true, true, false])
  })

  test('an agent without entries and a server without bundle still agree', async () => {
    rig.rows.bundles.clear()
    await rig.change({ kind: 'bundle', id: OWN })
    await rig.deleteEntry('one')
    await connect()
    expect(agent.messages.at(-1)?.snapshotEnd).toEqual({ entryCount: 0, bundleCount: 0 })
    expect(agent.cursor).not.toBe('')
  })

  test.each([
    [500, 1],
    [501, 2],
    [1_000, 2],
  ])('%i entries travel in %i pages', async (count, pages) => {
    const added = Array.from({ length: count - 1 }, (_, n) => makeEntry({ id: `e${n}` }))
    await rig.putEntries(...added)
    await connect()
    expect(agent.entries.size).toBe(count)
    const withEntries = agent.messages.filter((m) => m.snapshotPage?.entries.length)
    expect(withEntries).toHaveLength(pages)
  })

  test('added, changed and removed entries arrive; those of others never do', async () => {
    await connect()
    await rig.putEntries(
      makeEntry({ id: 'one', hint: 'new', revisionNumber: 1n }),
      makeEntry({ id: 'two' }),
      makeEntry({ id: 'foreign', parent: B }),
    )
    await settle()
    expect(agent.entryIds()).toEqual(['one', 'two'])
    expect(agent.entries.get('one')?.hint).toBe('new')
    await rig.deleteEntry('one')
    await rig.deleteEntry('other')
    await settle()
    expect(agent.entryIds()).toEqual(['two'])
    expect(JSON.stringify(agent.messages.map((m) => m.delta?.entryIdsRemoved))).not.toContain(
      'other',
    )
  })

  test('a new node selector brings the entries of an alias', async () => {
    await rig.putEntries(
      makeEntry({ id: 'alias', parent: '/spire/server', spiffe: '/group', selectors: ['k8s:c:1'] }),
      makeEntry({ id: 'grouped', parent: '/group' }),
    )
    await connect()
    await rig.putAgent(A, { serialNumber: '1', selectors: [{ type: 'k8s', value: 'c:1' }] })
    await settle()
    expect(agent.entryIds()).toEqual(['grouped', 'one'])
    await rig.deleteEntry('alias')
    await settle()
    expect(agent.entryIds()).toEqual(['one'])
  })

  test('federated bundles come and go with the entries that use them', async () => {
    await rig.putBundle(makeBundle('fed.test'))
    await rig.putBundle(makeBundle('unused.test'))
    await connect()
    expect([...agent.bundles.keys()]).toEqual([OWN])
    await rig.putEntries(makeEntry({ id: 'two', federatesWith: ['fed.test', 'absent.test'] }))
    await settle()
    expect([...agent.bundles.keys()]).toEqual([OWN, 'fed.test'])
    await rig.putBundle(makeBundle('fed.test', 2n))
    await rig.putBundle(makeBundle(OWN, 2n))
    await settle()
    expect(agent.bundles.get('fed.test')?.sequenceNumber).toBe(2n)
    expect(agent.bundles.get(OWN)?.sequenceNumber).toBe(2n)
    await rig.putBundle(makeBundle('absent.test'))
    await settle()
    expect(agent.bundles.has('absent.test')).toBe(true)
    await rig.deleteBundle('fed.test')
    await settle()
    expect(agent.bundles.has('fed.test')).toBe(false)
    await rig.deleteEntry('two')
    await settle()
    expect([...agent.bundles.keys()]).toEqual([OWN])
  })

  test('changes that do not concern the agent send nothing', async () => {
    await rig.putBundle(makeBundle('fed.test'))
    await connect()
    const before = agent.messages.length
    await rig.putEntries(makeEntry({ id: 'foreign', parent: B }))
    await rig.putBundle(makeBundle('fed.test', 2n))
    await rig.putEntries(rig.rows.entries.get('one')!)
    await settle()
    expect(agent.messages).toHaveLength(before)
  })
})

describe('cursors', () => {
  test('a returning agent gets only what it missed', async () => {
    await connect()
    await agent.disconnect()
    await rig.putEntries(makeEntry({ id: 'two' }), makeEntry({ id: 'foreign', parent: B }))
    await rig.deleteEntry('one')
    await rig.putBundle(makeBundle(OWN, 2n))
    agent.messages.length = 0
    await connect()
    expect(agent.messages.some((message) => message.snapshotBegin)).toBe(false)
    expect(agent.entryIds()).toEqual(['two'])
    expect(agent.bundles.get(OWN)?.sequenceNumber).toBe(2n)
  })

  test('one that missed nothing gets one empty delta with a cursor', async () => {
    await connect()
    await agent.disconnect()
    await rig.putEntries(makeEntry({ id: 'foreign', parent: B }))
    agent.messages.length = 0
    await connect()
    expect(agent.messages).toHaveLength(1)
    expect(agent.messages[0]).toMatchObject({ delta: { entriesUpserted: [], bundlesUpserted: [] } })
    expect(agent.cursor).not.toBe('')
  })

  test('an agent that holds another version of the own bundle gets it', async () => {
    await connect()
    await agent.disconnect()
    agent.messages.length = 0
    void agent.connect({ ...agent.hello(), bundleSequence: 0n })
    await settle()
    expect(agent.messages).toMatchObject([{ delta: { bundlesUpserted: [{ trustDomain: OWN }] } }])
  })

  test('a federated bundle that changed meanwhile is in the delta, others are not', async () => {
    await rig.putBundle(makeBundle('fed.test'))
    await rig.putBundle(makeBundle('quiet.test'))
    await rig.putEntries(makeEntry({ id: 'two', federatesWith: ['fed.test', 'quiet.test'] }))
    await connect()
    await agent.disconnect()
    await rig.putBundle(makeBundle('fed.test', 2n))
    agent.messages.length = 0
    await connect()
    expect(agent.messages).toMatchObject([
      { delta: { bundlesUpserted: [{ trustDomain: 'fed.test', sequenceNumber: 2n }] } },
    ])
  })

  test('missing a change of federation costs a snapshot', async () => {
    await rig.putBundle(makeBundle('fed.test'))
    await connect()
    await agent.disconnect()
    await rig.putEntries(makeEntry({ id: 'two', federatesWith: ['fed.test'] }))
    agent.messages.length = 0
    await connect()
    expect(agent.messages[0]?.snapshotBegin).toBeDefined()
    expect([...agent.bundles.keys()]).toEqual([OWN, 'fed.test'])
  })

  test.each([
    ['garbage', () => 'garbage'],
    ['not base64url', () => '*'.repeat(54)],
    ['one bit off', (own: string) => (own[0] === 'A' ? 'B' : 'A') + own.slice(1)],
    ['twice', (own: string) => own + own],
  ])('a cursor that is %s costs a snapshot', async (_name, forge) => {
    await connect()
    await agent.disconnect()
    agent.cursor = forge(agent.cursor)
    agent.messages.length = 0
    await connect()
    expect(agent.messages[0]?.snapshotBegin).toBeDefined()
    expect(agent.entryIds()).toEqual(['one'])
  })

  test("another agent's cursor grants nothing", async () => {
    const other = new RigAgent(rig, B)
    await connect(other)
    agent.cursor = other.cursor
    await connect()
    expect(agent.messages[0]?.snapshotBegin).toBeDefined()
    expect(agent.entryIds()).toEqual(['one'])
  })

  test('a cursor from before everything was read anew (a restore) costs a snapshot', async () => {
    await connect()
    await agent.disconnect()
    await rig.load()
    agent.messages.length = 0
    await connect()
    expect(agent.messages[0]?.snapshotBegin).toBeDefined()
  })

  test('a running stream gets a snapshot when everything was read anew', async () => {
    await connect()
    rig.rows.entries.clear()
    await rig.load()
    await settle()
    expect(agent.ended).toBeUndefined()
    expect(agent.entryIds()).toEqual([])
  })
})

describe('slow readers', () => {
  test('what happens meanwhile arrives as the latest state, once', async () => {
    await connect()
    agent.stopReading()
    await rig.putEntries(makeEntry({ id: 'first' }))
    await settle()
    for (let n = 1; n <= 50; n++) {
      await rig.putEntries(makeEntry({ id: 'one', hint: `h${n}`, revisionNumber: BigInt(n) }))
      await rig.putEntries(makeEntry({ id: `gone-${n}` }))
      await rig.deleteEntry(`gone-${n}`)
    }
    const before = agent.messages.length
    agent.resumeReading()
    await settle()
    const upserts = agent.messages.slice(before).flatMap((m) => m.delta?.entriesUpserted ?? [])
    expect(upserts.map((entry) => entry.id)).toEqual(['first', 'one'])
    expect(agent.entries.get('one')?.hint).toBe('h50')
  })

  test.each([
    [SYNC_DIRTY_ENTRIES_MAX, false],
    [SYNC_DIRTY_ENTRIES_MAX + 1, true],
  ])('with %i changes waiting, the answer is a snapshot: %s', async (count, isSnapshot) => {
    await connect()
    agent.stopReading()
    await rig.putEntries(makeEntry({ id: 'first' }))
    await settle()
    const added = Array.from({ length: count }, (_, n) => makeEntry({ id: `e${n}` }))
    await rig.putEntries(...added)
    agent.messages.length = 0
    agent.resumeReading()
    await expect.poll(() => agent.entries.size).toBe(count + 2)
    expect(agent.messages.some((message) => message.snapshotBegin)).toBe(isSnapshot)
  })

  test('a change during a snapshot follows it', async () => {
    const added = Array.from({ length: 1_200 }, (_, n) => makeEntry({ id: `e${n}` }))
    await rig.putEntries(...added)
    agent.stopReading()
    await connect()
    await rig.deleteEntry('e7')
    await rig.putEntries(makeEntry({ id: 'late' }))
    agent.resumeReading()
    await settle()
    const end = agent.messages.find((message) => message.snapshotEnd)
    expect(end?.snapshotEnd?.entryCount).toBe(1_201)
    expect(agent.entries.has('e7')).toBe(false)
    expect(agent.entries.has('late')).toBe(true)
  })
})

describe('heartbeat and acknowledgements', () => {
  test('silence is broken by heartbeats that move the cursor', async () => {
    await connect()
    const { cursor } = agent
    await rig.putEntries(makeEntry({ id: 'foreign', parent: B }))
    rig.clock.advanceMs(SYNC_HEARTBEAT_MS - SYNC_CHECK_MS)
    await settle()
    expect(agent.messages.at(-1)?.heartbeat).toBeUndefined()
    rig.clock.advanceMs(SYNC_CHECK_MS)
    await settle()
    expect(agent.messages.at(-1)?.heartbeat).toEqual({})
    expect(agent.cursor).not.toBe(cursor)
  })

  test('what the agent has in use is known, also when it is away', async () => {
    await connect()
    expect(rig.service.agent(agent.id)).toMatchObject({
      ...{ isConnected: true, agentVersion: '1.0', sequence: undefined, bundleSequence: 0n },
    })
    agent.acknowledge()
    await settle()
    expect(rig.service.agent(agent.id)).toMatchObject({ bundleSequence: 1n })
    await rig.putBundle(makeBundle(OWN, 7n))
    await settle()
    agent.acknowledge()
    await settle()
    const known = rig.service.agent(agent.id)!
    expect(known.bundleSequence).toBe(7n)
    expect(known.sequence).toBeGreaterThan(0)
    await agent.disconnect()
    expect(rig.service.agents()).toMatchObject([{ isConnected: false, bundleSequence: 7n }])
    await rig.putAgent(A, undefined)
    expect(rig.service.agents()).toEqual([])
  })

  test("an acknowledgement of somebody else's cursor counts for nothing", async () => {
    const other = new RigAgent(rig, B)
    await connect(other)
    await connect()
    agent.post({ ack: { cursor: other.cursor, bundleSequence: 99n } })
    await settle()
    expect(rig.service.agent(agent.id)?.bundleSequence).toBe(0n)
  })
})

describe('ends', () => {
  test.each([
    ['banned', { serialNumber: '' }, 'agent_banned'],
    ['evicted', undefined, 'agent_not_attested'],
    ['attested anew', { serialNumber: '2' }, 'agent_not_active'],
  ] as const)('an agent that is %s loses its stream at once', async (_name, row, denial) => {
    await connect()
    await rig.putAgent(A, row)
    await rig.putEntries(makeEntry({ id: 'secret' }))
    await settle()
    expect(agent.ended).toMatchObject({ kind: 'permission_denied', denial })
    expect(agent.ended?.message).toBe(
      'authorization denied for method /signet.sync.v1.Sync/Subscribe',
    )
    expect(agent.entries.has('secret')).toBe(false)
    expect(agent.connectionsClosed).toBe(0)
    rig.clock.advanceMs(SYNC_CLOSE_AFTER_MS)
    await settle()
    expect(agent.connectionsClosed).toBe(1)
  })

  test('a renewed certificate keeps both streams until its first use', async () => {
    await connect()
    await rig.putAgent(A, { serialNumber: '1', newSerialNumber: '2' })
    await settle()
    expect(agent.ended).toBeUndefined()
    await rig.putAgent(A, { serialNumber: '2' })
    await settle()
    expect(agent.ended).toMatchObject({ denial: 'agent_not_active' })
    const renewed = new RigAgent(rig, A)
    renewed.serial = 2
    await connect(renewed)
  })

  test('an expired certificate ends the stream within a second', async () => {
    agent.notAfter = rig.clock.nowSeconds() + 60
    await connect()
    rig.clock.advanceSeconds(60)
    await settle()
    expect(agent.ended).toBeUndefined()
    rig.clock.advanceSeconds(1)
    await settle()
    expect(agent.ended).toMatchObject({ kind: 'permission_denied', denial: 'agent_expired' })
  })

  test('a client that never reads is ended all the same', async () => {
    await connect()
    agent.stopReading()
    await rig.putEntries(makeEntry({ id: 'two' }))
    await settle()
    await rig.putAgent(A, { serialNumber: '' })
    await settle()
    expect(agent.ended).toMatchObject({ denial: 'agent_banned' })
    rig.clock.advanceMs(SYNC_CLOSE_AFTER_MS)
    await settle()
    expect(agent.connectionsClosed).toBe(1)
  })

  test('a ban announced between the door and the stream is not missed', async () => {
    rig.rows.agents.delete(agent.id.toString())
    await rig.change({ kind: 'agent', id: agent.id.toString() })
    void agent.connect()
    await settle()
    expect(agent.ended).toMatchObject({ denial: 'agent_not_attested' })
    expect(agent.messages).toEqual([])
  })

  test('a cache that lags behind an attestation elsewhere denies nobody', async () => {
    const { serialNumber: _, ...current } = rig.rows.agents.get(agent.id.toString())!
    rig.rows.agents.set(agent.id.toString(), { ...current, serialNumber: '5' })
    agent.serial = 5
    await connect()
    expect(agent.entryIds()).toEqual(['one'])
  })

  test.each([
    ['fails', () => Promise.reject(new Error('away'))],
    ['hangs', () => new Promise<never>(() => {})],
  ])('with a database that %s, a doubtful agent is told to retry', async (_name, getAgent) => {
    await connect()
    rig.getAgent = getAgent
    await rig.putAgent(A, { serialNumber: '' })
    rig.clock.advanceMs(SYNC_CONFIRM_MS_MAX)
    await settle()
    expect(agent.ended).toMatchObject({ kind: 'unavailable', code: 'agent_unconfirmed' })
  })

  test('a second stream of the agent replaces the first', async () => {
    await connect()
    const again = new RigAgent(rig, A)
    await connect(again)
    expect(agent.ended).toMatchObject({ kind: 'aborted', code: 'replaced' })
    await rig.putEntries(makeEntry({ id: 'two' }))
    await settle()
    expect(again.entryIds()).toEqual(['one', 'two'])
    expect(rig.service.agent(agent.id)?.isConnected).toBe(true)
  })

  test('a client that is done ends the stream without error', async () => {
    await connect()
    agent.post(undefined)
    await settle()
    expect(agent.ended).toBeNull()
    expect(rig.service.agent(agent.id)?.isConnected).toBe(false)
  })

  test('a stopping server says so, and takes no new streams', async () => {
    await connect()
    rig.service[Symbol.dispose]()
    await settle()
    expect(agent.ended).toMatchObject({ kind: 'unavailable', code: 'stopping' })
    void agent.connect()
    await settle()
    expect(agent.ended).toMatchObject({ code: 'stopping' })
  })
})

describe('protocol', () => {
  test('the first message must be a hello, and come in time', async () => {
    void agent.connect(null)
    agent.post({ ack: { cursor: '', bundleSequence: 0n } })
    await settle()
    expect(agent.ended).toMatchObject({ kind: 'invalid_argument', code: 'no_hello' })
    void agent.connect(null)
    await settle()
    rig.clock.advanceMs(SYNC_HELLO_MS_MAX)
    await settle()
    expect(agent.ended).toMatchObject({ kind: 'deadline_exceeded', code: 'no_hello' })
  })

  test('a second hello is refused, an unknown message passed over', async () => {
    await connect()
    agent.post({})
    await settle()
    expect(agent.ended).toBeUndefined()
    agent.post({ hello: agent.hello() })
    await settle()
    expect(agent.ended).toMatchObject({ kind: 'invalid_argument', code: 'second_hello' })
  })

  test('an unknown agent id is no reason to fail', () => {
    expect(rig.service.agent(SpiffeId.parse(`spiffe://${OWN}/spire/agent/x`))).toBeUndefined()
  })
})
