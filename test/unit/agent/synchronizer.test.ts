import { describe, expect, test } from 'vitest'
import type { PushStream } from '../../../src/agent/sync/push.ts'
import {
  createSynchronizer,
  type Synchronizer,
  type SynchronizerOptions,
} from '../../../src/agent/sync/synchronizer.ts'
import { SignetError } from '../../../src/base/error.ts'
import type { Bundle } from '../../../src/spiffe/bundle.ts'
import { connectionText } from '../../../src/wire/connection-text.ts'
import type { SyncRequest } from '../../../src/wire/gen/signet/sync/v1/sync.ts'
import { SyncResponse } from '../../../src/wire/gen/signet/sync/v1/sync.ts'
import { Entry } from '../../../src/wire/gen/spire/api/types/entry.ts'
import { makeBundle, makeCache } from '../../fakes/agent-cache.ts'
import { FakeClock } from '../../fakes/fake-clock.ts'
import { makeEntry } from '../../fakes/make-entry.ts'
import { createMemoryLog, createMemoryMetrics, type MemoryMetrics } from '../../fakes/memory-log.ts'
import { createScriptedCall, type ScriptedCall } from '../../fakes/scripted-call.ts'
import { createSeededRandom } from '../../fakes/seeded-random.ts'
import { until } from '../../rigs/until.ts'

type Call = ScriptedCall<SyncRequest, SyncResponse>

const unimplemented = () =>
  new SignetError('unimplemented', 'grpc_unimplemented', 'unknown service')
const unavailable = () => new SignetError('unavailable', 'grpc_unavailable', 'gone')
const untrustedServer = () =>
  new SignetError(
    'unavailable',
    'grpc_unavailable',
    connectionText(
      'round_robin: No connection established. Last error: Error: unable to get local issuer certificate. Resolution note: ',
    ),
  )
const banned = () =>
  new SignetError('permission_denied', 'grpc_permission_denied', 'denied', {
    denial: 'agent_banned',
  })

interface Rig {
  readonly synchronizer: Synchronizer
  readonly cache: ReturnType<typeof makeCache>['cache']
  readonly clock: FakeClock
  readonly log: ReturnType<typeof createMemoryLog>
  readonly metrics: MemoryMetrics
  readonly calls: Call[]
  readonly counts: { polls: number; released: number; applied: number; reached: number }
  readonly untrusted: { text: string; hasSynchronized: boolean }[]
  readonly own: Bundle[]
}

function rig(
  subscribe: (call: Call) => void,
  client: Partial<SynchronizerOptions['client']> = {},
  options: { seed?: string; useSyncAuthorizedEntries?: boolean } = {},
): Rig {
  const { cache } = makeCache()
  const clock = new FakeClock()
  const log = createMemoryLog()
  const calls: Call[] = []
  const counts = { polls: 0, released: 0, applied: 0, reached: 0 }
  const metrics = createMemoryMetrics()
  const untrusted: Rig['untrusted'] = []
  const own: Bundle[] = []
  const synchronizer = createSynchronizer({
    client: {
      async syncEntries() {
        counts.polls++
        return { upserts: [makeEntry({ id: 'polled' })], removals: [] }
      },
      getAuthorizedEntries: async () => [makeEntry({ id: 'whole' })],
      getBundle: async () => makeBundle('example.org', 'polled root', 7n),
      getFederatedBundle: async () => undefined,
      subscribe() {
        const call: Call = createScriptedCall()
        calls.push(call)
        subscribe(call)
        return call as PushStream
      },
      release: () => void counts.released++,
      ...client,
    },
    cache,
    taint: { process: async () => {} },
    intervalMs: 5_000,
    useSyncAuthorizedEntries: options.useSyncAuthorizedEntries ?? true,
    agentVersion: '1.2.3',
    clock,
    random: createSeededRandom(options.seed),
    log,
    metrics,
    onOwnBundle: (bundle) => own.push(bundle),
    onApplied: () => void counts.applied++,
    onReached: () => void counts.reached++,
    async onUntrusted(text, hasSynchronized) {
      untrusted.push({ text, hasSynchronized })
      if (hasSynchronized) throw new SignetError('unavailable', 'stop', 'stop')
    },
  })
  return { synchronizer, cache, clock, log, metrics, calls, counts, own, untrusted }
}

