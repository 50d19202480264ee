/**
 * The embedded PostgreSQL: real PostgreSQL in `<data_dir>/postgres`, run by this server as its
 * child when no connection string is configured (design.md §4).
 *
 * Unix socket only, in a directory of mode 0700. As root the child runs as `POSTGRES_UID`, a number
 * without an account, so nothing is added to /etc/passwd. That user need not be able to walk down
 * to data_dir: the child gets the directories as open descriptors and names them
 * `/proc/self/fd/N`, which the kernel follows without looking at the parents. The same trick keeps
 * socket paths below the kernel's limit of 107 bytes.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import {
  chmodSync,
  chownSync,
  closeSync,
  existsSync,
  fchmodSync,
  fchownSync,
  fstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import path from 'node:path'
import pg from 'pg'
import { toHex } from '../../base/bytes.ts'
import { SignetError } from '../../base/error.ts'
import { EMBEDDED_LOG_BYTES_MAX } from '../../base/limits.ts'
import type { Clock, Log, Random } from '../../base/ports.ts'
import { makeDirectory } from '../data-dir.ts'
import { type PostgresBinaries, preparePostgresBinaries } from './embedded/binaries.ts'
import { stopLeftover } from './embedded/leftover.ts'
import { lockOwner } from './embedded/owner-lock.ts'
import { DEFAULT_TUNING, type PostgresTuning, postgresSettings } from './embedded/settings.ts'

/** In a range that neither Debian nor systemd hands out (60578 to 61183). */
const POSTGRES_UID = 60_700
/** initdb insists on an account: it runs as nobody, in a directory only root can walk into. */
const NOBODY_UID = 65_534
const USER = 'signet'
const DATABASE = 'postgres'
const PORT = 5432
const PASSWORD_BYTES = 32
const POLL_MS = 25
const START_MS_MAX = 120_000
const STOP_MS_MAX = 20_000
const RESTART_PAUSE_MS = 1_000
/** SQLSTATE invalid_password. */
const WRONG_PASSWORD = '28P01'
/** Of util-linux, on every distribution that PostgreSQL's binaries run on; small images lack it. */
const SETPRIV = '/usr/bin/setpriv'
/** Descriptors of the child: after stdin, stdout and stderr. */
const DATA_FD = '/proc/self/fd/3'
const SOCKET_FD = '/proc/self/fd/4'

export interface EmbeddedOptions {
  readonly dataDir: string
  readonly log: Log
  readonly clock: Clock
  readonly random: Random
  readonly tuning?: PostgresTuning
}

interface EmbeddedPoolConfig {
  readonly host: string
  readonly port: number
  readonly user: string
  readonly password: string
  readonly database: string
}

export interface EmbeddedPostgres extends AsyncDisposable {
  readonly poolConfig: EmbeddedPoolConfig
  /** The socket's directory, for other processes (its path may be longer than a socket's can be). */
  readonly socketDir: string
  /** Of the running postmaster. */
  readonly pid: () => number | undefined
  stop(): Promise<void>
}

interface Home {
  readonly dir: string
  readonly data: string
  readonly socket: string
  readonly uid: number | undefined
  readonly binaries: PostgresBinaries
  readonly password: string
}

export async function startEmbeddedPostgres(options: EmbeddedOptions): Promise<EmbeddedPostgres> {
  const dir = path.join(path.resolve(options.dataDir), 'postgres')
  makeDirectory(dir, 0o700)
  refuseOtherOwner(dir)
  chmodSync(dir, 0o700)
  const lock = await lockOwner(dir, options.random)
  try {
    const home = prepareHome(dir, options)
    await stopLeftover({ dataDir: home.data, socketDir: home.socket }, options)
    if (!existsSync(home.data)) await initialise(home)
    // Copied, or restored from a backup, by root.
    else if (home.uid !== undefined) chownTree(home.data, home.uid)
    return await supervise(home, lock, options)
  } catch (thrown) {
    await lock[Symbol.asyncDispose]()
    throw thrown
  }
}

