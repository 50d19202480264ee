/**
 * Starts that must be refused (F21, T-Y1 to T-Y4): a key file that is not what it was, a data directory
 * in use, a SPIRE server's data. Each says why, changes nothing, and the right start works afterwards.
 */
import {
  chmodSync,
  chownSync,
  copyFileSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { Deployment, freePort, PROJECT_DIR } from '../../interop/rig.ts'
import { LiveServer } from '../../rigs/live-server.ts'
import { type RunResult, run } from '../../rigs/process.ts'

const asRoot = process.geteuid?.() === 0
if (!asRoot) console.warn('NOT RUN: a key file of another user, because this is not root')

let server: LiveServer
let kek: string
let kept: string
let content: string
let keys: Record<string, string>[]

beforeAll(async () => {
  server = await LiveServer.start()
  kek = join(server.dataDir, 'kek')
  kept = join(server.deployment.dir, 'kek.kept')
  content = readFileSync(kek, 'utf8')
  copyFileSync(kek, kept)
  keys = await authorities()
})
afterAll(() => server?.[Symbol.asyncDispose]())

function authorities(): Promise<Record<string, string>[]> {
  return server.rows(
    `select id, state, epoch, authority_id, kek_id, md5(sealed_key) as sealed
     from signet.authority order by id`,
  )
}

function start(...flags: string[]): Promise<RunResult> {
  const { serverConf } = server.deployment
  return run(join(PROJECT_DIR, 'bin', 'signet'), ['server', 'run', '-config', serverConf, ...flags])
}

describe('while it is stopped, a key file', () => {
  beforeAll(() => server.daemon.stop())
  afterEach(() => {
    chmodSync(server.dataDir, 0o750)
    rmSync(kek, { force: true })
    writeFileSync(kek, content, { mode: 0o600 })
  })

  const other = Buffer.alloc(32, 7).toString('base64')
  const write = (text: string) => () => writeFileSync(kek, text)
  test.each<[string, () => void, string]>([
    ['that is missing', () => rmSync(kek), 'does not exist'],
    ['that others may read', () => chmodSync(kek, 0o644), 'has mode 0644, it must be 0600 or 0400'],
    ['that its group may read', () => chmodSync(kek, 0o640), 'has mode 0640'],
    [
      'of another key',
      write(`${other}\n`),
      'keys in the database are sealed by key-encryption key',
    ],
    ['that is empty', write(''), 'is empty'],
    ['cut short', () => writeFileSync(kek, content.slice(0, 20)), 'is truncated'],
    ['of noise', write('?'.repeat(44)), 'is not one line of base64 of 32 bytes'],
    ['with a tail', () => writeFileSync(kek, `${content}${content}`), 'is not one line of base64'],
    [
      'that is a link',
      () => {
        rmSync(kek)
        symlinkSync(kept, kek)
      },
      'is a symbolic link',
    ],
    [
      'that is a directory',
      () => {
        rmSync(kek)
        mkdirSync(kek)
      },
      'is not a regular file',
    ],
    [
      'in a directory that all may write',
      () => chmodSync(server.dataDir, 0o777),
      'can be written by other users',
    ],
  ])('%s refuses the start', async (_, damage, text) => {
    damage()
    const damaged = lstatSync(kek, { throwIfNoEntry: false })
    const before = damaged?.isFile() ? readFileSync(kek, 'utf8') : undefined
    await expectRefusal(text)
    const after = lstatSync(kek, { throwIfNoEntry: false })
    expect([after?.ino, after?.mode]).toEqual([damaged?.ino, damaged?.mode])
    if (before !== undefined) expect(readFileSync(kek, 'utf8')).toBe(before)
    if (damaged?.isDirectory()) rmSync(kek, { recursive: true })
  })

  test.skipIf(!asRoot)('of another user refuses the start', async () => {
    chownSync(kek, 65_534, 65_534)
    await expectRefusal('belongs to uid 65534')
  })

  async function expectRefusal(text: string): Promise<void> {
    const refused = await start()
    const output = refused.stdout + refused.stderr
    expect(output).toContain(text)
    expect(refused.code).toBe(1)
    expect(output).toContain('Server crashed')
    expect(output).not.toContain(content.trim())
    expect(output).not.toContain('Starting Server APIs')
    expect(existsSync(server.deployment.serverSocket)).toBe(false)
  }
})

test('the right file starts it again, with all keys as they were', async () => {
  server.daemon = await server.deployment.startServer()
  expect(await authorities()).toEqual(keys)
  expect(await server.deployment.serverOk(['bundle', 'show'])).toBe(server.rootsPem)
})

test('a second server on the data directory is refused by name, the first goes on', async () => {
  const socket = join(server.deployment.dir, 'second', 'api.sock')
  const port = String(await freePort())
  const second = await start('-serverPort', port, '-socketPath', socket)
  expect(second.code).toBe(1)
  expect(second.stdout + second.stderr).toContain(
    `another server is running on the embedded database in ${server.postgresDir}`,
  )
  expect((await server.deployment.server(['healthcheck'])).code).toBe(0)
  expect(await authorities()).toEqual(keys)
})

test('the data of a SPIRE server is left alone: refused, or begun empty with -fresh', async () => {
  await using deployment = await Deployment.create('signet')
  deployment.writeServerConf()
  const file = join(deployment.dir, 'server', 'data', 'datastore.sqlite3')
  writeFileSync(file, 'SQLite format 3\0 and a fleet')
  const arguments_ = ['server', 'run', '-config', deployment.serverConf]
  const refused = await run(join(PROJECT_DIR, 'bin', 'signet'), arguments_)
  expect(refused.code).toBe(1)
  expect(refused.stdout + refused.stderr).toContain(
    `${file} holds the data of a SPIRE server, which cannot be imported yet: start with -fresh`,
  )
  expect(existsSync(join(deployment.dir, 'server', 'data', 'postgres'))).toBe(false)
  expect(readFileSync(file, 'utf8')).toBe('SQLite format 3\0 and a fleet')
})

test('a data directory restored without its key file begins no second life', async () => {
  await server.daemon.stop()
  renameSync(kek, `${kek}.lost`)
  const refused = await start('-fresh')
  expect(refused.code).toBe(1)
  expect(existsSync(kek)).toBe(false)
  renameSync(`${kek}.lost`, kek)
  server.daemon = await server.deployment.startServer()
  expect(await authorities()).toEqual(keys)
})