const message = (fields: Partial<SyncResponse>): SyncResponse => ({
  ...SyncResponse.decode(new Uint8Array()),
  ...fields,
})

const protoEntry = (id: string, fields: Partial<Entry> = {}): Entry => ({
  ...Entry.decode(new Uint8Array()),
  id,
  spiffeId: { trustDomain: 'example.org', path: `/${id}` },
  selectors: [{ type: 'unix', value: 'uid:1' }],
  ...fields,
})

function snapshot(call: Call, cursor: string, ...entries: Entry[]): void {
  call.reply(
    message({ snapshotBegin: {} }),
    message({ snapshotPage: { entries, bundles: [] } }),
    message({ snapshotEnd: { entryCount: entries.length, bundleCount: 0 }, cursor }),
  )
}

const idsOf = ({ cache }: Rig) => cache.entries().map(({ id }) => id)

async function stopped(running: Promise<void>, abort: AbortController): Promise<void> {
  abort.abort(new Error('stop'))
  await running
}

describe('against a server without push', () => {
  test('polls at once, then every interval', async () => {
    const r = rig((call) => call.finish(unimplemented()))
    const abort = new AbortController()
    const running = r.synchronizer.run(abort.signal)
    await until('first poll', () => r.synchronizer.lastSuccess > 0)
    expect(idsOf(r)).toEqual(['polled'])
    expect(r.own).toHaveLength(1)
    await r.clock.untilArmed()
    r.clock.advanceMs(5_500)
    await until('second poll', () => r.counts.polls === 2)
    expect(r.calls).toHaveLength(1)
    await stopped(running, abort)
  })

  test('after a failed poll waits, and asks for push again', async () => {
    let fail = true
    const r = rig((call) => call.finish(unimplemented()), {
      async getBundle() {
        if (fail) throw unavailable()
        return makeBundle('example.org')
      },
    })
    const abort = new AbortController()
    const running = r.synchronizer.run(abort.signal)
    await until('failure logged', () => r.log.lines.some((l) => l.message === 'Synchronize failed'))
    expect(idsOf(r)).toEqual([])
    fail = false
    await r.clock.untilArmed()
    r.clock.advanceMs(5_500)
    await until('recovered', () => r.synchronizer.lastSuccess > 0)
    expect(r.calls).toHaveLength(2)
    await stopped(running, abort)
  })

  test('one of an unknown authority is told of, and ends it when told to', async () => {
    let trusted = true
    const r = rig((call) => call.finish(unimplemented()), {
      async syncEntries() {
        if (!trusted) throw untrustedServer()
        return { upserts: [], removals: [] }
      },
    })
    const running = r.synchronizer.run(new AbortController().signal)
    await until('first poll', () => r.counts.reached === 1)
    trusted = false
    await r.clock.untilArmed()
    r.clock.advanceMs(5_500)
    await expect(running).rejects.toMatchObject({ code: 'stop' })
    expect(r.untrusted).toEqual([
      {
        text: expect.stringContaining('certificate signed by unknown authority'),
        hasSynchronized: true,
      },
    ])
  })

  test.each(['syncEntries', 'getBundle'] as const)('a denial of %s ends it', async (method) => {
    const r = rig((call) => call.finish(unimplemented()), {
      [method]: async () => {
        throw banned()
      },
    })
    await expect(r.synchronizer.run(new AbortController().signal)).rejects.toMatchObject({
      denial: 'agent_banned',
    })
  })

  test('skips federated bundles the server does not have and drops those no entry names', async () => {
    let federatesWith = ['known.org', 'unknown.org']
    const r = rig(() => {}, {
      syncEntries: async () => ({
        upserts: [makeEntry({ id: 'a', federatesWith })],
        removals: [],
      }),
      getFederatedBundle: async (td) => (td === 'known.org' ? makeBundle(td) : undefined),
    })
    await r.synchronizer.synchronize()
    expect(r.cache.bundles.all().map((b) => b.trustDomain)).toEqual(['example.org', 'known.org'])
    federatesWith = []
    await r.synchronizer.synchronize()
    expect(r.cache.bundles.all().map((b) => b.trustDomain)).toEqual(['example.org'])
  })

  test('entries for an SVID store never reach the Workload API', async () => {
    let storeSvid = false
    const r = rig(() => {}, {
      syncEntries: async () => ({ upserts: [makeEntry({ id: 'a', storeSvid })], removals: [] }),
    })
    await r.synchronizer.synchronize()
    expect(idsOf(r)).toEqual(['a'])
    storeSvid = true
    await r.synchronizer.synchronize()
    expect(idsOf(r)).toEqual([])
  })
})

