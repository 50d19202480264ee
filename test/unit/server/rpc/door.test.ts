/** The routing table served by grpc-js on a socket, called by generated clients. */
import { mkdtempSync, rmSync } from 'node:fs'
import { connect } from 'node:http2'
import { createConnection } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import {
  Client,
  credentials,
  Metadata,
  Server,
  ServerCredentials,
  type ServiceError,
} from '@grpc/grpc-js'
import { afterEach, describe, expect, test } from 'vitest'
import { SignetError } from '../../../../src/base/error.ts'
import { TwoForms } from '../../../../src/base/log-text.ts'
import type { Authorize } from '../../../../src/server/authz/authorize.ts'
import type { Connection } from '../../../../src/server/connection.ts'
import type { RateLimitCall } from '../../../../src/server/rate-limit.ts'
import { addRoutes, type DoorPorts } from '../../../../src/server/rpc/door.ts'
import { type Route, stream, unary, unimplemented } from '../../../../src/server/rpc/route.ts'
import { batchNewX509SvidMethod } from '../../../../src/server/rpc/svid/v1/codec.ts'
import { BundleService } from '../../../../src/wire/gen/spire/api/server/bundle/v1/bundle.ts'
import {
  EntryClient,
  EntryService,
  type SyncAuthorizedEntriesResponse,
} from '../../../../src/wire/gen/spire/api/server/entry/v1/entry.ts'
import {
  type BatchNewX509SVIDResponse,
  SVIDClient,
} from '../../../../src/wire/gen/spire/api/server/svid/v1/svid.ts'
import { fromGrpcError } from '../../../../src/wire/status.ts'
import { FakeClock } from '../../../fakes/fake-clock.ts'
import { createMemoryLog, createMemoryMetrics } from '../../../fakes/memory-log.ts'
import { createSeededRandom } from '../../../fakes/seeded-random.ts'
import { ADMIN, AGENT_CALLER, connectionOf, issuedFor } from './rig.ts'

const cleanups: (() => void)[] = []

afterEach(() => {
  for (const cleanup of cleanups.splice(0).reverse()) cleanup()
})

const allow: Authorize = async () => ADMIN
const local = connectionOf({
  transport: 'uds',
  peer: 'local-1',
  process: { pid: 1, uid: 1000, gid: 1001, path: '/bin/cli' },
})

async function serve(routes: readonly Route[], change: Partial<DoorPorts> = {}) {
  const log = createMemoryLog()
  const metrics = createMemoryMetrics()
  const directory = mkdtempSync(join(tmpdir(), 'signet-door-'))
  const path = join(directory, 'api.sock')
  const address = `unix:${path}`
  const server = new Server()
  addRoutes(server, routes, {
    clock: new FakeClock(),
    random: createSeededRandom(),
    log,
    metrics,
    connections: { get: () => local, closeWhere: () => {} },
    authorize: allow,
    rateLimiter: { wait: async () => {}, [Symbol.dispose]: () => {} },
    auditLogEnabled: true,
    ...change,
  })
  await new Promise<void>((resolve, reject) => {
    const bound = (error: Error | null) => (error ? reject(error) : resolve())
    server.bindAsync(address, ServerCredentials.createInsecure(), bound)
  })
  cleanups.push(() => {
    server.forceShutdown()
    rmSync(directory, { recursive: true, force: true })
  })
  const insecure = credentials.createInsecure()
  const entries = new EntryClient(address, insecure)
  const svids = new SVIDClient(address, insecure)
  const raw = new Client(address, insecure)
  cleanups.push(() => {
    for (const client of [entries, svids, raw]) client.close()
  })
  return { entries, svids, raw, path, log, metrics }
}

function call<T>(
  start: (done: (error: ServiceError | null, value: T) => void) => unknown,
): Promise<T> {
  return new Promise((resolve, reject) => {
    start((error, value) => (error ? reject(fromGrpcError(error)) : resolve(value)))
  })
}

const countEntries = (entries: EntryClient) =>
  call<{ count: number }>((done) => entries.countEntries({ filter: undefined }, done))