/** Before anything is touched: what another user's server made must go on working for that user. */
function refuseOtherOwner(dir: string): void {
  const { uid } = statSync(dir)
  const own = process.geteuid?.()
  if (uid === own) return
  const text =
    `${dir} belongs to uid ${uid}, but this server runs as uid ${own}: start it as its owner, ` +
    `or give it all of data_dir (chown -R ${own})`
  throw new SignetError('failed_precondition', 'data_dir_owner', text)
}

function prepareHome(dir: string, options: EmbeddedOptions): Home {
  const asRoot = process.geteuid?.() === 0
  const socket = path.join(dir, 'socket')
  mkdirSync(socket, { recursive: true, mode: 0o700 })
  chmodSync(socket, 0o700)
  if (asRoot) chownSync(socket, POSTGRES_UID, POSTGRES_UID)
  return {
    dir,
    data: path.join(dir, 'data'),
    socket,
    uid: asRoot ? POSTGRES_UID : undefined,
    binaries: preparePostgresBinaries({ asRoot, privateDir: dir }),
    password: loadPassword(dir, options.random),
  }
}

function loadPassword(dir: string, random: Random): string {
  const file = path.join(dir, 'password')
  if (!existsSync(file)) {
    if (existsSync(path.join(dir, 'data'))) throw wrongPassword(file)
    const draft = `${file}.new`
    writeFileSync(draft, toHex(random.bytes(PASSWORD_BYTES)), { mode: 0o600 })
    renameSync(draft, file)
  }
  const mode = statSync(file).mode & 0o777
  if ((mode & 0o077) !== 0) {
    const text = `${file} must not be accessible by others (mode ${mode.toString(8)})`
    throw new SignetError('failed_precondition', 'bad_file_mode', text)
  }
  return readFileSync(file, 'utf8')
}

function wrongPassword(file: string, cause?: unknown): SignetError {
  const text = `${file} does not hold the password of the database beside it: put its file back`
  return new SignetError('failed_precondition', 'embedded_postgres_password', text, { cause })
}

/** Into a directory beside, renamed when whole: a crash leaves no half database behind. */
async function initialise(home: Home): Promise<void> {
  for (const name of readdirSync(home.dir)) {
    if (name.startsWith('data.')) rmSync(path.join(home.dir, name), { recursive: true })
  }
  const half = mkdtempSync(`${home.data}.`)
  const secret = path.join(home.dir, 'password.initdb')
  writeFileSync(secret, home.password, { mode: 0o600 })
  const asRoot = home.uid !== undefined
  if (asRoot) {
    chownSync(half, NOBODY_UID, NOBODY_UID)
    chownSync(secret, NOBODY_UID, NOBODY_UID)
  }
  const fds = [openSync(half, 'r'), openSync(secret, 'r')]
  const args = [`--pgdata=${DATA_FD}`, `--username=${USER}`, '--pwfile=/proc/self/fd/4']
  args.push('--encoding=UTF8', '--locale=C', '--no-instructions')
  args.push('--auth-local=scram-sha-256', '--auth-host=reject')
  try {
    await runOnce(home.binaries.initdb, args, asRoot ? NOBODY_UID : undefined, fds)
  } finally {
    for (const fd of fds) closeSync(fd)
    rmSync(secret)
  }
  if (asRoot) chownTree(half, POSTGRES_UID)
  renameSync(half, home.data)
}

/** The directory itself last: that it is right says that all of it is. */
function chownTree(dir: string, uid: number): void {
  if (statSync(dir).uid === uid) return
  for (const name of readdirSync(dir, { recursive: true, encoding: 'utf8' })) {
    chownSync(path.join(dir, name), uid, uid)
  }
  chownSync(dir, uid, uid)
}

function childOptions(uid: number | undefined) {
  return {
    cwd: '/',
    // Only what it needs: the server's environment may hold secrets.
    env: { LC_ALL: 'C', PATH: '/usr/bin:/bin', TZ: 'UTC' },
    ...(uid === undefined ? {} : { uid, gid: uid }),
  }
}

