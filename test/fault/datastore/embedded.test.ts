/** The embedded PostgreSQL: private, one owner, stopped with the server, alive after SIGKILL. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import pg from 'pg'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { systemClock } from '../../../src/base/clock.ts'
import { createSystemRandom } from '../../../src/base/random.ts'
import {
  type EmbeddedPostgres,
  startEmbeddedPostgres,
} from '../../../src/server/datastore/embedded.ts'
import { createMemoryLog } from '../../fakes/memory-log.ts'
import { silentLog } from '../../rigs/silent-log.ts'
import { until } from '../../rigs/until.ts'

const ports = { log: silentLog, clock: systemClock, random: createSystemRandom() }
const asRoot = process.geteuid?.() === 0
let dataDir: string
const running: EmbeddedPostgres[] = []

beforeEach(() => {
  dataDir = mkdtempSync(path.join(tmpdir(), 'signet-embedded-'))
})
afterEach(async () => {
  for (const server of running.splice(0)) await server.stop()
  rmSync(dataDir, { recursive: true, force: true })
})

async function start(dir = dataDir, log = ports.log): Promise<EmbeddedPostgres> {
  const server = await startEmbeddedPostgres({ ...ports, log, dataDir: dir })
  running.push(server)
  return server
}

async function query(server: EmbeddedPostgres, text: string): Promise<readonly unknown[]> {
  const client = new pg.Client({ ...server.poolConfig })
  client.on('error', () => {})
  await client.connect()
  try {
    return (await client.query(text)).rows
  } finally {
    await client.end()
  }
}

/** A process that nobody has waited for yet does not count. */
function isRunning(pid: number): boolean {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'))
  } catch {
    return false
  }
}

describe('life', () => {
  test('keeps its rows over a restart and listens on no TCP port', async () => {
    const first = await start()
    await query(first, 'create table kept as select 1 as n')
    expect(await query(first, 'show listen_addresses')).toEqual([{ listen_addresses: '' }])
    const pid = first.pid()!
    await first.stop()
    await first.stop()
    expect(existsSync(`/proc/${pid}`)).toBe(false)
    const second = await start()
    expect(await query(second, 'select n from kept')).toEqual([{ n: 1 }])
  })

  test('a second server on the same directory is refused, a later one is not', async () => {
    const first = await start()
    await expect(start()).rejects.toMatchObject({
      kind: 'failed_precondition',
      code: 'data_dir_in_use',
    })
    expect(await query(first, 'select 1 as n')).toEqual([{ n: 1 }])
    await first.stop()
    await start()
  })

  test('a postmaster that dies is started again', async () => {
    const log = createMemoryLog()
    const server = await start(dataDir, log)
    await query(server, 'create table kept as select 1 as n')
    process.kill(server.pid()!, 'SIGKILL')
    const rows = await until('the database again', () => query(server, 'select n from kept'))
    expect(rows).toEqual([{ n: 1 }])
    expect(log.lines.map((line) => line.message)).toContain(
      'Embedded PostgreSQL ended unexpectedly; starting it again',
    )
  })

  test('a path longer than a socket can have', async () => {
    const deep = path.join(dataDir, 'a'.repeat(100), 'b'.repeat(100))
    const server = await start(deep)
    expect(await query(server, 'select 1 as n')).toEqual([{ n: 1 }])
  })

  test('half of a first start is thrown away', async () => {
    mkdirSync(path.join(dataDir, 'postgres', 'data.halfway', 'base'), { recursive: true })
    const server = await start()
    expect(await query(server, 'select 1 as n')).toEqual([{ n: 1 }])
    expect(existsSync(path.join(dataDir, 'postgres', 'data.halfway'))).toBe(false)
  })
})

