/** The agent's word on itself, given by its own Workload API over a real socket. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { createAgentHealth, type Standing } from '../../../src/agent/health.ts'
import { createRateLimiter } from '../../../src/agent/workload-api/rate-limit.ts'
import { startPublicServer } from '../../../src/agent/workload-api/servers.ts'
import { systemClock } from '../../../src/base/clock.ts'
import { SignetError } from '../../../src/base/error.ts'
import { HealthService } from '../../../src/wire/gen/grpc/health/v1/health.ts'
import { callUnary } from '../../../src/wire/transport/call.ts'
import { openUnixChannel } from '../../../src/wire/transport/channel.ts'
import { makeCache, put, selectors, sign } from '../../fakes/agent-cache.ts'
import { FakeClock } from '../../fakes/fake-clock.ts'
import { makeEntry } from '../../fakes/make-entry.ts'
import { createMemoryLog, createMemoryMetrics } from '../../fakes/memory-log.ts'

let dir: string
let server: AsyncDisposable | undefined
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'health-'))
})
afterEach(async () => {
  await server?.[Symbol.asyncDispose]()
  server = undefined
  await rm(dir, { recursive: true, force: true })
})

const NOW = 1_800_000_000
const GOOD: Standing = { lastSyncSuccess: NOW, x509SvidsDue: 0 }

interface RigOptions {
  readonly attestable?: boolean
  readonly identity?: 'none' | 'signed'
  readonly serving?: boolean
  readonly socketPath?: string
}

async function rig({ attestable = true, identity = 'none', ...options }: RigOptions = {}) {
  const socketPath = options.socketPath ?? join(dir, 'api.sock')
  const made = makeCache({ scheduleFlush: (flush) => void setImmediate(flush) })
  if (identity === 'signed') {
    put(made.cache, makeEntry({ id: 'a', selectors: ['unix:uid:1'] }))
    sign(made.cache, 'a')
  }
  const log = createMemoryLog()
  const ports = { clock: systemClock, log, metrics: createMemoryMetrics() }
  let attestations = 0
  const attest = async () => {
    attestations++
    if (!attestable) throw new SignetError('unavailable', 'x', 'no luck')
    return selectors('unix:uid:1')
  }
  let standing: Standing | undefined = GOOD
  // Its wall clock stands still; deadlines of calls are the system's.
  const clock = Object.assign(new FakeClock(NOW), { nowMs: () => systemClock.nowMs() })
  const health = createAgentHealth({ socketPath, standing: () => standing, clock, log })
  if (options.serving ?? true) {
    server = await startPublicServer({
      ...ports,
      path: join(dir, 'api.sock'),
      attestation: { attest },
      isServing: health.isServing,
      workloadApi: {
        cache: made.cache,
        jwtSvids: { fetch: async () => '' },
        validator: { validate: () => Promise.reject(new Error('unused')) as never },
        rateLimiter: createRateLimiter({}, ports),
        allowUnauthenticatedVerifiers: false,
        logSelectors: [],
      },
    })
  }
  return {
    health,
    log,
    clock,
    attestations: () => attestations,
    stand: (next: Standing | undefined) => {
      standing = next
    },
  }
}

const FAULT = { make_new_x509_err: 'workload api is unavailable' }

describe('live and ready', () => {
  test('before the first attestation: live, not ready, still starting', async () => {
    const r = await rig({ serving: false })
    r.stand(undefined)
    expect(await r.health.check()).toEqual({ live: true, ready: false, started: false })
  })

  test('an agent that is no workload of its own is well', async () => {
    const r = await rig()
    expect(await r.health.check()).toEqual({
      live: true,
      ready: true,
      liveDetails: {},
      readyDetails: {},
    })
    expect(r.attestations()).toBe(1)
  })

  test('one whose Workload API is gone, or can attest nobody, is not', async () => {
    const gone = await rig({ serving: false })
    const ill = { live: false, ready: false, liveDetails: FAULT, readyDetails: FAULT }
    expect(await gone.health.check()).toEqual(ill)
    expect(await (await rig({ attestable: false })).health.check()).toEqual(ill)
  })

  test('one without a Workload API is well when it runs', async () => {
    const r = await rig({ serving: false, socketPath: '' })
    expect(await r.health.check()).toMatchObject({ live: true, ready: true })
    expect(await r.health.isServing()).toBe(true)
  })

  test.each([
    ['SVIDs due, the server just heard', 59, 3, false],
    ['the server away, nothing due', 3600, 0, false],
    ['the server away and SVIDs due', 60, 3, true],
  ])('%s: degraded %#', async (_what, seconds, x509SvidsDue, degraded) => {
    const r = await rig()
    r.stand({ lastSyncSuccess: NOW, x509SvidsDue })
    r.clock.advanceSeconds(seconds)
    const { ready, readyDetails } = await r.health.check()
    expect(ready).toBe(true)
    expect(readyDetails).toEqual(
      degraded
        ? {
            degraded: 'server cannot be reached and X509-SVIDs are due for renewal',
            server_away_seconds: 60,
            x509_svids_due: 3,
          }
        : {},
    )
  })

  test('a restored agent that never reached its server counts from its start', async () => {
    const r = await rig()
    r.stand({ lastSyncSuccess: 0, x509SvidsDue: 1 })
    r.clock.advanceSeconds(59)
    expect((await r.health.check()).readyDetails).toEqual({})
    r.clock.advanceSeconds(1)
    expect((await r.health.check()).readyDetails).toMatchObject({ server_away_seconds: 60 })
  })
})

describe('the Health service', () => {
  async function ask(): Promise<number> {
    const client = openUnixChannel(join(dir, 'api.sock'))
    const settings = { clock: systemClock }
    return callUnary(client, HealthService.check, { service: '' }, settings)
      .then(({ status }) => status)
      .finally(() => client.close())
  }

  test.each(['none', 'signed'] as const)('serves with identity %s', async (identity) => {
    const r = await rig({ identity })
    expect(await ask()).toBe(1)
    expect(r.log.lines.map(({ message }) => message)).not.toContain('Health check failed')
  })

  test('does not where workloads can’t be attested', async () => {
    const r = await rig({ attestable: false })
    expect(await ask()).toBe(2)
    expect(r.log.lines.find(({ message }) => message === 'Health check failed')?.fields).toEqual({
      reason: 'unable to fetch X.509 context from Workload API',
      error: 'rpc error: code = Unavailable desc = workload attestation failed',
    })
  })

  test('opens the socket once, however many ask', async () => {
    const r = await rig()
    await Promise.all(Array.from({ length: 20 }, () => r.health.isServing()))
    expect(r.attestations()).toBe(1)
    await r.health.isServing()
    expect(r.attestations()).toBe(2)
  })
})
