/** The embedded PostgreSQL: private, one owner, stopped with the server, alive after SIGKILL. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import {
  chmodSync,
  chownSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import pg from 'pg'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { systemClock } from '../../../src/base/clock.ts'
import { createSystemRandom } from '../../../src/base/random.ts'
import { preparePostgresBinaries } from '../../../src/server/datastore/embedded/binaries.ts'
import {
  type EmbeddedPostgres,
  startEmbeddedPostgres,
} from '../../../src/server/datastore/embedded.ts'
import { createMemoryLog } from '../../fakes/memory-log.ts'
import { silentLog } from '../../rigs/silent-log.ts'
import { until } from '../../rigs/until.ts'

const ports = { log: silentLog, clock: systemClock, random: createSystemRandom() }
const asRoot = process.geteuid?.() === 0
if (!asRoot) console.warn('NOT RUN: files of other users and of none, because this is not root')
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
    mkdirSync(path.join(dataDir, 'postgres'), { mode: 0o700 })
    writeFileSync(path.join(dataDir, 'postgres', 'postgres.log'), 'FATAL:  of another day\n')
    const server = await start(dataDir, log)
    await query(server, 'create table kept as select 1 as n')
    process.kill(server.pid()!, 'SIGKILL')
    const rows = await until('the database again', () => query(server, 'select n from kept'))
    expect(rows).toEqual([{ n: 1 }])
    expect(log.lines.map((line) => line.message)).toContain(
      'Embedded PostgreSQL ended unexpectedly; starting it again',
    )
    expect(JSON.stringify(log.lines)).not.toContain('of another day')
  })

  test('a start that fails says what PostgreSQL said', async () => {
    await (await start()).stop()
    rmSync(path.join(dataDir, 'postgres', 'data', 'PG_VERSION'))
    await expect(start()).rejects.toThrow(/did not start: .*is not a valid data directory/)
  })

  test.each([
    ['lost', (file: string) => rmSync(file)],
    ['of another database', (file: string) => writeFileSync(file, 'guess')],
  ])('a password file that is %s is named, and none is made', async (_, damage) => {
    await (await start()).stop()
    const file = path.join(dataDir, 'postgres', 'password')
    damage(file)
    const before = existsSync(file)
    await expect(start()).rejects.toThrow(`${file} does not hold the password`)
    expect(existsSync(file)).toBe(before)
  })

  test('a data_dir that is a file is refused by name', async () => {
    const file = path.join(dataDir, 'file')
    writeFileSync(file, '')
    await expect(start(file)).rejects.toMatchObject({
      code: 'bad_data_dir',
      message: expect.stringContaining(`${file}/postgres of data_dir can not be made`),
    })
  })

  test.runIf(asRoot)('a read-only file system is called that', async () => {
    const disk = path.join(dataDir, 'disk')
    mkdirSync(disk)
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'ro,size=1m', 'tmpfs', disk])
    try {
      await expect(start(disk)).rejects.toMatchObject({
        code: 'bad_data_dir',
        cause: expect.objectContaining({ code: 'EROFS' }),
      })
    } finally {
      execFileSync('umount', [disk])
    }
  })

  test.runIf(asRoot)('a copy that root made, without owners, is one as good', async () => {
    const first = await start()
    await query(first, 'create table kept as select 1 as n')
    await first.stop()
    const copy = path.join(dataDir, 'copy')
    cpSync(path.join(dataDir, 'postgres'), path.join(copy, 'postgres'), { recursive: true })
    expect(await query(await start(copy), 'select n from kept')).toEqual([{ n: 1 }])
  })

  test.runIf(asRoot)('of another user it is refused, and left as it is', async () => {
    await (await start()).stop()
    const home = path.join(dataDir, 'postgres')
    for (const name of ['.', 'data', 'socket']) chownSync(path.join(home, name), 65_534, 65_534)
    await expect(start()).rejects.toThrow(
      `${home} belongs to uid 65534, but this server runs as uid 0: start it as its owner`,
    )
    expect(statSync(path.join(home, 'socket')).uid).toBe(65_534)
    expect(statSync(path.join(home, 'data')).uid).toBe(65_534)
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

  test('takes its postmaster with it, nothing acknowledged is lost', async () => {
    const { postmaster } = await startElsewhere()
    await until('the end of the postmaster', () => !isRunning(postmaster))
    const server = await start()
    const rows = await query(server, 'select count(*)::integer as n from kept')
    expect((rows[0] as { n: number }).n).toBeGreaterThan(acknowledged)
  })

  test('a postmaster that outlived it all the same is stopped by the next', async () => {
    await (await start()).stop()
    const home = path.join(dataDir, 'postgres')
    const { postgres } = preparePostgresBinaries({ asRoot, privateDir: home })
    const fds = ['data', 'socket'].map((name) => openSync(path.join(home, name), 'r'))
    const left = spawn(postgres, ['-D', '/proc/self/fd/3', '-k', '/proc/self/fd/4', '-h', ''], {
      ...(asRoot && { uid: 60_700, gid: 60_700 }),
      cwd: '/',
      stdio: ['ignore', 'ignore', 'ignore', ...fds],
    })
    await until('its pid file', () => existsSync(path.join(home, 'data', 'postmaster.pid')))
    const ended = new Promise((resolve) => left.once('exit', resolve))
    const server = await start()
    expect(await ended).toBe(0)
    expect(await query(server, 'select 1 as n')).toEqual([{ n: 1 }])
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
