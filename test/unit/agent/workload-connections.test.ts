/** Who is at the other end of a socket: real processes that live, turn into others, and die. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Server } from '@grpc/grpc-js'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { createWorkloadAttestation } from '../../../src/agent/workload-api/attestation.ts'
import {
  listenUnix,
  type UnixListener,
  type WorkloadConnection,
} from '../../../src/agent/workload-api/connections.ts'
import { createRateLimiter } from '../../../src/agent/workload-api/rate-limit.ts'
import {
  fingerprintChange,
  type ProcessHandle,
  processFingerprint,
} from '../../../src/base/os/process-handle.ts'
import type { Selector } from '../../../src/spiffe/selector.ts'
import { selectors } from '../../fakes/agent-cache.ts'
import { FakeClock } from '../../fakes/fake-clock.ts'
import { createMemoryLog, createMemoryMetrics } from '../../fakes/memory-log.ts'
import { until } from '../../rigs/until.ts'

let dir: string
let listener: UnixListener | undefined
let children: ChildProcess[]
const clock = new FakeClock()
const log = createMemoryLog()
const metrics = createMemoryMetrics()

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'conn-'))
  children = []
  log.lines.length = 0
})
afterEach(async () => {
  for (const child of children) child.kill('SIGKILL')
  await listener?.[Symbol.asyncDispose]()
  listener = undefined
  await rm(dir, { recursive: true, force: true })
})

async function listen(attest: (process: ProcessHandle) => Promise<readonly Selector[]>) {
  const path = join(dir, 'api.sock')
  const attestation = { attest }
  const server = new Server()
  listener = await listenUnix({ path, mode: 0o777, server, attestation, clock, log })
  return path
}

const CONNECT = `
import os, socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
os.set_inheritable(s.fileno(), True)
`

/** Connects and, on a line of input, does what is told: by default become another program. */
function spawnConnected(path: string, then = "os.execvp('sleep', ['sleep', '60'])"): ChildProcess {
  const script = `${CONNECT}
sys.stdin.readline()
${then}
print('done', flush=True)
sys.stdin.readline()`
  const child = spawn('python3', ['-c', script, path], { stdio: ['pipe', 'pipe', 'inherit'] })
  children.push(child)
  return child
}

function firstConnection(): Promise<WorkloadConnection> {
  return until('connection', () => {
    for (let n = 1; n < 50; n++) {
      const found = listener?.connection(`unix#${n}`)
      if (found !== undefined) return found
    }
    return undefined
  })
}

