import { describe, expect, test } from 'vitest'
import { attestWithRetries, supervise, waitForFirstSync } from '../../../src/agent/runtime.ts'
import { type DenialReason, SignetError } from '../../../src/base/error.ts'
import { FakeClock } from '../../fakes/fake-clock.ts'
import { createMemoryLog } from '../../fakes/memory-log.ts'
import { createSeededRandom } from '../../fakes/seeded-random.ts'
import { until } from '../../rigs/until.ts'

const denied = (denial?: DenialReason) =>
  new SignetError('permission_denied', 'grpc_permission_denied', 'denied', {
    ...(denial === undefined ? {} : { denial }),
  })
const unavailable = () => new SignetError('unavailable', 'grpc_unavailable', 'gone')

interface Behaviour {
  readonly reattestable?: boolean
  /** What each run of the synchronizer ends with; after the last it runs until aborted. */
  readonly syncEnds?: SignetError[]
  readonly attest?: () => Promise<void>
  readonly renewal?: () => Promise<void>
  readonly renewalDue?: boolean
  readonly expired?: boolean
}

function rig(behaviour: Behaviour) {
  const clock = new FakeClock()
  const log = createMemoryLog()
  const counts = { attested: 0, forgotten: 0, reconnected: 0, released: 0, runs: 0 }
  const ends = [...(behaviour.syncEnds ?? [])]
  let due = behaviour.renewalDue ?? false
  const forever = (signal: AbortSignal) =>
    new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve()))
  const identity = {
    svid: { reattestable: behaviour.reattestable ?? false, spiffeId: 'spiffe://example.org/a' },
    isExpired: () => behaviour.expired ?? false,
    isRenewalDue: () => due,
    async reattest() {
      counts.attested++
      await behaviour.attest?.()
    },
    async renew() {
      await behaviour.renewal?.()
      identity.svid = { ...identity.svid }
      due = false
    },
  }
  const options = {
    clock,
    log,
    random: createSeededRandom(),
    identity,
    synchronizer: {
      async run(signal: AbortSignal) {
        counts.runs++
        const end = ends.shift()
        if (end !== undefined) throw end
        await forever(signal)
      },
      reconnect: () => void counts.reconnected++,
    },
    renewer: { run: forever },
    client: { release: () => void counts.released++ },
    roots: () => [],
    forget: async () => void counts.forgotten++,
  }
  return { options: options as unknown as Parameters<typeof supervise>[0], clock, log, counts }
}

/** Lets time pass until `attempt` settles; what it rejected with, if it did. */
async function drive(clock: FakeClock, attempt: Promise<void>, stepMs: number): Promise<unknown> {
  let outcome: { error?: unknown } | undefined
  attempt.then(
    () => {
      outcome = {}
    },
    (error: unknown) => {
      outcome = { error }
    },
  )
  await clock.advanceUntil(() => outcome !== undefined, stepMs)
  return outcome!.error
}

const messages = (log: ReturnType<typeof createMemoryLog>) =>
  log.lines.map(({ message }) => message)

describe('reactions to what the server says', () => {
  test('a banned agent forgets its SVID and stops', async () => {
    const r = rig({ syncEnds: [denied('agent_banned')], reattestable: true })
    await expect(supervise(r.options, new AbortController().signal)).rejects.toMatchObject({
      denial: 'agent_banned',
    })
    expect(r.counts).toMatchObject({ forgotten: 1, attested: 0 })
    expect(messages(r.log)).toContain('Agent is banned: removing SVID and shutting down')
  })

  test.each<DenialReason>([
    'agent_expired',
    'agent_not_active',
    'agent_not_attested',
    'agent_must_reattest',
  ])('%s: attests again where it can, and goes on', async (denial) => {
    const r = rig({ syncEnds: [denied(denial)], reattestable: true })
    const abort = new AbortController()
    const running = supervise(r.options, abort.signal)
    await until('second run', () => r.counts.runs === 2)
    expect(r.counts).toMatchObject({ attested: 1, forgotten: 0, released: 1, reconnected: 1 })
    expect(messages(r.log)).toContain('Agent needs to re-attest; will attempt to re-attest')
    abort.abort(new Error('stop'))
    await running
    expect(messages(r.log)).toContain('Cache manager stopped')
  })

  test('a denial that meets a renewal under way is its echo: nothing attests twice', async () => {
    const renewed = Promise.withResolvers<void>()
    const r = rig({
      syncEnds: [denied('agent_not_active')],
      reattestable: true,
      renewalDue: true,
      renewal: () => renewed.promise,
    })
    const abort = new AbortController()
    const running = supervise(r.options, abort.signal)
    await until('first run', () => r.counts.runs === 1)
    renewed.resolve()
    await until('second run', () => r.counts.runs === 2)
    expect(r.counts).toMatchObject({ attested: 0, forgotten: 0 })
    expect(messages(r.log)).not.toContain('Agent needs to re-attest; will attempt to re-attest')
    abort.abort(new Error('stop'))
    await running
  })

  test('an agent that can’t attest again forgets its SVID and stops', async () => {
    const r = rig({ syncEnds: [denied('agent_not_attested')] })
    await expect(supervise(r.options, new AbortController().signal)).rejects.toMatchObject({
      denial: 'agent_not_attested',
    })
    expect(r.counts).toMatchObject({ attested: 0, forgotten: 1 })
    expect(messages(r.log)).toContain(
      'Agent failed re-attestation; removing SVID and shutting down',
    )
  })

  test('one whose attestation is refused does as well', async () => {
    const r = rig({
      syncEnds: [denied('agent_not_attested')],
      reattestable: true,
      attest: async () => {
        throw denied()
      },
    })
    await expect(supervise(r.options, new AbortController().signal)).rejects.toMatchObject({
      denial: 'agent_not_attested',
    })
    expect(r.counts).toMatchObject({ attested: 1, forgotten: 1 })
  })

  test('anything else that ends it is passed on, the SVID kept', async () => {
    const r = rig({ syncEnds: [unavailable()] })
    await expect(supervise(r.options, new AbortController().signal)).rejects.toMatchObject({
      kind: 'unavailable',
    })
    expect(r.counts.forgotten).toBe(0)
  })
})

