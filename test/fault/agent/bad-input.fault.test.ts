/**
 * Workloads that send anything (T-W2, T-W6, T-W7, F18, F19) to a running agent: a typed status each,
 * nothing without the header, and an agent that serves the others meanwhile and afterwards.
 */
import { randomBytes } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { type ClientHttp2Session, connect } from 'node:http2'
import { createConnection } from 'node:net'
import { gzipSync } from 'node:zlib'
import { Client, credentials, Metadata, status } from '@grpc/grpc-js'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { WORKLOAD_REQUEST_BYTES_MAX } from '../../../src/base/limits.ts'
import { SpiffeWorkloadAPIService } from '../../../src/wire/gen/workload.ts'
import { Deployment } from '../../interop/rig.ts'
import type { Daemon } from '../../rigs/process.ts'
import { until } from '../../rigs/until.ts'

const RSS_GROWTH_MAX = 200 * 1024 * 1024
const PATHS = Object.values(SpiffeWorkloadAPIService).map(({ path }) => path as string)
const { fetchJwtsvid, fetchX509Svid, validateJwtsvid } = SpiffeWorkloadAPIService

let deployment: Deployment
let agent: Daemon
let client: Client
let baseline: number

beforeAll(async () => {
  deployment = await Deployment.create('signet')
  await deployment.startServer({})
  const token = await deployment.joinToken('spiffe://example.org/node')
  agent = await deployment.startAgent('signet', { args: ['-joinToken', token] })
  await deployment.createEntry([
    ...['-parentID', 'spiffe://example.org/node', '-spiffeID', 'spiffe://example.org/w'],
    ...['-selector', `unix:uid:${process.getuid?.()}`],
  ])
  client = new Client(`unix:${deployment.agentSocket()}`, credentials.createInsecure(), {
    'grpc.default_authority': 'localhost',
    'grpc.max_send_message_length': -1,
  })
  await until('an identity', isServed)
  baseline = residentBytes()
}, 120_000)
afterAll(async () => {
  client?.close()
  await deployment?.[Symbol.asyncDispose]()
})
afterEach(async () => {
  expect(agent.exitCode).toBeUndefined()
  expect(await isServed()).toBe(true)
  expect(residentBytes() - baseline).toBeLessThan(RSS_GROWTH_MAX)
})

interface Outcome {
  readonly code: number
  readonly details: string
  readonly bytes: Buffer
}

/** The first message or the status of a call whose request is `body`. */
function send(path: string, body: Uint8Array, withHeader = true): Promise<Outcome> {
  const same = (bytes: Buffer) => bytes
  const metadata = new Metadata()
  if (withHeader) metadata.set('workload.spiffe.io', 'true')
  return new Promise((resolve) => {
    // A unary answer is a stream of one.
    const stream = client.makeServerStreamRequest(path, same, same, Buffer.from(body), metadata, {
      deadline: Date.now() + 10_000,
    })
    stream.once('data', (bytes: Buffer) => {
      resolve({ code: status.OK, details: '', bytes })
      stream.cancel()
    })
    stream.on('error', (error: { code?: number; details?: string }) =>
      resolve({ code: error.code ?? -1, details: error.details ?? '', bytes: Buffer.alloc(0) }),
    )
  })
}

async function isServed(): Promise<boolean> {
  const { bytes } = await send(fetchX509Svid.path, new Uint8Array())
  return bytes.includes('spiffe://example.org/w')
}

function residentBytes(): number {
  const text = readFileSync(`/proc/${agent.pid}/status`, 'utf8')
  return Number(/^VmRSS:\s+(\d+)/m.exec(text)?.[1]) * 1024
}

describe('requests', () => {
  test.each<[string, Uint8Array]>([
    ['noise', randomBytes(1_000)],
    ['a field longer than the message', Buffer.of(0x0a, 0x7f, 1)],
    ['a varint without end', Buffer.alloc(64, 0xff)],
    ['groups, 100,000 deep', Buffer.alloc(100_000, 0x0b)],
    ['no UTF-8', Buffer.of(0x0a, 0x02, 0xff, 0xfe)],
    ['field number 0', Buffer.of(0x02, 0x01, 0x41)],
  ])('%s to every method', async (_, body) => {
    for (const path of PATHS) {
      const { code, details } = await send(path, body)
      const what = `${path}: ${code} ${details}`
      expect([status.UNKNOWN, status.UNAVAILABLE, status.DEADLINE_EXCEEDED], what).not.toContain(
        code,
      )
      expect(details.length).toBeLessThan(300)
    }
  })

  test('without the header nothing, whatever the message', async () => {
    for (const path of PATHS) {
      for (const body of [new Uint8Array(), randomBytes(100)]) {
        const { code, bytes } = await send(path, body, false)
        expect([path, bytes.length]).toEqual([path, 0])
        expect([status.INVALID_ARGUMENT, status.INTERNAL]).toContain(code)
      }
    }
  })

  test('the largest there may be, and one byte more', async () => {
    for (const path of PATHS) {
      const over = await send(path, new Uint8Array(WORKLOAD_REQUEST_BYTES_MAX + 1))
      expect([path, over.code]).toEqual([path, status.RESOURCE_EXHAUSTED])
    }
    const most = await send(fetchX509Svid.path, new Uint8Array(WORKLOAD_REQUEST_BYTES_MAX))
    expect(most.code).not.toBe(status.RESOURCE_EXHAUSTED)
  })

  test('one that unpacks to 128 MiB', async () => {
    const packed = gzipSync(Buffer.alloc(128 * 1024 * 1024), { level: 9 })
    const before = residentBytes()
    const head = Buffer.alloc(5)
    head[0] = 1
    head.writeUInt32BE(packed.length, 1)
    const session = open()
    const stream = session.request({ ...headers(fetchX509Svid.path), 'grpc-encoding': 'gzip' })
    const code = new Promise((resolve) => {
      stream.on('response', (fields) => resolve(fields['grpc-status']))
      stream.on('trailers', (fields) => resolve(fields['grpc-status']))
      stream.on('error', () => resolve('reset'))
    })
    stream.resume()
    stream.end(Buffer.concat([head, packed]))
    expect(['8', '12', '13', 'reset']).toContain(await code)
    session.destroy()
    expect(residentBytes() - before).toBeLessThan(100 * 1024 * 1024)
  })
})

