import { spawn } from 'node:child_process'
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  realpathSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { connect, createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Client, credentials } from '@grpc/grpc-js'
import { beforeEach, describe, expect, test } from 'vitest'
import { systemClock } from '../../../../src/base/clock.ts'
import { UDS_CONNECTIONS_MAX } from '../../../../src/base/limits.ts'
import { prepareSocketPath } from '../../../../src/base/os/socket-path.ts'
import { ConnectionRegistry } from '../../../../src/server/listener/connection-registry.ts'
import { createGrpcServer } from '../../../../src/server/listener/grpc-server.ts'
import { openUdsDoor } from '../../../../src/server/listener/uds-door.ts'
import { createMemoryLog } from '../../../fakes/memory-log.ts'
import { until } from '../../../rigs/until.ts'

const identity = (bytes: Buffer) => bytes
const isRoot = process.getuid?.() === 0

let dir: string
beforeEach(() => {
  dir = realpathSync(mkdtempSync(join(tmpdir(), 'uds-')))
})

async function openDoor(path: string) {
  const log = createMemoryLog()
  const connections = new ConnectionRegistry()
  const grpc = createGrpcServer({}, systemClock)
  grpc.server.register(
    '/test.Echo/Who',
    (call: { getPeer(): string }, done: (e: null, b: Buffer) => void) => {
      done(null, Buffer.from(JSON.stringify(connections.get(call.getPeer()))))
    },
    identity,
    identity,
    'unary',
  )
  const door = await openUdsDoor(await prepareSocketPath(path, log), {
    log,
    connections,
    accept: grpc.inject,
  })
  return {
    door,
    log,
    connections,
    async [Symbol.asyncDispose]() {
      door.close()
      grpc.server.forceShutdown()
    },
  }
}

function who(path: string): Promise<Record<string, unknown>> {
  const client = new Client(`unix:${path}`, credentials.createInsecure(), {
    'grpc.default_authority': 'localhost',
  })
  return new Promise((resolve, reject) => {
    client.makeUnaryRequest(
      '/test.Echo/Who',
      identity,
      identity,
      Buffer.alloc(0),
      { deadline: Date.now() + 10_000 },
      (error, answer) => {
        client.close()
        if (error) reject(error)
        else resolve(JSON.parse(String(answer)))
      },
    )
  })
}

test('serves local callers and knows their process', async () => {
  const path = join(dir, 'private', 'api.sock')
  await using opened = await openDoor(path)
  expect(opened.door.path).toBe(path)
  expect(statSync(join(dir, 'private')).mode & 0o777 & ~0o750).toBe(0)
  expect(statSync(path).mode & 0o777).toBe(0o770)
  const [one, two] = [await who(path), await who(path)]
  expect(one).toMatchObject({
    transport: 'uds',
    remoteIp: '',
    chain: [],
    process: {
      pid: process.pid,
      uid: process.getuid?.(),
      gid: process.getgid?.(),
      path: realpathSync(process.execPath),
    },
  })
  expect(one.peer).not.toBe(two.peer)
})

test('the socket goes with the door', async () => {
  const path = join(dir, 'api.sock')
  {
    await using _opened = await openDoor(path)
  }
  expect(existsSync(path)).toBe(false)
})

describe('the way to the socket', () => {
  const prepare = (path: string) => prepareSocketPath(path, createMemoryLog())

  test('a parent writable by others is refused, sticky or not', async () => {
    for (const mode of [0o777, 0o1777, 0o702]) {
      chmodSync(dir, mode)
      await expect(prepare(join(dir, 'api.sock'))).rejects.toMatchObject({
        code: 'socket_directory_open',
      })
    }
    chmodSync(dir, 0o770)
    expect(await prepare(join(dir, 'api.sock'))).toBe(join(dir, 'api.sock'))
  })

  test('a grandparent writable by others must be sticky', async () => {
    const path = join(dir, 'private', 'api.sock')
    mkdirSync(join(dir, 'private'), { mode: 0o750 })
    chmodSync(dir, 0o777)
    await expect(prepare(path)).rejects.toMatchObject({ code: 'socket_directory_open' })
    chmodSync(dir, 0o1777)
    expect(await prepare(path)).toBe(path)
  })

  test.runIf(isRoot)('a directory of another user is refused, wherever on the way', async () => {
    mkdirSync(join(dir, 'a', 'b'), { recursive: true })
    chownSync(join(dir, 'a'), 12_345, 12_345)
    for (const path of ['a/api.sock', 'a/b/api.sock']) {
      await expect(prepare(join(dir, path))).rejects.toMatchObject({
        code: 'socket_directory_foreign',
      })
    }
  })

  test('a symbolic link is followed before the way is checked', async () => {
    mkdirSync(join(dir, 'open'), { mode: 0o700 })
    chmodSync(join(dir, 'open'), 0o777)
    symlinkSync(join(dir, 'open'), join(dir, 'link'))
    await expect(prepare(join(dir, 'link', 'api.sock'))).rejects.toMatchObject({
      code: 'socket_directory_open',
    })
  })

  test('a path at the limit of the kernel is fine, one byte more is not', async () => {
    const fill = (bytes: number) => join(dir, 'x'.repeat(bytes - dir.length - 1))
    expect(await prepare(fill(107))).toHaveLength(107)
    await expect(prepare(fill(108))).rejects.toMatchObject({ code: 'socket_path_too_long' })
  })
})