describe('a unary call', () => {
  test('reaches its handler with who calls', async () => {
    const route = unary(EntryService.countEntries, ['local'], async (_request, context) => {
      expect(context).toMatchObject({
        method: '/spire.api.server.entry.v1.Entry/CountEntries',
        caller: ADMIN,
        actor: { kind: 'local', id: 'uid:1000', requestId: context.requestId },
      })
      context.audit.success()
      return { count: 3 }
    })
    const { entries, log, metrics } = await serve([route])
    expect(await countEntries(entries)).toEqual({ count: 3 })
    expect([...metrics.counters]).toEqual([['rpc.entry.v1.entry.count_entries', 1]])
    expect(log.lines).toEqual([
      {
        level: 'info',
        message: 'API accessed',
        fields: {
          service: 'entry.v1.Entry',
          method: 'CountEntries',
          request_id: expect.stringMatching(/^[0-9a-f-]{36}$/),
          authorized_as: 'local',
          authorized_via: 'transport',
          type: 'audit',
          status: 'success',
          caller_uid: 1000,
          caller_gid: 1001,
          caller_path: '/bin/cli',
        },
      },
    ])
  })

  test('that fails is logged, audited and answered with its status', async () => {
    const error = new SignetError('not_found', 'x', 'entry not found')
    const route = unary(EntryService.countEntries, ['local'], () => Promise.reject(error))
    const { entries, log } = await serve([route])
    await expect(countEntries(entries)).rejects.toMatchObject({
      kind: 'not_found',
      message: 'entry not found',
    })
    expect(log.lines.map(({ level, message }) => [level, message])).toEqual([
      ['error', 'Entry not found'],
      ['info', 'API accessed'],
    ])
    expect(log.lines[1]?.fields).toMatchObject({
      status: 'error',
      status_code: new TwoForms('NotFound', 5),
      status_message: 'entry not found',
    })
  })

  test('keeps what a broken handler says from its caller', async () => {
    const secret = new Error('secret')
    const route = unary(EntryService.countEntries, ['local'], () => Promise.reject(secret))
    const { entries, log } = await serve([route])
    const error = await countEntries(entries).catch((thrown) => thrown)
    expect(error.kind).toBe('internal')
    const requestId = log.lines[0]?.fields.request_id
    expect(error.message).toBe(`internal error (request id ${requestId})`)
    expect(log.lines[0]?.fields.error).toBe(secret)
  })

  test('whose handler throws at once is answered all the same', async () => {
    const route = unary(EntryService.countEntries, ['local'], () => {
      throw new Error('at once')
    })
    const { entries } = await serve([route])
    await expect(countEntries(entries)).rejects.toMatchObject({ kind: 'internal' })
  })

  test('that is no protobuf never reaches its handler', async () => {
    const route = unary(EntryService.countEntries, ['local'], () => Promise.reject('unreached'))
    const { raw } = await serve([route])
    const bytes = (buffer: Buffer) => buffer
    const sent = call<Buffer>((done) =>
      raw.makeUnaryRequest(
        EntryService.countEntries.path,
        bytes,
        bytes,
        Buffer.from([0xff]),
        new Metadata(),
        done as never,
      ),
    )
    await expect(sent).rejects.toMatchObject({
      kind: 'internal',
      message: 'grpc: error unmarshalling request: proto: cannot parse invalid wire-format data',
    })
  })

  test('without a row is not there', async () => {
    const { entries } = await serve([unimplemented(BundleService.getBundle, ['any'], 'later')])
    await expect(countEntries(entries)).rejects.toMatchObject({ kind: 'unimplemented' })
  })

  test('that comes later says why', async () => {
    const route = unimplemented(EntryService.countEntries, ['local'], 'not supported yet')
    const { entries } = await serve([route])
    await expect(countEntries(entries)).rejects.toMatchObject({
      kind: 'unimplemented',
      message: 'not supported yet',
    })
  })

  test('of an unknown connection is refused', async () => {
    const route = unary(EntryService.countEntries, ['any'], async () => ({ count: 1 }))
    const connections = { get: () => undefined, closeWhere: () => {} }
    const { entries } = await serve([route], { connections })
    await expect(countEntries(entries)).rejects.toMatchObject({
      kind: 'internal',
      message: 'no peer information available',
    })
  })
})

