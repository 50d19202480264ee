import { constants } from 'node:http2'
import { afterEach, beforeEach, expect, test } from 'vitest'
import {
  HEADER_LIST_BYTES_MAX,
  MESSAGE_BYTES_MAX,
  STREAMS_PER_CONNECTION_MAX,
} from '../../../../src/base/limits.ts'
import { until } from '../../../rigs/until.ts'
import { ask, client, closed, type Door, http2, openDoor, PATH, rawTls } from './door-rig.ts'

/**
 * What a hostile HTTP/2 peer may do (T-S8): after each attack a good client is served as before.
 */
let door: Door
beforeEach(async () => {
  door = await openDoor()
})
afterEach(async () => {
  const caller = client(door)
  expect(await ask(caller)).toBe('tcp nobody')
  caller.close()
  await door[Symbol.asyncDispose]()
})

const HEADERS = {
  ':method': 'POST',
  ':path': PATH,
  'content-type': 'application/grpc',
  te: 'trailers',
}

test('the settings we announce hold our limits', async () => {
  const session = http2(door)
  const settings = await new Promise<{ maxConcurrentStreams?: number; maxHeaderListSize?: number }>(
    (resolve) => session.once('remoteSettings', resolve),
  )
  expect(settings).toMatchObject({
    maxConcurrentStreams: STREAMS_PER_CONNECTION_MAX,
    maxHeaderListSize: HEADER_LIST_BYTES_MAX,
  })
  session.destroy()
})

test('streams over the limit are refused, the connection goes on', async () => {
  const socket = await rawTls(door)
  let answer = Buffer.alloc(0)
  socket.on('data', (part: Buffer) => {
    answer = Buffer.concat([answer, part])
  })
  socket.write(Buffer.concat([PREFACE, frame(TYPE.settings, 0, 0)]))
  for (let i = 0; i <= STREAMS_PER_CONNECTION_MAX; i++) {
    socket.write(frame(TYPE.headers, FLAG.endHeaders, 2 * i + 1, REQUEST_BLOCK))
  }
  const refused = await until('a stream is refused', () =>
    framesOf(answer).find(({ type }) => type === TYPE.rstStream),
  )
  expect(refused.stream).toBe(2 * STREAMS_PER_CONNECTION_MAX + 1)
  expect(refused.body.readUInt32BE(0)).toBe(constants.NGHTTP2_REFUSED_STREAM)
  socket.destroy()
})

test('a header list over the limit is refused', async () => {
  const session = http2(door)
  // A limit counts once the peer has acknowledged it; until then nghttp2's own 64 KiB does.
  await new Promise((resolve) => session.once('remoteSettings', resolve))
  await new Promise((resolve) => session.ping(resolve))
  const outcome = await new Promise<string>((resolve) => {
    // In many fields: one alone would already break nghttp2's own rule.
    const big = Object.fromEntries(
      Array.from({ length: 40 }, (_, i) => [`x-${i}`, 'x'.repeat(HEADER_LIST_BYTES_MAX / 32)]),
    )
    const request = session.request({ ...HEADERS, ...big })
    request.on('response', (headers) => resolve(`served ${headers['grpc-status']}`))
    request.on('error', () => resolve('refused'))
    request.on('close', () => resolve('refused'))
    request.end()
  })
  expect(outcome).toBe('refused')
  session.destroy()
})

test('rapid reset: the connection is ended, its memory freed', async () => {
  const socket = await rawTls(door)
  const over = closed(socket)
  socket.write(Buffer.concat([PREFACE, frame(TYPE.settings, 0, 0)]))
  const cancel = Buffer.alloc(4)
  cancel.writeUInt32BE(constants.NGHTTP2_CANCEL)
  for (let i = 0; i < 20_000 && socket.writable; i++) {
    socket.write(frame(TYPE.headers, FLAG.endHeaders, 2 * i + 1, REQUEST_BLOCK))
    socket.write(frame(TYPE.rstStream, 0, 2 * i + 1, cancel))
  }
  const frames = framesOf(await over)
  expect(frames.some(({ type }) => type === TYPE.goaway)).toBe(true)
  await until('the connection is forgotten', () => door.connections.size === 0)
})

test('a CONTINUATION flood is cut short', async () => {
  const socket = await rawTls(door)
  const over = closed(socket)
  socket.write(Buffer.concat([PREFACE, frame(TYPE.settings, 0, 0)]))
  socket.write(frame(TYPE.headers, 0, 1, REQUEST_BLOCK))
  // Literal header without indexing: name and value of a few bytes each.
  const field = Buffer.from([0x00, 0x01, 0x78, 0x01, 0x79])
  for (let i = 0; i < 10_000 && socket.writable; i++) {
    socket.write(frame(TYPE.continuation, 0, 1, Buffer.concat(Array(100).fill(field))))
  }
  await over
  await until('the connection is forgotten', () => door.connections.size === 0)
})

