import { expect, test } from 'vitest'
import { SignetError } from '../../../src/base/error.ts'
import { createHealth } from '../../../src/base/http-health.ts'
import type { IssuerSource } from '../../../src/ca/issuer-source.ts'
import { addServerChecks } from '../../../src/server/health/checks.ts'
import type { Bundle } from '../../../src/spiffe/bundle.ts'
import { FakeClock } from '../../fakes/fake-clock.ts'
import { createMemoryLog } from '../../fakes/memory-log.ts'

const EXPIRED = new SignetError('unavailable', 'x509_authority_expired', 'authority is expired')

function setUp() {
  const health = createHealth(
    new FakeClock(),
    createMemoryLog(),
    { livePath: '/live', readyPath: '/ready' },
    1_000,
  )
  const now = { serving: true, bundle: true, x509: true, jwt: true, failedTicks: 0, feed: true }
  const issuers = {
    x509Issuer: () => {
      if (!now.x509) throw EXPIRED
    },
    jwtIssuer: () => {
      if (!now.jwt) throw EXPIRED
    },
  } as unknown as IssuerSource
  const add = (jwtSvidsDisabled = false) =>
    addServerChecks(health, {
      bundles: { ownBundle: async () => (now.bundle ? ({} as Bundle) : undefined) },
      issuers,
      rotator: { failedTicks: () => now.failedTicks },
      feed: { isConnected: () => now.feed },
      isServing: () => now.serving,
      jwtSvidsDisabled,
    })
  const ask = async () => {
    await health.step()
    const [live, ready] = [health.answer('/live'), health.answer('/ready')]
    return { live: live.status, ready: ready.status, details: JSON.parse(ready.body) }
  }
  return { add, ask, now }
}

test('all is well', async () => {
  const rig = setUp()
  rig.add()
  expect(await rig.ask()).toEqual({
    live: 200,
    ready: 200,
    details: {
      'catalog.datastore': {},
      server: {},
      'server.ca': {},
      'server.ca.rotator': {},
    },
  })
})

test.each([
  ['the doors are closed', { serving: false }, 500, 'server'],
  ['there is no bundle', { bundle: false }, 500, 'server'],
  ['no X.509 authority is usable', { x509: false }, 500, 'server.ca'],
  ['no JWT key is usable', { jwt: false }, 500, 'server.ca'],
  ['rotation fails again and again', { failedTicks: 3 }, 500, 'server.ca.rotator'],
] as const)('%s: not live, not ready', async (_name, change, status, subsystem) => {
  const rig = setUp()
  rig.add()
  Object.assign(rig.now, change)
  const { live, ready, details } = await rig.ask()
  expect([live, ready]).toEqual([status, status])
  expect(details[subsystem]).not.toEqual({})
})

test('a database that is away: not ready, but alive', async () => {
  const rig = setUp()
  rig.add()
  rig.now.feed = false
  expect(await rig.ask()).toMatchObject({
    live: 200,
    ready: 500,
    details: { 'catalog.datastore': { list_bundle_err: 'PostgreSQL is away' } },
  })
})

test('without JWT-SVIDs no JWT key is asked for', async () => {
  const rig = setUp()
  rig.add(true)
  rig.now.jwt = false
  expect(await rig.ask()).toMatchObject({ ready: 200 })
})
