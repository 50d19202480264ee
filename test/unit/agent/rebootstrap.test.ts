import { generateKeyPairSync } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { AgentConfig, BootstrapConfig } from '../../../src/agent/config.ts'
import { createBootstrap } from '../../../src/agent/node/rebootstrap.ts'
import { type AgentData, openAgentStorage } from '../../../src/agent/node/storage.ts'
import { TrustDomain } from '../../../src/spiffe/trust-domain.ts'
import { FakeClock } from '../../fakes/fake-clock.ts'
import { createMemoryLog, createMemoryMetrics } from '../../fakes/memory-log.ts'
import { selfSignedCertificate } from '../../rigs/test-certificates.ts'

const NOW = 1_800_000_000
const CERTIFICATE = selfSignedCertificate(
  generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey,
)
const DISAGREE = "Trust Bundle and Server don't agree"
const NOT_ALLOWED = /you have requested rebootstrap support but .* is not allowing it/

let dir: string
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'reboot-'))
})
afterEach(() => rm(dir, { recursive: true, force: true }))

async function rig(
  mode: AgentConfig['rebootstrapMode'],
  data: Partial<AgentData> = {},
  source: BootstrapConfig = { kind: 'path', path: '/b', format: 'pem' },
) {
  const storage = await openAgentStorage(dir)
  await storage.update(data)
  const clock = new FakeClock(NOW)
  const log = createMemoryLog()
  const metrics = createMemoryMetrics()
  const loads: BootstrapConfig[] = []
  const bootstrap = createBootstrap({
    config: {
      bootstrap: source,
      rebootstrapMode: mode,
      rebootstrapDelayMs: 600_000,
      serverAddress: 'server.test',
      serverPort: 8081,
      trustDomain: TrustDomain.parse('example.org'),
    },
    storage,
    clock,
    log,
    metrics,
    async load(asked) {
      loads.push(asked)
      return [CERTIFICATE]
    },
  })
  const said = () => log.lines.map(({ message }) => message)
  return { bootstrap, storage, clock, log, metrics, loads, said }
}

const attested = { svid: [CERTIFICATE], bundle: [CERTIFICATE], reattestable: true }

describe('whom to trust at start', () => {
  test('the kept bundle, else the source', async () => {
    const kept = await rig('never', { bundle: [CERTIFICATE] })
    expect(await kept.bootstrap.roots()).toHaveLength(1)
    expect(kept.loads).toEqual([])
    const fresh = await rig('never', { bundle: [] })
    expect(await fresh.bootstrap.roots()).toEqual([CERTIFICATE])
    expect(fresh.storage.data.bootstrap).toEqual({ use: 1, startSeconds: NOW, attempts: 1 })
    fresh.clock.advanceSeconds(5)
    await fresh.bootstrap.roots()
    expect(fresh.storage.data.bootstrap).toEqual({ use: 1, startSeconds: NOW, attempts: 2 })
    await fresh.bootstrap.succeeded()
    expect(fresh.storage.data.bootstrap).toEqual({ use: 2, attempts: 0 })
  })

  test('the gauges tell how far it is, after a restart too', async () => {
    const r = await rig('never')
    const gauges = ({ metrics }: typeof r) =>
      ['bootstrapped', 'bootstrap_seconds', 'bootstrap_attempts'].map((name) =>
        metrics.gauges.get(name),
      )
    expect(gauges(r)).toEqual([1, -62_135_596_800, 0])
    await r.bootstrap.roots()
    expect(gauges(r)).toEqual([0, NOW, 1])
    expect(gauges(await rig('never'))).toEqual([0, NOW, 1])
    await r.bootstrap.succeeded()
    expect(gauges(r)).toEqual([1, -62_135_596_800, 0])
  })

  test('a bundle server on this machine is told what it is asked for', async () => {
    const source = { kind: 'url', url: 'http://x/b?a=1', unixSocket: '/s', format: 'pem' } as const
    const r = await rig('never', {}, source)
    await r.bootstrap.roots()
    const { url } = r.loads[0] as typeof source
    expect(Object.fromEntries(new URL(url).searchParams)).toEqual({
      a: '1',
      'spire-attest-mode': 'bootstrap',
      'spire-connection-attempts': '1',
      'spire-attest-start-time': '2027-01-15T08:00:00Z',
      'spire-server-address': 'server.test',
      'spire-server-port': '8081',
      'spiffe-trust-domain': 'example.org',
    })
    expect(r.said()).toEqual(['Server attestation attempt 1. Started 2027-01-15T08:00:00Z.'])
  })

  test('a remote one is not', async () => {
    const source = { kind: 'url', url: 'https://x/b', unixSocket: '', format: 'pem' } as const
    const r = await rig('never', {}, source)
    await r.bootstrap.roots()
    expect(r.loads).toEqual([source])
  })

  test.each([
    ['never', 60_000],
    ['auto', 24 * 3600_000],
    ['always', 24 * 3600_000],
  ] as const)('in mode %s the start may take %d ms', async (mode, ms) => {
    expect((await rig(mode)).bootstrap.startMsMax).toBe(ms)
  })
})