describe('the own SVID', () => {
  test('is looked at every 5 s; failures wait longer, up to 24 times that', async () => {
    const starts: number[] = []
    const r = rig({
      renewalDue: true,
      renewal: async () => {
        starts.push(r.clock.monotonicMs())
        throw unavailable()
      },
    })
    const abort = new AbortController()
    const running = supervise(r.options, abort.signal)
    for (let tries = 1; tries <= 12; tries++) {
      await until('a try', () => starts.length >= tries)
      await r.clock.untilArmed()
      await r.clock.advanceUntil(() => starts.length > tries, 100)
    }
    for (const [i, start] of starts.slice(1).entries()) {
      const share = (start - starts[i]!) / Math.min(5_000 * 1.5 ** i, 24 * 5_000)
      expect(share, `wait ${i}`).toBeGreaterThan(0.89)
      expect(share, `wait ${i}`).toBeLessThan(1.13)
    }
    abort.abort(new Error('stop'))
    await running
  })

  test('is renewed when due, and what was connected with the old one is connected anew', async () => {
    const r = rig({ renewalDue: true })
    const abort = new AbortController()
    const running = supervise(r.options, abort.signal)
    await until('renewed', () => r.counts.released === 1)
    expect(r.counts.reconnected).toBe(1)
    abort.abort(new Error('stop'))
    await running
  })

  test('failing to renew is retried while it has not expired', async () => {
    let tries = 0
    const r = rig({
      renewalDue: true,
      renewal: async () => {
        if (++tries < 3) throw unavailable()
      },
    })
    const abort = new AbortController()
    const running = supervise(r.options, abort.signal)
    for (const tried of [1, 2]) {
      await until('tried', () => tries === tried)
      await r.clock.untilArmed()
      r.clock.advanceMs(60_000)
    }
    await until('renewed', () => r.counts.released === 1)
    expect(messages(r.log).filter((m) => m === 'Could not rotate agent SVID')).toHaveLength(2)
    abort.abort(new Error('stop'))
    await running
  })

  test.each([
    [true, 'goes on trying, and serves meanwhile'],
    [false, 'stops'],
  ])('expired and re-attestable %s: %s', async (reattestable) => {
    const r = rig({
      renewalDue: true,
      expired: true,
      reattestable,
      renewal: async () => {
        throw unavailable()
      },
    })
    const abort = new AbortController()
    const running = supervise(r.options, abort.signal)
    if (!reattestable) {
      await expect(running).rejects.toMatchObject({ code: 'agent_svid_expired' })
      return
    }
    await until('failed', () => messages(r.log).includes('Could not reattest agent'))
    abort.abort(new Error('stop'))
    await running
  })
})

test.each([
  [59_000, undefined],
  [62_000, { code: 'first_sync_failed', kind: 'unavailable' }],
])('the first sync, after %d ms, is waited for a minute', async (syncMs, failure) => {
  const clock = new FakeClock()
  const synchronizer = {
    get lastSuccess() {
      return clock.monotonicMs() >= syncMs ? 1 : 0
    },
  } as Parameters<typeof waitForFirstSync>[1]
  const ports = { clock, random: createSeededRandom(), log: createMemoryLog() }
  const options = { msMax: 60_000, signal: new AbortController().signal }
  const error = await drive(clock, waitForFirstSync(ports, synchronizer, options), 100)
  if (failure === undefined) expect(error).toBeUndefined()
  else expect(error).toMatchObject(failure)
})

describe('attestation at start', () => {
  const options = (msMax: number) => ({ msMax, signal: new AbortController().signal })

  function ports() {
    return { clock: new FakeClock(), random: createSeededRandom(), log: createMemoryLog() }
  }

  test('is given up after a minute', async () => {
    const p = ports()
    let tries = 0
    const attempt = attestWithRetries(
      p,
      async () => {
        tries++
        throw unavailable()
      },
      options(60_000),
    )
    expect(await drive(p.clock, attempt, 500)).toMatchObject({ kind: 'unavailable' })
    expect(tries).toBeGreaterThan(3)
    expect(p.clock.monotonicMs()).toBeLessThanOrEqual(61_000)
  })

  test('goes on for ever while restored SVIDs are served', async () => {
    const p = ports()
    let tries = 0
    const attempt = attestWithRetries(
      p,
      async () => {
        if (++tries < 20) throw unavailable()
      },
      options(Number.POSITIVE_INFINITY),
    )
    expect(await drive(p.clock, attempt, 500)).toBeUndefined()
    expect(p.clock.monotonicMs()).toBeGreaterThan(10 * 60_000)
  })

  test('refused is final, whatever is restored', async () => {
    const refused = attestWithRetries(
      ports(),
      async () => {
        throw denied()
      },
      options(Number.POSITIVE_INFINITY),
    )
    await expect(refused).rejects.toMatchObject({ kind: 'permission_denied' })
  })
})
