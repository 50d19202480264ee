/** What one user may hold open on the agent's socket: at the limit and one beyond (T-W6). */
import { mkdtemp, rm } from 'node:fs/promises'
import { connect as connectHttp2 } from 'node:http2'
import { connect, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Server } from '@grpc/grpc-js'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { listenUnix, type UnixListener } from '../../../src/agent/workload-api/connections.ts'
import { startPublicServer } from '../../../src/agent/workload-api/servers.ts'
import {
  HEADER_LIST_BYTES_MAX,
  WORKLOAD_CONNECTIONS_PER_UID_MAX,
  WORKLOAD_STREAMS_PER_CONNECTION_MAX,
} from '../../../src/base/limits.ts'
import { FakeClock } from '../../fakes/fake-clock.ts'
import { createMemoryLog, createMemoryMetrics } from '../../fakes/memory-log.ts'
import { until } from '../../rigs/until.ts'

const clock = new FakeClock()
const attestation = { attest: async () => [] }
let path: string
let dir: string
const sockets: Socket[] = []

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'limits-'))
  path = join(dir, 'api.sock')
})
afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy()
  await rm(dir, { recursive: true, force: true })
})

function open(): Promise<'open' | 'closed'> {
  const socket = connect(path)
  sockets.push(socket)
  socket.on('error', () => {})
  return new Promise((resolve) => {
    socket.once('close', () => resolve('closed'))
    // HTTP/2 servers speak first.
    socket.once('data', () => resolve('open'))
    socket.write('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n')
  })
}

async function openUntil(listener: UnixListener, count: number): Promise<void> {
  while (listener.connectionCount < count) {
    const missing = Math.min(200, count - listener.connectionCount)
    const answers = await Promise.all(Array.from({ length: missing }, open))
    expect(new Set(answers)).toEqual(new Set(['open']))
  }
}

test(`of one user ${WORKLOAD_CONNECTIONS_PER_UID_MAX} connections are served, one more is not`, async () => {
  const log = createMemoryLog()
  const server = new Server()
  await using listener = await listenUnix({ path, mode: 0o777, server, attestation, clock, log })
  await openUntil(listener, WORKLOAD_CONNECTIONS_PER_UID_MAX)
  expect(log.lines).toEqual([])
  expect(await open()).toBe('closed')
  expect(log.lines.at(-1)).toMatchObject({
    message: 'Connection refused: too many connections',
    fields: { uid: process.getuid?.() },
  })
  expect(listener.connectionCount).toBe(WORKLOAD_CONNECTIONS_PER_UID_MAX)

  sockets[0]!.destroy()
  await until('its place', () => listener.connectionCount < WORKLOAD_CONNECTIONS_PER_UID_MAX)
  expect(await open()).toBe('open')
  expect(await open()).toBe('closed')
  server.forceShutdown()
}, 60_000)

test('the settings announced to workloads hold the limits of streams and headers', async () => {
  const ports = { clock, log: createMemoryLog(), metrics: createMemoryMetrics() }
  const isServing = async () => true
  const options = { ...ports, attestation, isServing, path, workloadApi: undefined }
  const server = await startPublicServer(options)
  const session = connectHttp2('http://localhost', { createConnection: () => connect(path) })
  const settings = await new Promise((resolve) => session.once('remoteSettings', resolve))
  expect(settings).toMatchObject({
    maxConcurrentStreams: WORKLOAD_STREAMS_PER_CONNECTION_MAX,
    maxHeaderListSize: HEADER_LIST_BYTES_MAX,
  })
  session.destroy()
  const stopped = server[Symbol.asyncDispose]()
  await until('the end', async () => {
    clock.advanceSeconds(10)
    return Promise.race([
      stopped.then(() => true),
      new Promise((r) => setImmediate(() => r(false))),
    ])
  })
})