describe('a sync by polling', () => {
  test('asks for entries, the own bundle, federated bundles, in this order, then applies', async () => {
    const order: string[] = []
    const note =
      <T>(what: string, value: T) =>
      async () => {
        order.push(what)
        return value
      }
    const entry = makeEntry({ id: 'a', federatesWith: ['other.org'] })
    const r = rig(() => {}, {
      syncEntries: note('entries', { upserts: [entry], removals: [] }),
      getBundle: note('bundle', makeBundle('example.org', 'new root', 8n)),
      getFederatedBundle: note('federated', makeBundle('other.org')),
    })
    await r.synchronizer.synchronize()
    expect(order).toEqual(['entries', 'bundle', 'federated'])
    expect(idsOf(r)).toEqual(['a'])
    expect(r.counts.applied).toBe(1)
  })

  test('logs the SPIFFE ID of each entry at debug', async () => {
    let delta = { upserts: [makeEntry({ id: 'a', spiffe: '/a' })], removals: [] as string[] }
    const r = rig(() => {}, { syncEntries: async () => delta })
    await r.synchronizer.synchronize()
    delta = { upserts: [makeEntry({ id: 'a', spiffe: '/b' })], removals: [] }
    await r.synchronizer.synchronize()
    delta = { upserts: [], removals: ['a'] }
    await r.synchronizer.synchronize()
    const said = r.log.lines.filter(({ fields }) => fields.entry === 'a')
    expect(said.map((l) => [l.level, l.message, l.fields.spiffe_id])).toEqual([
      ['debug', 'Entry created', 'spiffe://example.org/a'],
      ['debug', 'Entry updated', 'spiffe://example.org/b'],
      ['debug', 'Entry removed', 'spiffe://example.org/b'],
    ])
  })

  test('says what it came to', async () => {
    const deltas = [
      { upserts: [makeEntry({ id: 'a' }), makeEntry({ id: 'b' })], removals: [] },
      { upserts: [makeEntry({ id: 'a' })], removals: ['b'] },
      { upserts: [], removals: [] },
    ]
    const r = rig(() => {}, { syncEntries: async () => deltas.shift()! })
    const gauges = ['bundles_total', 'entries_total']
    gauges.push('entries_missing', 'entries_stale', 'entries_dropped')
    for (const expected of [
      [1, 2, 2, 0, 0],
      [1, 1, 0, 1, 1],
      [1, 1, 0, 0, 0],
    ]) {
      await r.synchronizer.synchronize()
      expect(gauges.map((name) => r.metrics.gauges.get(`sync_${name}`))).toEqual(expected)
    }
  })

  test('takes the whole set where use_sync_authorized_entries is false', async () => {
    let whole = ['a', 'b']
    const r = rig(
      () => {},
      { getAuthorizedEntries: async () => whole.map((id) => makeEntry({ id })) },
      { useSyncAuthorizedEntries: false },
    )
    await r.synchronizer.synchronize()
    expect(idsOf(r)).toEqual(['a', 'b'])
    whole = ['b']
    await r.synchronizer.synchronize()
    expect(idsOf(r)).toEqual(['b'])
    expect(r.counts.polls).toBe(0)
  })

  test('that goes on failing waits half as long again each time, up to eight minutes', async () => {
    const denied = new SignetError('permission_denied', 'grpc_permission_denied', 'no detail')
    const starts: number[] = []
    const r = rig((call) => call.finish(unimplemented()), {
      async syncEntries() {
        starts.push(r.clock.monotonicMs())
        throw denied
      },
    })
    const abort = new AbortController()
    const running = r.synchronizer.run(abort.signal)
    for (let tries = 1; tries <= 16; tries++) {
      await until('a try', () => starts.length >= tries)
      await r.clock.untilArmed()
      await r.clock.advanceUntil(() => starts.length > tries, 100)
    }
    const waits = starts.slice(1).map((ms, i) => ms - starts[i]!)
    for (const [i, ms] of waits.entries()) {
      const expected = Math.min(5_000 * 1.5 ** i, 48 * 5_000)
      expect(ms / expected, `wait ${i}`).toBeGreaterThan(0.89)
      expect(ms / expected, `wait ${i}`).toBeLessThan(1.13)
    }
    const text = 'failed to fetch authorized entries: '
    expect(r.log.lines.find((l) => l.message === 'Synchronize failed')).toMatchObject({
      level: 'error',
      fields: { error: expect.stringContaining(text) },
    })
    await stopped(running, abort)
  })
})