describe('tokens and audiences', () => {
  const jwt = (head: object, body: object | string) =>
    `${encode(head)}.${typeof body === 'string' ? body : encode(body)}.${'A'.repeat(86)}`
  const encode = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url')
  test.each<[string, string]>([
    ['empty', ''],
    ['noise', 'x'],
    ['dots', '.'.repeat(1_000)],
    ['alg none', jwt({ alg: 'none' }, { sub: 'spiffe://example.org/w', aud: 'a', exp: 9e9 })],
    ['alg HS256', jwt({ alg: 'HS256', kid: 'x' }, { sub: 'spiffe://example.org/w', aud: 'a' })],
    ['an unknown key', jwt({ alg: 'ES256', kid: '../x' }, { sub: 'spiffe://example.org/w' })],
    ['no ID', jwt({ alg: 'ES256', kid: 'x' }, { sub: 7 })],
    [
      'nested',
      jwt({ alg: 'ES256', kid: 'x' }, Buffer.from('['.repeat(20_000)).toString('base64url')),
    ],
    ['large', 'x'.repeat(200_000)],
    ['a NUL', 'a\0b'],
  ])('a token that is %s is refused, not repeated', async (_, svid) => {
    const body = validateJwtsvid.requestSerialize({ svid, audience: 'a' })
    const { code, details } = await send(validateJwtsvid.path, body)
    expect(code).toBe(status.INVALID_ARGUMENT)
    if (svid.length > 8) expect(details).not.toContain(svid.slice(0, 40))
    expect(details.length).toBeLessThan(400)
  })

  // What the server refuses is Unavailable to workloads, with its reason, as SPIRE's agent has it.
  test.each<[string, string[], string, number, string]>([
    ['none', [], '', status.INVALID_ARGUMENT, 'audience must be specified'],
    ['thousands', Array(5_000).fill('a'), '', status.UNAVAILABLE, 'too many audiences'],
    ['large ones', ['x'.repeat(100_000)], '', status.UNAVAILABLE, 'audience is too long'],
    ['for no ID', ['a'], 'x'.repeat(100_000), status.INVALID_ARGUMENT, 'invalid'],
    ['for a foreign ID', ['a'], 'spiffe://other.org/x', status.PERMISSION_DENIED, 'no identity'],
  ])('audiences: %s', async (_, audience, spiffeId, code, text) => {
    const body = fetchJwtsvid.requestSerialize({ audience, spiffeId })
    const refused = await send(fetchJwtsvid.path, body)
    expect(refused).toMatchObject({ code, details: expect.stringContaining(text) })
    expect(refused.details.length).toBeLessThan(3_000)
  })
})

describe('connections', () => {
  test('streams that are never read cost little, others are served', async () => {
    const before = residentBytes()
    const session = open({ initialWindowSize: 0 })
    for (let n = 0; n < 500; n++) {
      const stream = session.request(headers(fetchX509Svid.path))
      stream.on('error', () => {})
      stream.end(Buffer.alloc(5))
    }
    for (let n = 0; n < 20; n++) expect(await isServed()).toBe(true)
    expect(residentBytes() - before).toBeLessThan(100 * 1024 * 1024)
    session.destroy()
  })

  test('a thousand that say nothing, noise or half a preface give their descriptors back', async () => {
    const count = () => readdirSync(`/proc/${agent.pid}/fd`).length
    const before = count()
    for (let round = 0; round < 10; round++) {
      const sockets = Array.from({ length: 100 }, (_, n) => {
        const socket = createConnection(deployment.agentSocket())
        socket.on('error', () => {})
        socket.resume()
        socket.write([randomBytes(64), Buffer.from('PRI * HTTP/2.0\r\n'), Buffer.of(0)][n % 3]!)
        return socket
      })
      expect(await isServed()).toBe(true)
      for (const socket of sockets) socket.destroy()
    }
    await until('descriptors to be given back', () => count() <= before + 5, 10_000)
  })
})

function open(settings: { initialWindowSize?: number } = {}): ClientHttp2Session {
  const session = connect('http://localhost', {
    createConnection: () => createConnection(deployment.agentSocket()),
    settings,
  })
  session.on('error', () => {})
  return session
}

function headers(path: string) {
  return {
    ':path': path,
    ':method': 'POST',
    te: 'trailers',
    'content-type': 'application/grpc',
    'workload.spiffe.io': 'true',
  }
}