test.each([
  ['SETTINGS', 0x4, Buffer.alloc(0)],
  ['PING', 0x6, Buffer.alloc(8)],
] as const)('a flood of %s by a peer that reads nothing is cut', async (_name, type, body) => {
  const socket = await rawTls(door)
  socket.pause()
  socket.on('error', () => {})
  const gone = new Promise((resolve) => socket.once('close', resolve))
  socket.write(Buffer.concat([PREFACE, frame(TYPE.settings, 0, 0)]))
  const burst = Buffer.concat(Array(2_000).fill(frame(type, 0, 0, body)))
  const flood = () => {
    while (socket.writable && socket.write(burst)) {}
  }
  socket.on('drain', flood)
  flood()
  await until('the connection is forgotten', () => door.connections.size === 0)
  socket.resume()
  await gone
})

test('a message over the limit is refused, one at the limit is not', async () => {
  const caller = client(door)
  const send = (bytes: number) =>
    new Promise<string>((resolve, reject) => {
      const identity = (buffer: Buffer) => buffer
      caller.makeUnaryRequest(PATH, identity, identity, Buffer.alloc(bytes), (error, answer) =>
        error ? reject(error) : resolve(String(answer)),
      )
    })
  expect(await send(MESSAGE_BYTES_MAX)).toBe('tcp nobody')
  await expect(send(MESSAGE_BYTES_MAX + 1)).rejects.toMatchObject({ code: 8 })
  caller.close()
})

test('a path that is not exactly a method is not served (T-S2)', async () => {
  const session = http2(door)
  for (const path of ['test.Echo/Who', '//test.Echo/Who', '/test.echo/Who', '/test.Echo/Wh%6f']) {
    const status = await new Promise((resolve) => {
      const request = session.request({ ...HEADERS, ':path': path })
      request.on('response', (headers) => resolve(headers['grpc-status']))
      request.on('error', () => resolve('reset'))
      request.end()
    })
    expect([path, status]).toEqual([path, expect.stringMatching(/^(12|reset)$/)])
  }
  session.destroy()
})

test('an old connection gets GOAWAY, what runs on it comes to its end', async () => {
  await using own = await openDoor({ connectionAgeMsMax: 300 })
  const caller = client(own)
  const running = ask(caller, 'hold')
  await until('the call has arrived', () => own.held.length === 1)
  const [old] = peers(own)
  // New calls go over a new connection as soon as the old one was told to go away.
  await until('a second connection is used', async () => {
    await ask(caller)
    return peers(own).some((peer) => peer !== old)
  })
  own.held[0]!()
  expect(await running).toBe('released')
  await until('the old connection is gone', () => !peers(own).includes(old!))
  caller.close()
})

test('stopping lets running calls finish', async () => {
  await using own = await openDoor()
  const caller = client(own)
  const running = ask(caller, 'hold')
  await until('the call has arrived', () => own.held.length === 1)
  own.door.close()
  const stopped = own.grpc.stop()
  own.held[0]!()
  expect(await running).toBe('released')
  await stopped
  caller.close()
})

function peers(door: Door): string[] {
  const found: string[] = []
  door.connections.closeWhere((connection) => {
    found.push(connection.peer)
    return false
  })
  return found
}

const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 'latin1')
const TYPE = { headers: 1, rstStream: 3, settings: 4, goaway: 7, continuation: 9 } as const
const FLAG = { endHeaders: 4 } as const

/** HPACK without indexing: POST, https, the path and the content type. */
const REQUEST_BLOCK = Buffer.concat([
  Buffer.from([0x83, 0x87]),
  literal(4, PATH),
  literal(1, 'localhost'),
  Buffer.from([0x0f, 31 - 15, 16]),
  Buffer.from('application/grpc', 'latin1'),
])

function literal(nameIndex: number, value: string): Buffer {
  return Buffer.concat([Buffer.from([nameIndex, value.length]), Buffer.from(value, 'latin1')])
}

function frame(
  type: number,
  flags: number,
  stream: number,
  body: Buffer = Buffer.alloc(0),
): Buffer {
  const head = Buffer.alloc(9)
  head.writeUIntBE(body.length, 0, 3)
  head.writeUInt8(type, 3)
  head.writeUInt8(flags, 4)
  head.writeUInt32BE(stream, 5)
  return Buffer.concat([head, body])
}

function framesOf(bytes: Buffer) {
  const frames: { type: number; stream: number; body: Buffer }[] = []
  for (let at = 0; at + 9 <= bytes.length; ) {
    const size = bytes.readUIntBE(at, 3)
    if (at + 9 + size > bytes.length) break
    frames.push({
      type: bytes.readUInt8(at + 3),
      stream: bytes.readUInt32BE(at + 5),
      body: bytes.subarray(at + 9, at + 9 + size),
    })
    at += 9 + size
  }
  return frames
}
