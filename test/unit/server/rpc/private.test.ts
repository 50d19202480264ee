/** Debug and Health, which the admin socket alone serves. */
import { describe, expect, test } from 'vitest'
import { SignetError } from '../../../../src/base/error.ts'
import { createDebugHandlers } from '../../../../src/server/rpc/debug/v1/handlers.ts'
import { createHealthHandlers } from '../../../../src/server/rpc/health/v1/handlers.ts'
import type { Bundle } from '../../../../src/spiffe/bundle.ts'
import type { Certificate } from '../../../../src/x509/certificate.ts'
import { encodeName } from '../../../../src/x509/name.ts'
import { FakeClock } from '../../../fakes/fake-clock.ts'
import { ADMIN, contextOf, NOW, portsWith } from './rig.ts'

const away = new SignetError('unavailable', 'database', 'database is unavailable')

describe('Debug', () => {
  function debugging(change: Parameters<typeof portsWith>[0] = {}) {
    const clock = new FakeClock(NOW)
    let readings = 0
    const leaf = { uriNames: ['spiffe://example.org/spire/server'], notAfter: NOW + 1 }
    const root = { uriNames: [], notAfter: NOW + 2 }
    const chain = [leaf, root].map((part) => ({
      ...part,
      subject: encodeName({ country: ['US'], organization: ['SPIRE'] } as never),
    })) as unknown as Certificate[]
    const ports = portsWith({
      clock,
      agentStore: { countAgents: async () => ++readings },
      entryStore: { countEntries: async () => 20 },
      bundleStore: { countBundles: async () => 30 },
      identity: { verifiedChain: async () => chain },
      ...change,
    })
    return { clock, getInfo: createDebugHandlers(ports).getInfo, readings: () => readings }
  }

  test('tells counts, uptime and the chain up to a root without an ID', async () => {
    const { clock, getInfo } = debugging()
    clock.advanceSeconds(90)
    const info = await getInfo()
    expect(info).toMatchObject({
      uptime: 90,
      agentsCount: 1,
      entriesCount: 20,
      federatedBundlesCount: 30,
    })
    expect(info.svidChain.map(({ id, expiresAt }) => [id?.path, expiresAt])).toEqual([
      ['/spire/server', BigInt(NOW + 1)],
      [undefined, BigInt(NOW + 2)],
    ])
  })

  test('is remembered for five seconds', async () => {
    const { clock, getInfo, readings } = debugging()
    await Promise.all([getInfo(), getInfo()])
    clock.advanceMs(4_999)
    await getInfo()
    expect(readings()).toBe(1)
    clock.advanceMs(1)
    expect((await getInfo()).agentsCount).toBe(2)
  })

  test('a failed reading is not remembered', async () => {
    const answers: (() => Promise<number>)[] = [() => Promise.reject(away), async () => 1]
    const { getInfo } = debugging({ entryStore: { countEntries: () => answers.shift()!() } })
    await expect(getInfo()).rejects.toMatchObject({
      kind: 'unavailable',
      message: 'failed to count entries: database is unavailable',
    })
    expect((await getInfo()).entriesCount).toBe(1)
  })
})

describe('Health', () => {
  const check = (ownBundle: () => Promise<Bundle | undefined>, service = '') =>
    createHealthHandlers(portsWith({ bundles: { ownBundle } })).check({ service }, contextOf(ADMIN))

  test('serves while the own bundle is readable', async () => {
    expect(await check(async () => ({}) as Bundle)).toEqual({ status: 1 })
    expect(await check(async () => undefined)).toEqual({ status: 2 })
    expect(await check(() => Promise.reject(away))).toEqual({ status: 2 })
  })

  test('knows no single services', async () => {
    await expect(check(async () => undefined, 'x')).rejects.toMatchObject({
      kind: 'invalid_argument',
      message: 'per-service health is not supported',
    })
  })
})