describe('a server of an unknown authority, at start', () => {
  test('before the first bootstrap: the source is asked again', async () => {
    const r = await rig('never')
    await r.bootstrap.roots()
    await r.bootstrap.untrustedAtStart()
    expect(r.said()).toEqual([`${DISAGREE}, bootstrapping again`])
  })

  test('afterwards, in mode never: nothing but trying on', async () => {
    const r = await rig('never', attested)
    await r.bootstrap.untrustedAtStart()
    expect(r.said()).toEqual([])
    expect(r.storage.data.bundle).toHaveLength(1)
  })

  test.each(['auto', 'always'] as const)(
    'afterwards, in mode %s: after the delay the kept bundle goes',
    async (mode) => {
      const r = await rig(mode, attested)
      await r.bootstrap.untrustedAtStart()
      r.clock.advanceSeconds(599)
      await r.bootstrap.untrustedAtStart()
      expect(r.log.lines.map(({ fields }) => fields.time_left)).toEqual(['600s', '1s'])
      expect(r.storage.data.bundle).toHaveLength(1)
      r.clock.advanceSeconds(1)
      await r.bootstrap.untrustedAtStart()
      expect(r.said().at(-1)).toBe(`${DISAGREE}, rebootstrapping`)
      expect(r.storage.data.bundle).toEqual([])
      await r.bootstrap.roots()
      expect(r.loads).toHaveLength(1)
    },
  )
})

describe('a server of an unknown authority, at run time', () => {
  test('in mode never stops the agent, unless it serves what it restored', async () => {
    const r = await rig('never', attested)
    await r.bootstrap.untrusted('unknown', false)
    await expect(r.bootstrap.untrusted('unknown', true)).rejects.toMatchObject({
      code: 'server_untrusted',
      message: 'failed to sync with SPIRE Server: unknown',
    })
    expect(r.storage.data.svid).toHaveLength(1)
    expect(r.said()).toEqual(['Synchronize failed, non-recoverable error'])
  })

  test('in mode auto stops it after the delay, to bootstrap anew', async () => {
    const r = await rig('auto', attested)
    await r.bootstrap.untrusted('unknown', true)
    expect(r.said()).toEqual([`${DISAGREE}, ignoring for now`])
    r.clock.advanceSeconds(600)
    await expect(r.bootstrap.untrusted('unknown', true)).rejects.toMatchObject({
      code: 'rebootstrapping',
    })
    const { data } = await openAgentStorage(dir)
    expect(data).toMatchObject({ svid: [], bundle: [] })
    expect(data.bootstrap).toEqual({ use: 2, startSeconds: NOW + 600, attempts: 0 })
  })

  test('a good connection ends the delay, a restart does not', async () => {
    const first = await rig('auto', attested)
    await first.bootstrap.untrusted('unknown', true)
    const second = await rig('auto', {})
    second.clock.advanceSeconds(599)
    await second.bootstrap.succeeded()
    second.clock.advanceSeconds(1)
    await second.bootstrap.untrusted('unknown', true)
    const third = await rig('auto', {})
    third.clock.advanceSeconds(1200)
    await expect(third.bootstrap.untrusted('unknown', true)).rejects.toMatchObject({
      code: 'rebootstrapping',
    })
  })
})

describe('a node that can’t attest again', () => {
  const once = { ...attested, reattestable: false }

  test('has no mode always', async () => {
    const r = await rig('always', once)
    expect(() => r.bootstrap.requireReattestable()).toThrow(NOT_ALLOWED)
  })

  test('has mode never in place of auto', async () => {
    const r = await rig('auto', once)
    r.bootstrap.requireReattestable()
    expect(r.said()[0]).toMatch(NOT_ALLOWED)
    expect(r.bootstrap.startMsMax).toBe(60_000)
    await expect(r.bootstrap.untrusted('unknown', true)).rejects.toMatchObject({
      code: 'server_untrusted',
    })
  })

  test.each([
    ['never', once],
    ['always', attested],
    ['always', {}],
  ] as const)('is not said of mode %s with %o', async (mode, data) => {
    const r = await rig(mode, data)
    r.bootstrap.requireReattestable()
    expect(r.said()).toEqual([])
  })
})
