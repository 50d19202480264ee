/**
 * Key-encryption keys: the files that open the private keys in the database (design.md §2).
 *
 * A file holds one line, the base64 of 32 random bytes (`openssl rand -base64 32` makes one). It
 * must be a regular file of ours or root's that nobody else can read, in a directory nobody else
 * can write. Whatever is wrong with it refuses the start, each cause with its own code and text
 * (reliability.md F21, T-Y1); nothing is ever silently replaced.
 */
import { createHash, createSecretKey, type KeyObject } from 'node:crypto'
import * as fs from 'node:fs'
import { dirname, join } from 'node:path'
import { bytesEqual, toHex, utf8 } from '../../base/bytes.ts'
import { SignetError } from '../../base/error.ts'
import type { Log, Random } from '../../base/ports.ts'

const KEK_BYTES = 32
/** 44 characters and a line end; anything larger is not one of our files. */
const KEK_FILE_BYTES_MAX = 256
const KEK_ID_BYTES = 8
const RESTORE = 'put it back from its backup'
const KEK_ID_DOMAIN = utf8('signet key-encryption key id v1\0')

/** A KeyObject, so that no log or error can print it. */
export interface KeyEncryptionKey {
  /** Lower-case hex; says which key, tells nothing about it. */
  readonly id: string
  readonly key: KeyObject
}

export interface KekSource {
  /** The first seals, all open. Empty: the default file in `dataDir`. */
  readonly keyFiles: readonly string[]
  readonly dataDir: string
  /** Ids of the keys that seal something in the database now. */
  readonly sealedKekIds: () => Promise<readonly string[]>
  readonly random: Random
  readonly log: Log
}

/**
 * The keys in the order of the files. Rejects when one that the database needs is not among them.
 */
export async function loadKeyEncryptionKeys(source: KekSource): Promise<KeyEncryptionKey[]> {
  const needed = [...new Set(await source.sealedKekIds())]
  const paths = source.keyFiles.length > 0 ? source.keyFiles : [defaultKekPath(source.dataDir)]
  if (source.keyFiles.length === 0 && needed.length === 0 && !exists(paths[0]!)) {
    createKekFile(paths[0]!, source.random)
    source.log.info('Created key-encryption key', { path: paths[0]! })
  }
  const found = new Map(paths.filter(exists).map((path) => [path, readKekFile(path)]))
  const held = new Set([...found.values()].map(({ id }) => id))
  const lost = needed.filter((id) => !held.has(id))
  const keks = paths.map((path) => {
    const kek = found.get(path)
    if (kek) return kek
    throw refuse('kek_missing', `key file ${path} does not exist: ${cure(lost)}`)
  })
  if (lost.length > 0) {
    throw refuse(
      'kek_wrong',
      `keys in the database are sealed by key-encryption key ${lost.join(' and ')}, ` +
        `which is not in ${paths.join(', ')}: ${cure(lost)}`,
    )
  }
  return keks
}

function cure(lost: readonly string[]): string {
  if (lost.length === 0) return 'make it, with mode 0600, by "openssl rand -base64 32"'
  return (
    `put back the file of key ${lost.join(' and of key ')}, from a backup or from another ` +
    'server on this database; KeyManager "sealed" names files in key_files'
  )
}

export function defaultKekPath(dataDir: string): string {
  return join(dataDir, 'kek')
}

export function keyEncryptionKey(bytes: Uint8Array): KeyEncryptionKey {
  const hash = createHash('sha256').update(KEK_ID_DOMAIN).update(bytes).digest()
  return {
    id: toHex(hash.subarray(0, KEK_ID_BYTES)),
    key: createSecretKey(bytes),
  }
}

export function readKekFile(path: string): KeyEncryptionKey {
  checkDirectory(path)
  const fd = openNoFollow(path)
  const content = Buffer.alloc(KEK_FILE_BYTES_MAX + 1)
  try {
    checkFile(path, fs.fstatSync(fd))
    const size = fs.readSync(fd, content, 0, content.length, 0)
    const bytes = parseKek(path, content.subarray(0, size))
    const kek = keyEncryptionKey(bytes)
    bytes.fill(0)
    return kek
  } finally {
    content.fill(0)
    fs.closeSync(fd)
  }
}

/**
 * A temporary file becomes the real one by link(2): it is complete and on disk, directory too,
 * before it has its name, and it never overwrites one that is there.
 */