async function runOnce(
  program: string,
  args: readonly string[],
  uid: number | undefined,
  fds: readonly number[],
): Promise<void> {
  const child = spawn(program, args, {
    ...childOptions(uid),
    stdio: ['ignore', 'ignore', 'pipe', ...fds],
  })
  let text = ''
  child.stderr?.on('data', (chunk: Buffer) => {
    text = (text + chunk.toString('utf8')).slice(-4096)
  })
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', resolve)
  })
  if (code !== 0) {
    const last = text.trim().split('\n').at(-1) ?? ''
    const message = `the embedded PostgreSQL can not be set up: ${last}`
    const fields = { output: text, exit_code: code }
    throw new SignetError('failed_precondition', 'embedded_postgres_failed', message, { fields })
  }
}

async function supervise(
  home: Home,
  lock: AsyncDisposable,
  options: EmbeddedOptions,
): Promise<EmbeddedPostgres> {
  const socketFd = openSync(home.socket, 'r')
  const poolConfig: EmbeddedPoolConfig = {
    host: `/proc/self/fd/${socketFd}`,
    port: PORT,
    user: USER,
    password: home.password,
    database: DATABASE,
  }
  const stopping = new AbortController()
  let postmaster = launch(home, options)
  const keep = async () => {
    for (;;) {
      const reason = await exitOf(postmaster.child)
      if (stopping.signal.aborted) return
      options.log.error('Embedded PostgreSQL ended unexpectedly; starting it again', {
        reason,
        last_words: lastWords(home, postmaster),
      })
      const next = await relaunch(home, options, stopping.signal)
      if (next === undefined) return
      postmaster = next
    }
  }
  try {
    await waitReady(postmaster, poolConfig, home, options)
  } catch (thrown) {
    await endChild(postmaster.child, options.clock)
    closeSync(socketFd)
    throw thrown
  }
  keep().catch((error) => {
    if (!stopping.signal.aborted) options.log.error('Embedded PostgreSQL is gone', { error })
  })
  options.log.info('Embedded PostgreSQL is running', {
    dir: home.dir,
    pid: postmaster.child.pid,
  })
  let stopped: Promise<void> | undefined
  const stop = async () => {
    stopping.abort()
    await endChild(postmaster.child, options.clock)
    closeSync(socketFd)
    await lock[Symbol.asyncDispose]()
  }
  const stopOnce = () => {
    stopped ??= stop()
    return stopped
  }
  return {
    poolConfig,
    socketDir: home.socket,
    pid: () => postmaster.child.pid,
    stop: stopOnce,
    [Symbol.asyncDispose]: stopOnce,
  }
}

/** Tries until told to stop: a full disk, or too many open files, must not be the end of it. */
async function relaunch(
  home: Home,
  options: EmbeddedOptions,
  stop: AbortSignal,
): Promise<Postmaster | undefined> {
  for (;;) {
    try {
      await options.clock.sleep(RESTART_PAUSE_MS, stop)
      await stopLeftover({ dataDir: home.data, socketDir: home.socket }, options)
      return stop.aborted ? undefined : launch(home, options)
    } catch (error) {
      if (stop.aborted) return undefined
      options.log.error('Embedded PostgreSQL could not be started; trying again', { error })
    }
  }
}

interface Postmaster {
  readonly child: ChildProcess
  /** Where its words begin in the log. */
  readonly logStart: number
}

function launch(home: Home, options: EmbeddedOptions): Postmaster {
  const logFd = openLog(logFile(home), home.uid)
  const fds = [openSync(home.data, 'r'), openSync(home.socket, 'r')]
  const args = ['-D', DATA_FD, '-k', SOCKET_FD, '-p', String(PORT)]
  args.push(...postgresSettings(options.tuning ?? DEFAULT_TUNING))
  const [program = '', ...rest] = [...dyingWithUs(), home.binaries.postgres, ...args]
  try {
    const child = spawn(program, rest, {
      ...childOptions(home.uid),
      // An own session: Ctrl-C at the server's terminal must not end the database first.
      detached: true,
      stdio: ['ignore', logFd, logFd, ...fds],
    })
    return { child, logStart: fstatSync(logFd).size }
  } finally {
    for (const fd of [logFd, ...fds]) closeSync(fd)
  }
}