describe('a connection', () => {
  test('knows its process and attests it once', async () => {
    let count = 0
    const path = await listen(async () => {
      count++
      return selectors('unix:uid:0')
    })
    const child = spawnConnected(path)
    const connection = await firstConnection()
    expect(connection.process.pid).toBe(child.pid)
    expect(connection.isAgent).toBe(false)
    await Promise.all([connection.attest(), connection.attest()])
    expect(await connection.attest()).toEqual(selectors('unix:uid:0'))
    expect(count).toBe(1)
  })

  test('is closed when its process became another program, attested or not', async () => {
    let count = 0
    const path = await listen(async () => {
      count++
      return []
    })
    const child = spawnConnected(path)
    const connection = await firstConnection()
    await connection.attest()
    child.stdin!.write('go\n')
    await until('noticed', () => !connection.isUnchanged())
    await expect(connection.attest()).rejects.toMatchObject({ code: 'caller_changed' })
    expect(count).toBe(1)
    await until('closed', () => listener!.connectionCount === 0)
    expect(log.lines.some((l) => l.message === 'Connection closed: caller process changed')).toBe(
      true,
    )
  })

  test('gives no selectors when the process changed while it was being attested', async () => {
    let child: ChildProcess | undefined
    const path = await listen(async (process) => {
      const before = process.fingerprint()
      child!.stdin!.write('go\n')
      await until('exec', () => process.fingerprint().stackStart !== before.stackStart)
      return selectors('unix:uid:0')
    })
    child = spawnConnected(path)
    const connection = await firstConnection()
    await expect(connection.attest()).rejects.toMatchObject({ kind: 'unavailable' })
  })

  test('is closed when its process died, also with nothing to send', async () => {
    const path = await listen(async () => [])
    const child = spawnConnected(path)
    const connection = await firstConnection()
    child.kill('SIGKILL')
    await until('dead', () => child.signalCode !== null)
    clock.advanceMs(100)
    await until('closed', () => listener!.connectionCount === 0)
    expect(connection.isUnchanged()).toBe(false)
  })

  describe.skipIf(process.getuid!() !== 0)('whose process may change its ids', () => {
    const connected = async (then: string) => {
      const path = await listen(async () => [])
      const child = spawnConnected(path, then)
      const connection = await firstConnection()
      const change = async () => {
        child.stdin!.write('go\n')
        await once(child.stdout!, 'data')
      }
      return { connection, change }
    }

    test.each([
      ['uid', 'os.setresuid(-1, 12345, -1)'],
      ['gid', 'os.setresgid(-1, 12345, -1)'],
    ])('is closed when that is the effective %s', async (what, statement) => {
      const { connection, change } = await connected(statement)
      await connection.attest()
      expect(connection.isUnchanged()).toBe(true)
      await change()
      await expect(connection.attest()).rejects.toMatchObject({ code: 'caller_changed' })
      await until('closed', () => listener!.connectionCount === 0)
      const message = 'Connection closed: caller process changed'
      expect(log.lines).toContainEqual(
        expect.objectContaining({ message, fields: expect.objectContaining({ changed: what }) }),
      )
    })

    test('gives no selectors when they changed before it was ever attested', async () => {
      const { connection, change } = await connected('os.setresuid(12345, 12345, 12345)')
      await change()
      await expect(connection.attest()).rejects.toMatchObject({ code: 'caller_changed' })
    })

    test('stays when those are the real and the saved ones, which say nothing', async () => {
      const { connection, change } = await connected('os.setresuid(12345, -1, 12345)')
      await change()
      expect(await connection.attest()).toEqual([])
      expect(connection.isUnchanged()).toBe(true)
    })

    test('gives no selectors when they changed between connect and accept', async () => {
      const path = await listen(async () => [])
      // Nothing is accepted before this returns: the one that connected lives on behind it.
      const script = `
import os
[r, w] = os.pipe()
pid = os.fork()
if pid == 0:
    os.closerange(0, 3)
${CONNECT.trim().replaceAll(/^/gm, '    ')}
    os.setresuid(-1, 12345, -1)
    os.write(w, b'x')
    os.read(os.pipe()[0], 1)
os.read(r, 1)
print(pid)`
      const { stdout, status } = spawnSync('python3', ['-c', script, path], { encoding: 'utf8' })
      expect(status).toBe(0)
      try {
        const connection = await firstConnection()
        expect(connection.process).toMatchObject({ pid: Number(stdout), uid: 0 })
        await expect(connection.attest()).rejects.toMatchObject({ code: 'caller_changed' })
      } finally {
        globalThis.process.kill(Number(stdout), 'SIGKILL')
      }
    })
  })

  test('leaves no descriptor behind, attestation failed or not', async () => {
    const path = await listen(async () => {
      throw new Error('no')
    })
    const open = async () => (await readdir('/proc/self/fd')).length
    const before = await open()
    for (let i = 0; i < 50; i++) {
      const socket = connect(path)
      const connection = await until('connection', () => listener!.connection(`unix#${i + 1}`))
      await connection.attest().catch(() => {})
      socket.destroy()
      await until('closed', () => listener!.connectionCount === 0)
    }
    expect(await open()).toBeLessThanOrEqual(before + 2)
  })

  test('of which a thousand came and went leaves no descriptor behind', async () => {
    const path = await listen(async () => [])
    const open = async () => (await readdir('/proc/self/fd')).length
    const before = await open()
    for (let round = 0; round < 10; round++) {
      const sockets = Array.from({ length: 100 }, () => connect(path))
      await until('connections', () => listener!.connectionCount === 100)
      clock.advanceMs(1_000)
      for (const socket of sockets) socket.destroy()
      await until('closed', () => listener!.connectionCount === 0)
    }
    expect(await open()).toBeLessThanOrEqual(before + 2)
  })

  test('is closed within a minute when its process changed and there is nothing to send', async () => {
    const path = await listen(async () => [])
    const child = spawnConnected(path)
    const connection = await firstConnection()
    const before = processFingerprint(child.pid!)
    child.stdin!.write('go\n')
    await until(
      'exec',
      () => fingerprintChange(before, processFingerprint(child.pid!)) !== undefined,
    )
    for (let second = 0; second < 60; second++) clock.advanceMs(1_000)
    await until('closed', () => listener!.connectionCount === 0)
    expect(connection.process.alive()).toBe(false)
  })
})

describe('attestation', () => {
  const process = { pid: 1 } as ProcessHandle
  const good = (name: string, ...texts: string[]) => ({
    name,
    attest: async () => selectors(...texts),
  })
  const bad = {
    name: 'bad',
    attest: async (): Promise<Selector[]> => {
      throw new Error('no')
    },
  }

  test.each([
    ['nobody attests', [], []],
    ['one does', [good('a', 'a:1')], ['a:1']],
    ['two do', [good('a', 'a:1'), good('b', 'b:1', 'a:1')], ['a:1', 'b:1']],
    ['one of two fails', [bad, good('b', 'b:1')], ['b:1']],
    ['one finds nothing and the other fails', [bad, good('b')], []],
  ])('when %s', async (_what, attestors, expected) => {
    const attestation = createWorkloadAttestation(attestors, { clock, log, metrics })
    expect(await attestation.attest(process)).toEqual(selectors(...expected))
  })

  test('fails when every attestor did', async () => {
    const attestation = createWorkloadAttestation([bad, bad], { clock, log, metrics })
    await expect(attestation.attest(process)).rejects.toMatchObject({
      kind: 'unavailable',
      message: 'workload attestation failed',
    })
    expect(log.lines.map(({ message }) => message)).toContain('workload attestor "bad" failed')
  })
})

describe('rate limits', () => {
  const METHOD = '/SpiffeWorkloadAPI/FetchX509SVID'

  test('count per method and set of selectors, whatever their order', () => {
    const time = new FakeClock()
    const limiter = createRateLimiter({ [METHOD]: 2 }, { clock: time, metrics })
    const ask = (...texts: string[]) => limiter.check(METHOD, selectors(...texts))
    ask('a:1', 'b:1')
    ask('b:1', 'a:1')
    expect(() => ask('a:1', 'b:1')).toThrow(`rate limit exceeded for ${METHOD}`)
    ask('a:1')
    ask()
    ask()
    expect(() => ask()).toThrow(expect.objectContaining({ kind: 'unavailable' }))
    limiter.check('/other', [])
    time.advanceMs(500)
    ask('a:1', 'b:1')
    expect(() => ask('a:1', 'b:1')).toThrow()
  })

  test('are off unless configured', () => {
    const limiter = createRateLimiter({ [METHOD]: 0 }, { clock, metrics })
    for (let i = 0; i < 1000; i++) limiter.check(METHOD, [])
  })
})
