/**
 * Where the key of a sealed cache lies: in /run, which no reboot survives, or, where that is not
 * ours to write, beside the file. The key's file also says which cache it opens, so that the keys of
 * data directories that are gone can be told from the others and removed.
 */
import { createHash } from 'node:crypto'
import { lstat, mkdir, readdir, readFile, rm, utimes } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { SEAL_KEY_FILES_MAX } from '../../base/limits.ts'
import type { Clock, EpochSeconds, Log, Random } from '../../base/ports.ts'
import { writePrivateFile } from '../node/private-file.ts'
import { SEAL_KEY_BYTES } from './seal.ts'

export const SEAL_RUN_DIR = '/run/signet-agent'
const RUN_DIR_MODE = 0o700
/** A path of Linux, in the file behind the key. */
const PATH_BYTES_MAX = 4_096

/**
 * A data directory that is not there may be on a disk that is not mounted now: its key stays for
 * this long after its last use.
 */
const UNUSED_SECONDS_MAX = 30 * 86_400

interface KeyFile {
  readonly at: string
  readonly key: Uint8Array
  /** Of the cache it opens; empty in keys of earlier versions, which open none. */
  readonly path: string
  readonly usedAt: EpochSeconds
}

/** The keys there are for the cache at `path`, the preferred place first. */
export async function findSealKeys(runDir: string, path: string): Promise<Uint8Array[]> {
  return (await findKeyFiles(runDir, path)).map(({ key }) => key)
}

/** The key to seal with, made where there is none; marks it as used now. */
export async function openSealKey(
  runDir: string,
  path: string,
  { clock, random }: { readonly clock: Clock; readonly random: Random },
): Promise<Uint8Array> {
  const [known] = await findKeyFiles(runDir, path)
  if (known !== undefined) {
    const now = clock.nowSeconds()
    await utimes(known.at, now, now)
    return known.key
  }
  const key = random.bytes(SEAL_KEY_BYTES)
  const content = Buffer.concat([key, Buffer.from(path)])
  for (const keyPath of keyPaths(runDir, path)) {
    try {
      await mkdir(dirname(keyPath), { recursive: true, mode: RUN_DIR_MODE })
      await writePrivateFile(keyPath, content)
      return key
    } catch {
      // Not ours to write: the next place.
    }
  }
  throw new Error('no place for the key of the sealed SVID cache')
}

/** Removes keys unused for long whose cache's data directory is not there any more; how many. */
export async function sweepSealKeys(
  runDir: string,
  { clock, log }: { readonly clock: Clock; readonly log: Log },
): Promise<number> {
  const names = await readdir(runDir).catch(() => [])
  const usedMin = clock.nowSeconds() - UNUSED_SECONDS_MAX
  let swept = 0
  for (const name of names.filter((one) => one.endsWith('.key')).slice(0, SEAL_KEY_FILES_MAX)) {
    const file = await readKeyFile(join(runDir, name))
    if (file === undefined || file.usedAt >= usedMin) continue
    if (file.path !== '' && !(await isGone(dirname(file.path)))) continue
    await rm(file.at, { force: true })
    swept++
  }
  if (swept > 0) log.info('Removed seal keys of data directories that are gone', { count: swept })
  return swept
}

function keyPaths(runDir: string, path: string): string[] {
  const name = createHash('sha256').update(path).digest('hex').slice(0, 32)
  return [join(runDir, `${name}.key`), `${path}.key`]
}

async function findKeyFiles(runDir: string, path: string): Promise<KeyFile[]> {
  const found = await Promise.all(keyPaths(runDir, path).map(readKeyFile))
  return found.filter((file) => file !== undefined).filter((file) => file.path === path)
}

/** A key that others could have read or put there is no key. */
async function readKeyFile(at: string): Promise<KeyFile | undefined> {
  try {
    const stat = await lstat(at)
    if (!stat.isFile() || (stat.mode & 0o077) !== 0 || stat.uid !== process.getuid?.()) {
      return undefined
    }
    if (stat.size < SEAL_KEY_BYTES || stat.size > SEAL_KEY_BYTES + PATH_BYTES_MAX) return undefined
    const content = await readFile(at)
    return {
      at,
      usedAt: Math.floor(stat.mtimeMs / 1000),
      key: content.subarray(0, SEAL_KEY_BYTES),
      path: content.subarray(SEAL_KEY_BYTES).toString(),
    }
  } catch {
    return undefined
  }
}

/** Only what is certainly not there: a directory that can't be looked at may well be somebody's. */
async function isGone(directory: string): Promise<boolean> {
  try {
    await lstat(directory)
    return false
  } catch (error) {
    return error instanceof Error && 'code' in error && error.code === 'ENOENT'
  }
}