describe('a killed server', () => {
  /** A server in a process of its own, so that it can be killed. */
  async function startElsewhere(): Promise<{ child: ChildProcess; postmaster: number }> {
    const script = `
      import { startEmbeddedPostgres } from '${path.resolve('src/server/datastore/embedded.ts')}'
      import { systemClock } from '${path.resolve('src/base/clock.ts')}'
      import { createSystemRandom } from '${path.resolve('src/base/random.ts')}'
      import { silentLog } from '${path.resolve('test/rigs/silent-log.ts')}'
      import pg from 'pg'
      const server = await startEmbeddedPostgres({ dataDir: process.argv[1], log: silentLog,
        clock: systemClock, random: createSystemRandom() })
      const client = new pg.Client({ ...server.poolConfig })
      await client.connect()
      await client.query('create table if not exists kept (n integer)')
      for (let n = 0; ; n++) {
        await client.query('insert into kept values ($1)', [n])
        process.stdout.write(server.pid() + ' ' + n + '\\n')
      }`
    const args = ['--input-type=module', '-e', script, dataDir]
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] })
    let output = ''
    child.stdout?.on('data', (chunk: Buffer) => {
      output += chunk
    })
    await until('written rows', () => output.split('\n').length > 20)
    child.kill('SIGKILL')
    await new Promise((resolve) => child.once('close', resolve))
    const lines = output.split('\n').slice(0, -1)
    const [postmaster, last] = lines.at(-1)!.split(' ').map(Number)
    acknowledged = last!
    return { child, postmaster: postmaster! }
  }
  let acknowledged = 0

  test('its postmaster is stopped by the next one, nothing acknowledged is lost', async () => {
    const { postmaster } = await startElsewhere()
    const server = await start()
    expect(isRunning(postmaster)).toBe(false)
    const rows = await query(server, 'select count(*)::integer as n from kept')
    expect((rows[0] as { n: number }).n).toBeGreaterThan(acknowledged)
  })

  test('so it is when the postmaster was killed as well', async () => {
    const { postmaster } = await startElsewhere()
    process.kill(postmaster, 'SIGKILL')
    const server = await start()
    const rows = await query(server, 'select count(*)::integer as n from kept')
    expect((rows[0] as { n: number }).n).toBeGreaterThan(acknowledged)
  })
})

describe('privacy', () => {
  test('directory, socket and password are closed to others', async () => {
    const server = await start()
    const home = path.join(dataDir, 'postgres')
    const mode = (file: string) => statSync(path.join(home, file)).mode & 0o777
    expect([mode('.'), mode('data'), mode('socket')]).toEqual([0o700, 0o700, 0o700])
    expect([mode('password'), mode('postgres.log')]).toEqual([0o600, 0o600])
    const password = readFileSync(path.join(home, 'password'), 'utf8')
    expect(readFileSync(path.join(home, 'postgres.log'), 'utf8')).not.toContain(password)
    await query(server, "select 'canary-statement', 1/0").catch(() => {})
    expect(readFileSync(path.join(home, 'postgres.log'), 'utf8')).not.toContain('canary')
  })

  test('a wrong password is refused', async () => {
    const server = await start()
    const client = new pg.Client({ ...server.poolConfig, password: 'guess' })
    await expect(client.connect()).rejects.toMatchObject({ code: '28P01' })
  })

  test('a password file that others may read is refused', async () => {
    await (await start()).stop()
    chmodSync(path.join(dataDir, 'postgres', 'password'), 0o644)
    await expect(start()).rejects.toMatchObject({ code: 'bad_file_mode' })
  })

  test.runIf(asRoot)(
    'it runs as nobody else, in a directory that others can not enter',
    async () => {
      chmodSync(dataDir, 0o700)
      const server = await start()
      const uid = readFileSync(`/proc/${server.pid()}/status`, 'utf8').match(/Uid:\s+(\d+)/)?.[1]
      expect(uid).toBe('60700')
      const socket = path.join(server.socketDir, '.s.PGSQL.5432')
      expect(existsSync(socket)).toBe(true)
      const connect = `require('net').connect('${socket}').on('error', (e) => console.log(e.code))`
      // Even when the way is open, the socket's directory belongs to the database's user alone.
      chmodSync(dataDir, 0o755)
      chmodSync(path.join(dataDir, 'postgres'), 0o755)
      const other = execFileSync(process.execPath, ['-e', connect], {
        uid: 65_534,
        gid: 65_534,
        cwd: '/',
        encoding: 'utf8',
      })
      expect(other.trim()).toBe('EACCES')
    },
  )
})
