import { execFileSync } from 'node:child_process'
import * as fs from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import {
  createKekFile,
  defaultKekPath,
  loadKeyEncryptionKeys,
  readKekFile,
} from '../../../../src/ca/signer/kek.ts'
import { createMemoryLog } from '../../../fakes/memory-log.ts'
import { createSeededRandom } from '../../../fakes/seeded-random.ts'

const LINE = `${Buffer.alloc(32, 7).toString('base64')}\n`

let dir: string
beforeEach(() => {
  dir = fs.mkdtempSync(join(tmpdir(), 'kek-'))
})
afterEach(() => fs.rmSync(dir, { recursive: true }))

function put(name: string, content: string | Uint8Array, mode = 0o600): string {
  const path = join(dir, name)
  fs.writeFileSync(path, content)
  fs.chmodSync(path, mode)
  return path
}

function source(changes: { keyFiles?: string[]; sealed?: string[]; dataDir?: string }) {
  return {
    keyFiles: changes.keyFiles ?? [],
    dataDir: changes.dataDir ?? dir,
    sealedKekIds: async () => changes.sealed ?? [],
    random: createSeededRandom(),
    log: createMemoryLog(),
  }
}

test('one that is made is the owner’s alone, whatever the umask (SPI-01-002)', () => {
  const before = process.umask(0)
  try {
    const path = join(dir, 'new', 'kek')
    createKekFile(path, createSeededRandom())
    expect(fs.statSync(path).mode & 0o777).toBe(0o600)
    expect(fs.statSync(join(dir, 'new')).mode & 0o777).toBe(0o700)
    expect(fs.readdirSync(join(dir, 'new'))).toEqual(['kek'])
  } finally {
    process.umask(before)
  }
})

describe('one key file', () => {
  test.each([
    ['with a line end', LINE, 0o600],
    ['without a line end', LINE.trimEnd(), 0o600],
    ['from Windows', `${LINE.trimEnd()}\r\n`, 0o600],
    ['read-only', LINE, 0o400],
  ])('is read %s', (_name, content, mode) => {
    const kek = readKekFile(put('kek', content, mode))
    expect(kek.id).toMatch(/^[0-9a-f]{16}$/)
    expect(kek.key.export()).toEqual(Buffer.alloc(32, 7))
  })

  test.each([
    ['empty', '', 'kek_empty'],
    ['a line end alone', '\n', 'kek_empty'],
    ['cut short', LINE.slice(0, 20), 'kek_truncated'],
    ['the padding cut off', LINE.slice(0, 43), 'kek_truncated'],
    ['33 bytes', Buffer.alloc(33, 7).toString('base64'), 'kek_malformed'],
    ['31 bytes', Buffer.alloc(31, 7).toString('base64'), 'kek_malformed'],
    ['raw bytes', Buffer.alloc(32, 0xee), 'kek_malformed'],
    ['a PEM file', '-----BEGIN PRIVATE KEY-----\nMIG\n', 'kek_malformed'],
    ['two lines', LINE + LINE, 'kek_malformed'],
    ['stray bits in the last character', `${LINE.slice(0, 42)}d=\n`, 'kek_malformed'],
    ['huge', 'A'.repeat(5000), 'kek_malformed'],
  ])('is refused when it is %s', (_name, content, code) => {
    const path = put('kek', content)
    expect(() => readKekFile(path)).toThrowError(expect.objectContaining({ code }))
  })

  test.each([0o644, 0o640, 0o604, 0o660, 0o700])('is refused with mode %o', (mode) => {
    const path = put('kek', LINE, mode)
    expect(() => readKekFile(path)).toThrowError(expect.objectContaining({ code: 'kek_mode' }))
  })

  test('is refused when missing, a symbolic link, a directory or a FIFO', () => {
    const code = (path: string) => {
      try {
        readKekFile(path)
      } catch (error) {
        return (error as { code?: string }).code
      }
      return undefined
    }
    expect(code(join(dir, 'none'))).toBe('kek_missing')
    expect(code(join(dir, 'none', 'kek'))).toBe('kek_missing')
    fs.symlinkSync(put('real', LINE), join(dir, 'link'))
    expect(code(join(dir, 'link'))).toBe('kek_symlink')
    fs.mkdirSync(join(dir, 'folder'), { mode: 0o600 })
    expect(code(join(dir, 'folder'))).toBe('kek_not_a_file')
    execFileSync('mkfifo', ['-m', '600', join(dir, 'fifo')])
    expect(code(join(dir, 'fifo'))).toBe('kek_not_a_file')
  })

  test.runIf(process.geteuid?.() === 0)('is refused when somebody else owns it', () => {
    const path = put('kek', LINE)
    fs.chownSync(path, 12345, 12345)
    expect(() => readKekFile(path)).toThrowError(expect.objectContaining({ code: 'kek_owner' }))
    fs.chownSync(path, 0, 0)
    fs.chownSync(dir, 12345, 12345)
    expect(() => readKekFile(path)).toThrowError(expect.objectContaining({ code: 'kek_directory' }))
  })

  test('is refused in a directory that others can write, unless it is sticky', () => {
    const path = put('kek', LINE)
    fs.chmodSync(dir, 0o777)
    expect(() => readKekFile(path)).toThrowError(expect.objectContaining({ code: 'kek_directory' }))
    fs.chmodSync(dir, 0o1777)
    expect(readKekFile(path).id).toHaveLength(16)
  })

  test('never shows its key', () => {
    const kek = readKekFile(put('kek', LINE))
    const shown = `${JSON.stringify(kek)} ${String(kek.key)}`
    expect(shown).not.toContain(LINE.slice(0, 20))
    expect(kek.id).not.toContain('0707')
  })
})