/**
 * A server that is killed can not stop its child; the kernel then sends it SIGINT, a fast shutdown
 * (PR_SET_PDEATHSIG). That is asked for between fork and exec, where Node runs no code of ours. On
 * a machine without the program the next start stops what is left (leftover.ts).
 */
function dyingWithUs(): readonly string[] {
  return existsSync(SETPRIV) ? [SETPRIV, '--pdeathsig', 'INT', '--'] : []
}

function logFile(home: Home): string {
  return path.join(home.dir, 'postgres.log')
}

/** Somebody may have removed the log: no reason not to start again. */
function lastWords(home: Home, { logStart }: Postmaster): string {
  const file = logFile(home)
  return existsSync(file) ? lastWordsOf(readFileSync(file).subarray(logStart).toString()) : ''
}

/**
 * Why PostgreSQL ended, such as a full disk: the last text in its log of a severity that ends it.
 * Empty if there is none; what it says to clients while it starts or stops is none.
 */
export function lastWordsOf(log: string): string {
  const fatal = /(?:PANIC|FATAL): +(?! |the database system is)(.*)/g
  return [...log.matchAll(fatal)].at(-1)?.[1] ?? ''
}

/** One file and its predecessor: bounded without a rotation job. */
function openLog(file: string, uid: number | undefined): number {
  if (existsSync(file) && statSync(file).size > EMBEDDED_LOG_BYTES_MAX)
    renameSync(file, `${file}.1`)
  const fd = openSync(file, 'a', 0o600)
  fchmodSync(fd, 0o600)
  if (uid !== undefined) fchownSync(fd, uid, uid)
  return fd
}

async function waitReady(
  postmaster: Postmaster,
  poolConfig: EmbeddedPoolConfig,
  home: Home,
  { clock }: EmbeddedOptions,
): Promise<void> {
  let ended: string | undefined
  exitOf(postmaster.child).then((reason) => {
    ended = reason
  })
  const deadline = clock.monotonicMs() + START_MS_MAX
  while (true) {
    const client = new pg.Client({ ...poolConfig, connectionTimeoutMillis: 5_000 })
    client.on('error', () => {})
    try {
      await client.connect()
      await client.end()
      return
    } catch (cause) {
      if ((cause as { code?: unknown }).code === WRONG_PASSWORD) {
        throw wrongPassword(path.join(home.dir, 'password'), cause)
      }
      if (ended === undefined && clock.monotonicMs() < deadline) {
        await clock.sleep(POLL_MS)
        continue
      }
      const reason = ended ?? `no answer in ${START_MS_MAX / 1000} s`
      const words = lastWords(home, postmaster) || reason
      const text = `embedded PostgreSQL did not start: ${words}; see ${logFile(home)}`
      const fields = { reason }
      throw new SignetError('unavailable', 'embedded_postgres_failed', text, { fields })
    }
  }
}

function exitOf(child: ChildProcess): Promise<string> {
  if (child.exitCode !== null) return Promise.resolve(`exit code ${child.exitCode}`)
  if (child.signalCode !== null) return Promise.resolve(child.signalCode)
  return new Promise((resolve) => {
    child.once('error', (error) => resolve(error.message))
    child.once('exit', (code, signal) => resolve(signal ?? `exit code ${code}`))
  })
}

/** Fast shutdown (SIGINT), then immediate (SIGQUIT): either way no committed row is lost. */
async function endChild(child: ChildProcess, clock: Clock): Promise<void> {
  const gone = exitOf(child)
  child.kill('SIGINT')
  const timer = new AbortController()
  const late = clock.sleep(STOP_MS_MAX, timer.signal).then(
    () => child.kill('SIGQUIT'),
    () => {},
  )
  await gone
  timer.abort()
  await late
}
