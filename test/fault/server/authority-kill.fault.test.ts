/**
 * The server process killed while an authority is prepared and not yet active (F09): the next one goes
 * on with that authority, makes no second one, and nobody holds an SVID whose authority was unknown.
 */
import type { Client } from '@grpc/grpc-js'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { BundleService } from '../../../src/wire/gen/spire/api/server/bundle/v1/bundle.ts'
import { SVIDService } from '../../../src/wire/gen/spire/api/server/svid/v1/svid.ts'
import { call, LiveServer } from '../../rigs/live-server.ts'
import { until } from '../../rigs/until.ts'

/** Prepared after half of it, activated when a sixth is left; looked at every 10 s and at each start. */
const CA_TTL_SECONDS = 40

let server: LiveServer
let admin: Client

beforeAll(async () => {
  server = await LiveServer.start({
    server: `ca_ttl = "${CA_TTL_SECONDS}s"\n default_x509_svid_ttl = "6s"\n agent_ttl = "6s"`,
  })
  admin = server.admin
})
afterAll(() => server?.[Symbol.asyncDispose]())

interface Row extends Record<string, string> {
  id: string
  slot: string
  state: string
  authority_id: string
  not_after: string
}

async function authorities(): Promise<Row[]> {
  return (await server.rows(
    `select id, not_after, cluster_id || ' ' || kind as slot, state, authority_id
     from signet.authority where kind <> 'x509_root' order by id`,
  )) as Row[]
}

async function publishedKeys(): Promise<string[]> {
  const bundle = await call(admin, BundleService.getBundle, { outputMask: undefined })
  return bundle.value!.jwtAuthorities.map(({ keyId }) => keyId)
}

async function mintedKey(): Promise<string> {
  const id = { trustDomain: 'example.org', path: '/m' }
  const minted = await call(admin, SVIDService.mintJwtsvid, { id, audience: ['a'], ttl: 5 })
  expect(minted.details).toBe('')
  const header = minted.value!.svid!.token.split('.')[0]!
  return JSON.parse(Buffer.from(header, 'base64url').toString()).kid
}

async function killAndStart(): Promise<void> {
  await server.daemon.stop('SIGKILL')
  server.daemon = await server.deployment.startServer()
}

/** What signs is published, at each moment (I2), and no slot has two prepared ones (I6). */
async function expectSound(): Promise<Row[]> {
  expect(await publishedKeys()).toContain(await mintedKey())
  const rows = await authorities()
  const prepared = rows.filter(({ state }) => state === 'prepared').map(({ slot }) => slot)
  expect(new Set(prepared).size).toBe(prepared.length)
  return rows
}

function untilLeft(rows: readonly Row[], seconds: number): Promise<unknown> {
  const due = Math.min(...rows.map(({ not_after }) => Number(not_after))) - seconds
  return until('the time', () => Date.now() / 1000 > due, CA_TTL_SECONDS * 1000)
}

test('killed between preparing and activating: the prepared ones are used', async () => {
  const first = await authorities()
  const slots = first.map(({ slot }) => slot).sort()
  expect(first.every(({ state }) => state === 'active')).toBe(true)
  await untilLeft(first, CA_TTL_SECONDS / 2)
  await killAndStart()
  const prepared = (await expectSound()).filter(({ state }) => state === 'prepared')
  expect(prepared.map(({ slot }) => slot).sort()).toEqual(slots)

  await killAndStart()
  const again = await expectSound()
  expect(again.map(({ id }) => id)).toEqual([...first, ...prepared].map(({ id }) => id))

  await untilLeft(first, CA_TTL_SECONDS / 6)
  await killAndStart()
  const rows = await expectSound()
  for (const { id, authority_id } of prepared) {
    expect(rows.find((row) => row.id === id)).toMatchObject({ state: 'active', authority_id })
  }
  // One of each kind came to the first ones; none was lost, none made twice.
  expect(rows).toHaveLength(2 * slots.length)
  expect(prepared.map(({ authority_id }) => authority_id)).toContain(await mintedKey())
}, 120_000)