describe('authorization', () => {
  const deny: Authorize = async (_allowed, method) => {
    throw new SignetError(
      'permission_denied',
      'agent_banned',
      `authorization denied for method ${method}`,
      { denial: 'agent_banned' },
    )
  }

  test('comes before everything, and its detail arrives', async () => {
    const route = unary(EntryService.countEntries, ['agent'], () => Promise.reject('unreached'))
    const { entries, log } = await serve([route], { authorize: deny })
    await expect(countEntries(entries)).rejects.toMatchObject({
      kind: 'permission_denied',
      denial: 'agent_banned',
      message: 'authorization denied for method /spire.api.server.entry.v1.Entry/CountEntries',
    })
    expect(log.lines).toEqual([])
  })

  test('on a stream the detail comes with the first read', async () => {
    const route = stream(EntryService.syncAuthorizedEntries, ['agent'], () =>
      Promise.reject('unreached'),
    )
    const { entries } = await serve([route], { authorize: deny })
    const sync = entries.syncAuthorizedEntries()
    const error = await new Promise<unknown>((resolve) => {
      sync.on('error', resolve)
      sync.on('data', () => {})
    })
    expect(fromGrpcError(error)).toMatchObject({ denial: 'agent_banned' })
  })

  test('what is not implemented is told to nobody else', async () => {
    const route = unimplemented(EntryService.countEntries, ['local'], 'not supported yet')
    const { entries } = await serve([route], { authorize: deny })
    await expect(countEntries(entries)).rejects.toMatchObject({ kind: 'permission_denied' })
  })

  test('is asked with the row’s callers', async () => {
    const asked: unknown[] = []
    const authorize: Authorize = async (allowed, method, connection) => {
      asked.push(allowed, method, connection)
      return ADMIN
    }
    const route = unary(EntryService.countEntries, ['local', 'admin'], async () => ({ count: 0 }))
    const { entries } = await serve([route], { authorize })
    await countEntries(entries)
    expect(asked).toEqual([['local', 'admin'], EntryService.countEntries.path, local])
  })
})

describe('rate limits', () => {
  const row = {
    name: 'csr',
    reason: 'certificate signing rate limiting',
    cost: () => 7,
    auditFields: () => ({ entry_id: 'e' }),
  } as const
  const route = unary(EntryService.countEntries, ['agent'], async () => ({ count: 0 }), row)

  async function limited(connection: Connection, caller = AGENT_CALLER) {
    const waits: RateLimitCall[] = []
    const rateLimiter = {
      wait: async (waiting: RateLimitCall) => void waits.push(waiting),
      [Symbol.dispose]: () => {},
    }
    const connections = { get: () => connection, closeWhere: () => {} }
    const authorize: Authorize = async () => caller
    const { entries } = await serve([route], { rateLimiter, connections, authorize })
    await countEntries(entries)
    return waits
  }

  test('are kept by the caller’s SPIFFE ID', async () => {
    const waits = await limited(connectionOf({}))
    expect(waits).toMatchObject([{ name: 'csr', key: `${AGENT_CALLER.spiffeId}`, cost: 7 }])
  })

  test('by address for strangers', async () => {
    const waits = await limited(connectionOf({}), { kind: 'nobody', via: '' })
    expect(waits).toMatchObject([{ key: '10.0.0.1' }])
  })

  test('never on the admin socket', async () => {
    expect(await limited(local)).toEqual([])
  })

  test('say what they are for', async () => {
    const refusal = new SignetError('resource_exhausted', 'rate_limited', 'rate (7) exceeds')
    const rateLimiter = { wait: () => Promise.reject(refusal), [Symbol.dispose]: () => {} }
    const connections = { get: () => connectionOf({}), closeWhere: () => {} }
    const { entries, log } = await serve([route], { rateLimiter, connections })
    const message = 'rejecting request due to certificate signing rate limiting: rate (7) exceeds'
    await expect(countEntries(entries)).rejects.toMatchObject({
      kind: 'resource_exhausted',
      message,
    })
    // The audit record names what was asked for, although no handler saw it.
    expect(log.lines.filter(({ fields }) => fields.type === 'audit')).toMatchObject([
      { fields: { entry_id: 'e', status: 'error', status_message: message } },
    ])
  })
})