describe('what lies at the path', () => {
  test('a socket that nobody answers is removed', async () => {
    const path = join(dir, 'api.sock')
    // A process that is killed leaves its socket behind.
    const child = spawn(process.execPath, [
      '-e',
      `require('net').createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 'SIGKILL'))`,
    ])
    await new Promise((resolve) => child.once('close', resolve))
    expect(existsSync(path)).toBe(true)
    await using _opened = await openDoor(path)
    expect((await who(path)).transport).toBe('uds')
  })

  test('a socket that is served is left alone', async () => {
    const path = join(dir, 'api.sock')
    const other = createServer((socket) => socket.destroy())
    await new Promise<void>((resolve) => other.listen(path, resolve))
    await expect(openDoor(path)).rejects.toMatchObject({ code: 'socket_in_use' })
    expect(existsSync(path)).toBe(true)
    await new Promise((resolve) => other.close(resolve))
  })

  test('a file is never removed', async () => {
    const path = join(dir, 'api.sock')
    writeFileSync(path, 'precious')
    await expect(openDoor(path)).rejects.toMatchObject({ code: 'not_a_socket' })
    expect(existsSync(path)).toBe(true)
  })
})

test.runIf(isRoot)('another user is refused though the file would let him in', async () => {
  const path = join(dir, 'api.sock')
  await using opened = await openDoor(path)
  chmodSync(dir, 0o755)
  chmodSync(path, 0o777)
  const child = spawn(
    process.execPath,
    [
      '-e',
      `require('net').connect(${JSON.stringify(path)}).on('data', () => console.log('served'))
        .on('error', () => {}).on('close', () => console.log('closed')).write('PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n')`,
    ],
    { uid: 12_345, gid: 12_345, cwd: '/' },
  )
  let said = ''
  child.stdout.on('data', (part) => {
    said += part
  })
  await new Promise((resolve) => child.once('close', resolve))
  expect(said.trim()).toBe('closed')
  expect(opened.log.lines.at(-1)).toMatchObject({
    message: 'Local connection refused',
    fields: { error: expect.objectContaining({ code: 'uds_peer' }) },
  })
})

test(`${UDS_CONNECTIONS_MAX} connections are held, one more is closed, and places come back`, async () => {
  const path = join(dir, 'api.sock')
  await using opened = await openDoor(path)
  const held: Socket[] = []
  const hold = () =>
    new Promise<Socket>((resolve) => {
      const socket = connect(path).on('error', () => {})
      held.push(socket)
      socket.once('connect', () => resolve(socket))
    })
  while (held.length < UDS_CONNECTIONS_MAX) await hold()
  await until('all of them', () => opened.connections.size === UDS_CONNECTIONS_MAX)
  const late = await hold()
  await new Promise((resolve) => late.once('close', resolve))
  expect(opened.connections.size).toBe(UDS_CONNECTIONS_MAX)
  held[0]!.destroy()
  await until('a place', () => opened.connections.size < UDS_CONNECTIONS_MAX)
  expect((await who(path)).transport).toBe('uds')
  for (const socket of held) socket.destroy()
})

test('a caller that goes at once does no harm', async () => {
  const path = join(dir, 'api.sock')
  await using _opened = await openDoor(path)
  for (let i = 0; i < 50; i++)
    connect(path)
      .on('error', () => {})
      .destroy()
  expect((await who(path)).transport).toBe('uds')
})
