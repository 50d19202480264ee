/** The routing table against the specification's RPC tables and the generated services. */
import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import type { Route } from '../../../../src/server/rpc/route.ts'
import { createTcpRoutes, createUdsRoutes } from '../../../../src/server/rpc/routes.ts'
import { HealthService } from '../../../../src/wire/gen/grpc/health/v1/health.ts'
import { SyncService } from '../../../../src/wire/gen/signet/sync/v1/sync.ts'
import { AgentService } from '../../../../src/wire/gen/spire/api/server/agent/v1/agent.ts'
import { BundleService } from '../../../../src/wire/gen/spire/api/server/bundle/v1/bundle.ts'
import { DebugService } from '../../../../src/wire/gen/spire/api/server/debug/v1/debug.ts'
import { EntryService } from '../../../../src/wire/gen/spire/api/server/entry/v1/entry.ts'
import { LocalAuthorityService } from '../../../../src/wire/gen/spire/api/server/localauthority/v1/localauthority.ts'
import { LoggerService } from '../../../../src/wire/gen/spire/api/server/logger/v1/logger.ts'
import { SVIDService } from '../../../../src/wire/gen/spire/api/server/svid/v1/svid.ts'
import { TrustDomainService } from '../../../../src/wire/gen/spire/api/server/trustdomain/v1/trustdomain.ts'
import { portsWith } from './rig.ts'

const PUBLIC_SERVICES = [
  AgentService,
  BundleService,
  EntryService,
  SVIDService,
  TrustDomainService,
  LocalAuthorityService,
]
const PRIVATE_SERVICES = [DebugService, LoggerService, HealthService]

const LIMITS: Record<string, string> = {
  none: 'none',
  ATT: 'attest',
  CSR: 'csr',
  JWT: 'jwt',
  KEY: 'key',
  POST: 'post',
}

const ports = portsWith({})
const tcp = byPath(createTcpRoutes(ports, async () => {}))
const uds = byPath(createUdsRoutes(ports))

describe('every method of every service has a row', () => {
  test('on TCP', () => {
    const expected = [...pathsOf(PUBLIC_SERVICES), ...pathsOf([SyncService])]
    expect([...tcp.keys()].sort()).toEqual(expected.sort())
  })

  test('on the admin socket', () => {
    const expected = pathsOf([...PUBLIC_SERVICES, ...PRIVATE_SERVICES])
    expect([...uds.keys()].sort()).toEqual(expected.sort())
  })

  test('what is private is not served on TCP', () => {
    for (const path of pathsOf(PRIVATE_SERVICES)) expect(tcp.has(path), path).toBe(false)
  })
})

test.each([
  [
    SVIDService.newJwtsvid.path,
    { entryId: 'e', audience: ['a', 'b'] },
    { entry_id: 'e', audience: 'a,b' },
  ],
  [AgentService.renewAgent.path, { params: { csr: Buffer.of(1) } }, { csr: expect.any(String) }],
  [AgentService.renewAgent.path, { params: undefined }, {}],
  [BundleService.publishJwtAuthority.path, { jwtAuthority: undefined }, {}],
])('the audit of a limited %s names what was asked', (path, request, fields) => {
  const route = tcp.get(path)!
  const row = route.kind === 'unary' ? route.rateLimit : undefined
  expect(row?.auditFields?.(request)).toEqual(fields)
})

describe('rows say what the specification says', () => {
  const rows = readFileSync(new URL('../../../vectors/wire/routes.tsv', import.meta.url), 'utf8')
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#'))
    .map((line) => line.split('\t') as [string, string, string, string])

  test('the table is whole', () => {
    expect(rows.map(([path]) => path).sort()).toEqual([...uds.keys()].sort())
  })

  test.each(rows)('%s (%s) is for %s, limit %s', (path, kind, callers, limit) => {
    const route = uds.get(path)!
    expect([...route.callers].sort().join('+')).toBe(callers.split('+').sort().join('+'))
    const isStream = route.kind === 'unimplemented' ? route.streams : route.kind === 'stream'
    expect(isStream).toBe(kind !== 'unary')
    if (route.kind === 'unimplemented') expect(route.reason).not.toBe('')
    else expect(route.rateLimit?.name ?? 'none').toBe(LIMITS[limit.split(' ')[0]!])
  })
})

test('a batch costs what it holds', () => {
  const route = uds.get('/spire.api.server.svid.v1.SVID/BatchNewX509SVID')!
  if (route.kind !== 'unary') throw new Error('unary')
  const params = [0, 1, 2].map(() => ({ entryId: '', csr: new Uint8Array() }))
  expect(route.rateLimit?.cost({ message: new Uint8Array(), params })).toBe(3)
})

test('the push stream is for agents', () => {
  expect(tcp.get('/signet.sync.v1.Sync/Subscribe')).toMatchObject({
    kind: 'stream',
    callers: ['agent'],
  })
})

function byPath(routes: readonly Route[]): Map<string, Route> {
  const map = new Map(routes.map((route) => [route.path, route]))
  expect(map.size, 'no path twice').toBe(routes.length)
  return map
}

function pathsOf(services: readonly object[]): string[] {
  return services.flatMap((service) =>
    Object.values(service as Record<string, { path: string }>).map((method) => method.path),
  )
}