export function createKekFile(path: string, random: Random): void {
  fs.mkdirSync(dirname(path), { recursive: true, mode: 0o700 })
  checkDirectory(path)
  const bytes = random.bytes(KEK_BYTES)
  const temporary = `${path}.${toHex(random.bytes(8))}.new`
  const flags = fs.constants.O_WRONLY | fs.constants.O_CREAT | fs.constants.O_EXCL
  const fd = fs.openSync(temporary, flags | fs.constants.O_NOFOLLOW, 0o600)
  try {
    try {
      fs.fchmodSync(fd, 0o600)
      fs.writeSync(fd, `${Buffer.from(bytes).toString('base64')}\n`)
      fs.fsyncSync(fd)
    } finally {
      fs.closeSync(fd)
    }
    linkOrKeep(temporary, path)
  } finally {
    fs.unlinkSync(temporary)
  }
  syncDirectory(dirname(path))
  bytes.fill(0)
  readKekFile(path)
}

/** Another process that made one in the same moment wins: both then read that one. */
function linkOrKeep(from: string, to: string): void {
  try {
    fs.linkSync(from, to)
  } catch (error) {
    if (codeOf(error) !== 'EEXIST') throw error
  }
}

function syncDirectory(path: string): void {
  const fd = fs.openSync(path, fs.constants.O_RDONLY | fs.constants.O_DIRECTORY)
  try {
    fs.fsyncSync(fd)
  } finally {
    fs.closeSync(fd)
  }
}

/** Who can write the directory can put another file in place. A sticky one (/tmp) protects ours. */
function checkDirectory(path: string): void {
  const directory = dirname(path)
  const stat = fs.statSync(directory, { throwIfNoEntry: false })
  if (!stat) throw refuse('kek_missing', `directory of key file ${path} does not exist`)
  if (!isOurs(stat.uid)) {
    throw refuse('kek_directory', `directory of key file ${path} ${notOurs(stat.uid)}`)
  }
  if ((stat.mode & 0o022) !== 0 && (stat.mode & 0o1000) === 0) {
    const text = `directory of key file ${path} can be written by other users: chmod go-w it`
    throw refuse('kek_directory', text)
  }
}

function openNoFollow(path: string): number {
  const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK } = fs.constants
  try {
    // O_NONBLOCK: a FIFO in its place must not hang the start.
    return fs.openSync(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK)
  } catch (error) {
    const code = codeOf(error)
    if (code === 'ENOENT') throw refuse('kek_missing', `key file ${path} does not exist`)
    if (code === 'ELOOP') {
      throw refuse('kek_symlink', `key file ${path} is a symbolic link: name the file itself`)
    }
    throw refuse('kek_unreadable', `key file ${path} cannot be opened (${code})`, error)
  }
}

function checkFile(path: string, stat: fs.Stats): void {
  if (!stat.isFile()) throw refuse('kek_not_a_file', `key file ${path} is not a regular file`)
  if (!isOurs(stat.uid)) throw refuse('kek_owner', `key file ${path} ${notOurs(stat.uid)}`)
  if ((stat.mode & 0o177) !== 0) {
    const mode = (stat.mode & 0o777).toString(8).padStart(4, '0')
    throw refuse('kek_mode', `key file ${path} has mode ${mode}, it must be 0600 or 0400`)
  }
}

function parseKek(path: string, content: Buffer): Uint8Array {
  const text = content.toString('latin1').replace(/\r?\n$/, '')
  if (text === '') throw refuse('kek_empty', `key file ${path} is empty: ${RESTORE}`)
  if (/^[A-Za-z0-9+/]{1,43}$/.test(text)) {
    throw refuse('kek_truncated', `key file ${path} is truncated: ${RESTORE}`)
  }
  const bytes = new Uint8Array(Buffer.from(text, 'base64'))
  const canonical = utf8(Buffer.from(bytes).toString('base64'))
  if (bytes.length !== KEK_BYTES || !bytesEqual(canonical, utf8(text))) {
    const text = `key file ${path} is not one line of base64 of 32 bytes: ${RESTORE}`
    throw refuse('kek_malformed', text)
  }
  return bytes
}

function exists(path: string): boolean {
  return fs.lstatSync(path, { throwIfNoEntry: false }) !== undefined
}

function isOurs(uid: number): boolean {
  return uid === 0 || uid === process.geteuid!()
}

function notOurs(uid: number): string {
  return `belongs to uid ${uid}, it must belong to uid ${process.geteuid!()} or to root`
}

function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : 'unknown'
}

function refuse(code: string, message: string, cause?: unknown): SignetError {
  return new SignetError('failed_precondition', code, message, { cause })
}
