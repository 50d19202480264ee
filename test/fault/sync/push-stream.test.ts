/** The push stream over real gRPC on a socket: a good client, and one that never reads. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { credentials, Server, ServerCredentials, status } from '@grpc/grpc-js'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { SYNC_CLOSE_AFTER_MS, SYNC_MESSAGE_BYTES } from '../../../src/base/limits.ts'
import type { Connection } from '../../../src/server/connection.ts'
import { addRoutes } from '../../../src/server/rpc/door.ts'
import { type Route, stream } from '../../../src/server/rpc/route.ts'
import {
  SyncClient,
  type SyncResponse,
  SyncService,
} from '../../../src/wire/gen/signet/sync/v1/sync.ts'
import { fromGrpcError } from '../../../src/wire/status.ts'
import type { Certificate } from '../../../src/x509/certificate.ts'
import { makeAgent, makeEntry } from '../../fakes/make-entry.ts'
import { createSeededRandom } from '../../fakes/seeded-random.ts'
import { silentLog } from '../../rigs/silent-log.ts'
import { SyncRig } from '../../rigs/sync-rig.ts'

const AGENT = makeAgent('/spire/agent/test/a')
/** 40 KB each: 1,000 of them are far more than sockets buffer. */
const selectors = Array.from({ length: 400 }, (_, n) => `k8s:pod-label:${n}:${'x'.repeat(80)}`)

let rig: SyncRig
let client: SyncClient
let encodedBytes = 0
let closed = 0
const cleanups: (() => void)[] = []

beforeEach(async () => {
  rig = await SyncRig.start()
  await rig.putAgent(AGENT.id.path, {})
  const directory = mkdtempSync(join(tmpdir(), 'signet-push-'))
  const address = `unix:${join(directory, 's')}`
  const server = new Server()
  const leaf = { serialNumber: Uint8Array.of(1), notAfter: 2_000_000_000 } as Certificate
  const connection: Connection = {
    peer: 'peer',
    transport: 'tcp',
    remoteIp: '127.0.0.1',
    chain: [leaf],
    spiffeId: AGENT.id,
    close: () => {
      closed += 1
      server.forceShutdown()
    },
  }
  encodedBytes = 0
  closed = 0
  addRoutes(server, [counted(stream(SyncService.subscribe, ['agent'], rig.service.subscribe))], {
    clock: rig.clock,
    random: createSeededRandom(),
    log: silentLog,
    metrics: { counter: () => {}, gauge: () => {}, sample: () => {} },
    connections: { get: () => connection, closeWhere: () => {} },
    authorize: async () => ({ kind: 'agent', via: 'datastore', spiffeId: AGENT.id, agent: AGENT }),
    rateLimiter: { wait: async () => {}, [Symbol.dispose]: () => {} },
    auditLogEnabled: false,
  })
  await new Promise<void>((resolve, reject) => {
    server.bindAsync(address, ServerCredentials.createInsecure(), (error) =>
      error ? reject(error) : resolve(),
    )
  })
  client = new SyncClient(address, credentials.createInsecure())
  cleanups.push(() => rmSync(directory, { recursive: true }))
  cleanups.push(() => server.forceShutdown())
  cleanups.push(() => client.close())
  cleanups.push(() => rig.service[Symbol.dispose]())
})

afterEach(() => {
  for (const cleanup of cleanups.splice(0).reverse()) cleanup()
})

function counted(route: Route): Route {
  if (route.kind !== 'stream') throw new Error('the route is a stream')
  const encode = (response: unknown) => {
    const bytes = route.encode(response)
    encodedBytes += bytes.length
    return bytes
  }
  return { ...route, encode }
}

function subscribe() {
  const call = client.subscribe()
  const ended = new Promise<unknown>((resolve) => {
    call.on('error', (error) => resolve(error))
    call.on('end', () => resolve(undefined))
  })
  call.write({ hello: { cursor: '', bundleSequence: 0n, agentVersion: '' } })
  return { call, ended }
}

test('snapshot, push and the reason of a ban arrive over the wire', async () => {
  await rig.putEntries(makeEntry({ id: 'one' }))
  const { call, ended } = subscribe()
  const received: SyncResponse[] = []
  call.on('data', (message: SyncResponse) => received.push(message))
  await expect.poll(() => received.at(-1)?.snapshotEnd?.entryCount).toBe(1)
  await rig.putEntries(makeEntry({ id: 'two' }))
  await expect.poll(() => received.at(-1)?.delta?.entriesUpserted[0]?.id).toBe('two')
  await rig.putAgent(AGENT.id.path, { serialNumber: '' })
  const error = await ended
  expect(error).toMatchObject({ code: status.PERMISSION_DENIED })
  expect(fromGrpcError(error).denial).toBe('agent_banned')
})

test('a client that never reads holds a few messages, and loses its connection when banned', async () => {
  const entries = Array.from({ length: 1_000 }, (_, n) => makeEntry({ id: `e${n}`, selectors }))
  await rig.putEntries(...entries)
  const { ended } = subscribe()
  await expect.poll(() => rig.service.agent(AGENT.id)?.isConnected).toBe(true)
  await expect.poll(() => encodedBytes).toBeGreaterThan(0)
  for (let round = 0; round < 30; round++) {
    const revisionNumber = BigInt(round + 1)
    await rig.putEntries(...entries.slice(0, 200).map((entry) => ({ ...entry, revisionNumber })))
    await new Promise((resolve) => setImmediate(resolve))
  }
  // 30 rounds of 8 MB were owed; what was made is what sockets and HTTP/2 windows took.
  expect(encodedBytes).toBeLessThan(8 * SYNC_MESSAGE_BYTES)
  await rig.putAgent(AGENT.id.path, { serialNumber: '' })
  await expect.poll(() => rig.service.agent(AGENT.id)?.isConnected).toBe(false)
  rig.clock.advanceMs(SYNC_CLOSE_AFTER_MS)
  await expect.poll(() => closed).toBe(1)
  await ended
})