describe('a stream', () => {
  const message = (more: boolean): SyncAuthorizedEntriesResponse => ({
    entries: [],
    entryRevisions: [],
    more,
  })

  test('carries messages both ways and ends well', async () => {
    const route = stream(EntryService.syncAuthorizedEntries, ['agent'], async (sync) => {
      const ids: string[][] = []
      for (;;) {
        const request = await sync.receive()
        if (request === undefined) break
        ids.push(request.ids)
        await sync.send(message(true))
      }
      expect(ids).toEqual([['a'], ['b', 'c']])
      await sync.send(message(false))
    })
    const { entries, metrics } = await serve([route])
    const sync = entries.syncAuthorizedEntries()
    const received: boolean[] = []
    sync.on('data', (response: SyncAuthorizedEntriesResponse) => received.push(response.more))
    const ended = new Promise((resolve, reject) => sync.on('end', resolve).on('error', reject))
    sync.write({ ids: ['a'], outputMask: undefined })
    sync.write({ ids: ['b', 'c'], outputMask: undefined })
    sync.end()
    await ended
    expect(received).toEqual([true, true, false])
    expect([...metrics.counters.keys()]).toEqual(['rpc.entry.v1.entry.sync_authorized_entries'])
  })

  test('whose client cancels aborts the handler', async () => {
    const { promise: aborted, resolve } = Promise.withResolvers<unknown>()
    const route = stream(EntryService.syncAuthorizedEntries, ['agent'], async (sync, context) => {
      context.signal.addEventListener('abort', () => resolve(context.signal.reason))
      await sync.receive()
      await sync.send(message(true))
      await aborted
      await sync.send(message(true))
    })
    const { entries, log } = await serve([route])
    const sync = entries.syncAuthorizedEntries()
    sync.on('error', () => {})
    sync.on('data', () => sync.cancel())
    sync.write({ ids: [], outputMask: undefined })
    expect(await aborted).toMatchObject({ kind: 'canceled', message: 'context canceled' })
    await expect.poll(() => log.lines.map(({ level }) => level)).toContain('debug')
    expect(log.lines.some(({ level }) => level === 'error')).toBe(false)
  })

  // Method: an HTTP/2 client that opens the stream and leaves its window of 64 KiB to fill up.
  test('of a client that never reads waits instead of piling up', async () => {
    let sent = 0
    const id = 'x'.repeat(1024)
    const full = { ...message(true), entryRevisions: [{ id, revisionNumber: 0n, createdAt: 0n }] }
    const { promise: over, resolve } = Promise.withResolvers<unknown>()
    const route = stream(EntryService.syncAuthorizedEntries, ['agent'], async (sync) => {
      await sync.receive()
      try {
        for (;;) {
          await sync.send(full)
          sent++
        }
      } catch (thrown) {
        resolve(thrown)
        throw thrown
      }
    })
    const { path } = await serve([route])
    const session = connect('http://localhost', { createConnection: () => createConnection(path) })
    const request = session.request({
      ':method': 'POST',
      ':path': EntryService.syncAuthorizedEntries.path,
      'content-type': 'application/grpc',
      te: 'trailers',
    })
    request.on('error', () => {})
    request.write(Buffer.alloc(5))
    await expect.poll(() => sent).toBeGreaterThan(50)
    expect(sent).toBeLessThan(70)
    session.destroy()
    expect(await over).toMatchObject({ kind: 'canceled' })
    expect(sent).toBeLessThan(70)
  })

  test('that fails tells its status', async () => {
    const error = new SignetError('invalid_argument', 'x', 'revision number cannot be masked')
    const route = stream(EntryService.syncAuthorizedEntries, ['agent'], () => Promise.reject(error))
    const { entries } = await serve([route])
    const sync = entries.syncAuthorizedEntries()
    const failure = await new Promise<unknown>((resolve) => {
      sync.on('error', resolve)
      sync.on('data', () => {})
    })
    expect(fromGrpcError(failure)).toMatchObject({
      kind: 'invalid_argument',
      message: 'revision number cannot be masked',
    })
  })
})

test('the hot codec speaks with a generated client', async () => {
  const route = unary(batchNewX509SvidMethod, ['agent'], async ({ params, message }) => {
    for (const { csr } of params) expect(csr.buffer).toBe(message.buffer)
    const error = new SignetError('not_found', 'x', params[1]!.entryId)
    return [
      { ok: true as const, value: issuedFor(AGENT_CALLER.spiffeId!) },
      { ok: false as const, error },
    ]
  })
  const { svids } = await serve([route])
  const params = ['a', 'b'].map((entryId) => ({ entryId, csr: Uint8Array.of(1, 2, 3) }))
  const { results } = await call<BatchNewX509SVIDResponse>((done) =>
    svids.batchNewX509Svid({ params }, done),
  )
  expect(results.map(({ status }) => status)).toEqual([
    { code: 0, message: 'OK' },
    { code: 5, message: 'b' },
  ])
  expect(results[1]?.svid).toBeUndefined()
})