describe('against a server with push', () => {
  test('applies the snapshot, acknowledges it, then applies deltas', async () => {
    const r = rig((call) => snapshot(call, 'c1', protoEntry('a'), protoEntry('b')))
    const abort = new AbortController()
    const running = r.synchronizer.run(abort.signal)
    await until('snapshot', () => r.calls[0]?.sent.length === 2)
    expect(r.calls[0]!.sent[0]).toEqual({
      hello: { cursor: '', bundleSequence: 0n, agentVersion: '1.2.3' },
    })
    expect(r.calls[0]!.sent[1]).toEqual({ ack: { cursor: 'c1', bundleSequence: 0n } })
    expect(idsOf(r)).toEqual(['a', 'b'])
    r.calls[0]!.reply(
      message({
        cursor: 'c2',
        delta: {
          entriesUpserted: [protoEntry('c')],
          entryIdsRemoved: ['a'],
          bundlesUpserted: [],
          trustDomainsRemoved: [],
        },
      }),
    )
    await r.calls[0]!.untilSent(3)
    expect(idsOf(r)).toEqual(['b', 'c'])
    expect(r.counts.polls).toBe(0)
    await stopped(running, abort)
  })

  test('comes back with its cursor after the stream broke, and starts over on a broken protocol', async () => {
    const r = rig((call) => {
      if (r.calls.length === 1) {
        snapshot(call, 'c1', protoEntry('a'))
        call.finish(unavailable())
      } else if (r.calls.length === 2)
        call.reply(message({ snapshotEnd: { entryCount: 1, bundleCount: 0 } }))
    })
    const abort = new AbortController()
    const running = r.synchronizer.run(abort.signal)
    for (const streams of [2, 3]) {
      await until(
        'stream ended',
        () => r.log.lines.filter((l) => l.message === 'Push stream ended').length === streams - 1,
      )
      await r.clock.untilArmed()
      r.clock.advanceMs(60_000)
      await until(
        'next stream',
        () => r.calls.length === streams && r.calls[streams - 1]!.sent.length > 0,
      )
    }
    expect(r.calls[1]!.sent[0]!.hello?.cursor).toBe('c1')
    expect(r.calls[2]!.sent[0]!.hello?.cursor).toBe('')
    expect(idsOf(r)).toEqual(['a'])
    await stopped(running, abort)
  })

  test('takes a silent stream for dead', async () => {
    const r = rig((call) => snapshot(call, 'c1'))
    const abort = new AbortController()
    const running = r.synchronizer.run(abort.signal)
    await until('snapshot', () => r.calls[0]?.sent.length === 2)
    r.clock.advanceMs(20_000)
    expect(r.calls[0]!.cancelled).toBe(false)
    r.clock.advanceMs(10_000)
    await until('cancelled', () => r.calls[0]!.cancelled)
    await stopped(running, abort)
  })

  test('a restarted server has its agents back within a second and a half, not all at once', async () => {
    const waits: number[] = []
    for (let agent = 0; agent < 40; agent++) {
      const r = rig(
        (call) => {
          if (r.calls.length > 1) return snapshot(call, 'c1')
          call.finish(unavailable())
        },
        {},
        { seed: `agent ${agent}` },
      )
      const abort = new AbortController()
      const running = r.synchronizer.run(abort.signal)
      await r.clock.untilArmed()
      await r.clock.advanceUntil(() => r.counts.reached > 0, 50)
      waits.push(r.clock.monotonicMs())
      await stopped(running, abort)
    }
    expect(Math.max(...waits)).toBeLessThanOrEqual(1_600)
    expect(Math.min(...waits)).toBeGreaterThanOrEqual(500)
    expect(Math.max(...waits) - Math.min(...waits)).toBeGreaterThan(500)
  })

  test('however long the server was away, it waits a few seconds at most', async () => {
    let away = true
    const r = rig((call) => (away ? call.finish(unavailable()) : snapshot(call, 'c1')))
    const abort = new AbortController()
    const running = r.synchronizer.run(abort.signal)
    for (let second = 0; second < 600; second++) {
      await r.clock.untilArmed()
      r.clock.advanceMs(1_000)
    }
    away = false
    const backMs = r.clock.monotonicMs()
    await r.clock.advanceUntil(() => r.counts.reached > 0, 100)
    expect(r.clock.monotonicMs() - backMs).toBeLessThanOrEqual(7_600)
    await stopped(running, abort)
  })

  test('a heartbeat says that what is held is still right', async () => {
    const r = rig((call) => snapshot(call, 'c1', protoEntry('a')))
    const abort = new AbortController()
    const running = r.synchronizer.run(abort.signal)
    await until('snapshot', () => r.calls[0]?.sent.length === 2)
    const before = r.synchronizer.lastSuccess
    expect(r.metrics.gauges.get('sync_entries_missing')).toBe(1)
    r.clock.advanceMs(10_000)
    r.calls[0]!.reply(message({ heartbeat: {}, cursor: 'c1' }))
    await r.calls[0]!.untilSent(3)
    expect(r.synchronizer.lastSuccess).toBe(before + 10)
    expect(r.counts).toMatchObject({ applied: 1, reached: 1 })
    expect(r.metrics.gauges.get('sync_entries_missing')).toBe(0)
    expect(r.metrics.gauges.get('sync_entries_total')).toBe(1)
    await stopped(running, abort)
  })

  test('under an unknown authority is told of, and tried again', async () => {
    const r = rig((call) => {
      if (r.calls.length > 1) return snapshot(call, 'c1')
      call.finish(untrustedServer())
    })
    const abort = new AbortController()
    const running = r.synchronizer.run(abort.signal)
    await until('told', () => r.untrusted.length === 1)
    expect(r.untrusted[0]!.hasSynchronized).toBe(false)
    await r.clock.untilArmed()
    r.clock.advanceMs(1_500)
    await until('reached', () => r.counts.reached === 1)
    await stopped(running, abort)
  })

  test('a denial ends it', async () => {
    const r = rig((call) => call.finish(banned()))
    await expect(r.synchronizer.run(new AbortController().signal)).rejects.toMatchObject({
      denial: 'agent_banned',
    })
  })

  test('opens the stream anew when the own certificate was replaced, without delay', async () => {
    const r = rig((call) => snapshot(call, `c${r.calls.length}`))
    const abort = new AbortController()
    const running = r.synchronizer.run(abort.signal)
    await until('first', () => r.calls[0]?.sent.length === 2)
    r.synchronizer.reconnect()
    await until('second', () => r.calls[1]?.sent.length === 2)
    expect(r.calls[1]!.sent[0]!.hello?.cursor).toBe('c1')
    expect(r.log.lines.some((line) => line.message === 'Push stream ended')).toBe(false)
    await stopped(running, abort)
  })
})