describe('loading', () => {
  test('makes the default one at first start, 0600, and finds it again', async () => {
    const dataDir = join(dir, 'data')
    const [made] = await loadKeyEncryptionKeys(source({ dataDir }))
    const path = defaultKekPath(dataDir)
    expect(fs.statSync(path).mode & 0o777).toBe(0o600)
    expect(fs.readdirSync(dataDir)).toEqual(['kek'])
    const [found] = await loadKeyEncryptionKeys(source({ dataDir, sealed: [made!.id] }))
    expect(found!.id).toBe(made!.id)
  })

  test('does not replace a lost default while it is needed', async () => {
    const loading = loadKeyEncryptionKeys(source({ sealed: ['0011223344556677'] }))
    await expect(loading).rejects.toMatchObject({
      code: 'kek_missing',
      message: expect.stringContaining('put back the file of key 0011223344556677'),
    })
    expect(fs.readdirSync(dir)).toEqual([])
  })

  test('does not make configured files', async () => {
    const loading = loadKeyEncryptionKeys(source({ keyFiles: [join(dir, 'a')] }))
    await expect(loading).rejects.toMatchObject({
      code: 'kek_missing',
      message: expect.stringContaining('make it, with mode 0600, by "openssl rand -base64 32"'),
    })
  })

  test('a new file that is named before it is made is not taken for a lost one', async () => {
    const first = put('first', LINE)
    const keyFiles = [join(dir, 'new'), first]
    const loading = loadKeyEncryptionKeys(source({ keyFiles, sealed: [readKekFile(first).id] }))
    await expect(loading).rejects.toMatchObject({
      code: 'kek_missing',
      message: expect.stringMatching(/new does not exist: make it, with mode 0600/),
    })
  })

  test('refuses a key that is not the one in use, and names it', async () => {
    const path = put('kek', LINE)
    const loading = loadKeyEncryptionKeys(
      source({ keyFiles: [path], sealed: ['0011223344556677'] }),
    )
    await expect(loading).rejects.toMatchObject({
      code: 'kek_wrong',
      message: expect.stringContaining('0011223344556677'),
    })
  })

  test('keeps the order of the files: the first seals', async () => {
    const first = put('first', LINE)
    const second = put('second', `${Buffer.alloc(32, 8).toString('base64')}\n`)
    const keks = await loadKeyEncryptionKeys(
      source({ keyFiles: [second, first], sealed: [readKekFile(first).id] }),
    )
    expect(keks.map((kek) => kek.id)).toEqual([readKekFile(second).id, readKekFile(first).id])
  })

  test('a damaged default is refused, not replaced', async () => {
    const path = put('kek', '')
    await expect(loadKeyEncryptionKeys(source({}))).rejects.toMatchObject({ code: 'kek_empty' })
    expect(fs.readFileSync(path, 'utf8')).toBe('')
  })

  test('the loser of a race to make one reads the winner’s', () => {
    const path = join(dir, 'kek')
    createKekFile(path, createSeededRandom('winner'))
    const { id } = readKekFile(path)
    createKekFile(path, createSeededRandom('loser'))
    expect(readKekFile(path).id).toBe(id)
    expect(fs.readdirSync(dir)).toEqual(['kek'])
  })
})
