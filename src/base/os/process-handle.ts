/**
 * A process held fast: a pidfd for its life and one opened /proc/<pid> directory for its facts, so
 * that a recycled pid can never mix two processes into one identity (reliability.md T-W1, T-W3).
 *
 * All facts are read through the directory's own descriptor: the kernel binds it to the process,
 * and once that is gone every read fails, whoever owns the number then. Owns two descriptors until
 * disposed.
 */
import { hash } from 'node:crypto'
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs'
import type { Socket } from 'node:net'
import { SignetError } from '../error.ts'
import { errorName, isReadable, openAt, readLinkAt } from './libc.ts'
import {
  openPidfd,
  type PeerPidfd,
  peerCredentials,
  peerPidfd,
  processGone,
  socketFd,
} from './peer-credentials.ts'

/** Finds a file without opening it; Node has no name for it. */
const O_PATH = 0o10000000
/** Holds what one read gives; of text that is no secret, and never while others run. */
const partBuffer = Buffer.alloc(64 * 1024)

/**
 * What must stay the same as long as a process keeps its identity. A part that we may not read (an
 * agent without CAP_SYS_PTRACE looking at another user) is empty, and stays comparable.
 */
export interface ProcessFingerprint {
  /** Clock ticks after boot: tells two owners of one pid apart. */
  readonly startTime: string
  /** Where the stack begins: random at each exec, so even an exec of the same file shows. */
  readonly stackStart: string
  /** `device:inode` of the executable. */
  readonly exe: string
  /** SHA-256 of /proc/<pid>/cgroup, hex. */
  readonly cgroup: string
  /** As their links read: `mnt:[inode]`. */
  readonly mountNamespace: string
  readonly pidNamespace: string
  /** The effective ids: what SO_PEERCRED notes, what is attested, and what SPIRE compares. */
  readonly uid: number
  readonly gid: number
}

export interface ProcessHandle extends Disposable {
  readonly pid: number
  /** As of connect time for a peer, else the effective ones. */
  readonly uid: number
  readonly gid: number
  /** Readable once the process exited; undefined where the kernel has none. The handle closes it. */
  readonly pidfd: number | undefined
  /** False from the moment the process exits, also while it is a zombie. */
  alive(): boolean
  fingerprint(): ProcessFingerprint
  /** Text of a file in /proc/<pid>. */
  readText(name: 'cgroup' | 'cmdline' | 'mountinfo' | 'stat' | 'status'): string
  /** Target of /proc/<pid>/exe as the process sees it. */
  exePath(): string
  /** A descriptor of the running executable itself; the caller closes it. */
  openExe(): number
}

/** The process that connected this Unix socket. */
export function openPeerProcess(socket: Socket): ProcessHandle {
  const fd = socketFd(socket)
  const { pid, uid, gid } = peerCredentials(fd)
  if (pid <= 0) {
    throw new SignetError('unavailable', 'process_invisible', 'caller process is not visible')
  }
  return openHandle(pid, peerPidfd(fd, pid), { uid, gid })
}

/** A process by number, for callers that know that it can't have been recycled, and for tests. */
export function openProcess(pid: number): ProcessHandle {
  return openHandle(pid, openPidfd(pid))
}

export function processFingerprint(pid: number): ProcessFingerprint {
  using handle = openProcess(pid)
  return handle.fingerprint()
}

/** The first part in which two fingerprints differ. */
export function fingerprintChange(
  before: ProcessFingerprint,
  after: ProcessFingerprint,
): keyof ProcessFingerprint | undefined {
  const parts = Object.keys(before) as (keyof ProcessFingerprint)[]
  return parts.find((part) => before[part] !== after[part])
}

interface Ids {
  readonly uid: number
  readonly gid: number
}

function openHandle(pid: number, pidfd: PeerPidfd | undefined, ids?: Ids): ProcessHandle {
  let directoryFd = -1
  const close = () => {
    if (directoryFd >= 0) closeSync(directoryFd)
    if (pidfd) closeSync(pidfd.fd)
    directoryFd = -1
    pidfd = undefined
  }
  try {
    directoryFd = openSync(`/proc/${pid}`, constants.O_RDONLY | constants.O_DIRECTORY)
    // Alive after the directory was opened: the number was still this process's, and so is it.
    if (pidfd && isReadable(pidfd.fd)) throw processGone(pid)
    return createHandle({ pid, pidfd, ids, directoryFd }, close)
  } catch (error) {
    close()
    throw error instanceof SignetError ? error : processGone(pid, error)
  }
}

interface Held {
  readonly pid: number
  readonly pidfd: PeerPidfd | undefined
  /** Undefined: the effective ones. */
  readonly ids: Ids | undefined
  readonly directoryFd: number
}

function createHandle({ pid, pidfd, ids, directoryFd }: Held, close: () => void): ProcessHandle {
  let open = true
  const read = <T>(fn: () => T): T => {
    if (!open) throw processGone(pid)
    try {
      return fn()
    } catch (error) {
      throw isGone(error) ? processGone(pid, error) : readFailed(pid, error)
    }
  }
  const readText: ProcessHandle['readText'] = (name) => read(() => readPart(directoryFd, name))
  const startTime = pidfd ? '' : parseStat(readText('stat')).startTime
  return {
    ...(ids ?? read(() => effectiveIds(directoryFd))),
    pid,
    pidfd: pidfd?.fd,
    alive() {
      if (!open) return false
      return pidfd ? !isReadable(pidfd.fd) : stillRuns(directoryFd, startTime)
    },
    fingerprint: () => read(() => readFingerprint(directoryFd)),
    readText,
    exePath: () => read(() => readLinkAt(directoryFd, 'exe')),
    openExe: () => read(() => openAt(directoryFd, 'exe', constants.O_RDONLY)),
    [Symbol.dispose]() {
      if (!open) return
      open = false
      close()
    },
  }
}

function readFingerprint(directoryFd: number): ProcessFingerprint {
  // First of all: once the process is gone this gives root, where the files that follow fail.
  const ids = effectiveIds(directoryFd)
  const stat = parseStat(readPart(directoryFd, 'stat'))
  return {
    ...ids,
    startTime: stat.startTime,
    stackStart: stat.stackStart,
    exe: ifAllowed(() => inodeOf(directoryFd, 'exe')),
    cgroup: hash('sha256', readPart(directoryFd, 'cgroup')),
    // Namespaces name their inode in the link itself (namespaces(7)): nothing to open.
    mountNamespace: ifAllowed(() => readLinkAt(directoryFd, 'ns/mnt')),
    pidNamespace: ifAllowed(() => readLinkAt(directoryFd, 'ns/pid')),
  }
}

/**
 * A file of /proc as text, a character for each byte. readFileSync would take 64 KiB anew for each,
 * as these files have no size: a thousand workloads are looked at again and again.
 */
function readPart(directoryFd: number, name: string): string {
  const fd = openAt(directoryFd, name, constants.O_RDONLY)
  try {
    let text = ''
    for (;;) {
      const bytes = readSync(fd, partBuffer)
      text += partBuffer.toString('latin1', 0, bytes)
      if (bytes === 0) return text
    }
  } finally {
    closeSync(fd)
  }
}

function inodeOf(directoryFd: number, name: string): string {
  const fd = openAt(directoryFd, name, O_PATH)
  try {
    const { dev, ino } = fstatSync(fd, { bigint: true })
    return `${dev}:${ino}`
  } finally {
    closeSync(fd)
  }
}

/** Empty when we may not look; a process that is gone throws. */
function ifAllowed(read: () => string): string {
  try {
    return read()
  } catch (error) {
    if (errorCode(error) === 'EACCES' || errorCode(error) === 'EPERM') return ''
    throw error
  }
}

/** proc_pid_stat(5). The command name may hold spaces and parentheses; the last one ends it. */
function parseStat(text: string): { state: string; startTime: string; stackStart: string } {
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
  const [state, startTime, stackStart] = [fields[0], fields[19], fields[25]]
  if (state === undefined || startTime === undefined || stackStart === undefined) {
    throw new SignetError('internal', 'bad_proc_stat', 'unexpected form of /proc/<pid>/stat')
  }
  return { state, startTime, stackStart }
}

function stillRuns(directoryFd: number, startTime: string): boolean {
  try {
    const stat = parseStat(readPart(directoryFd, 'stat'))
    return stat.startTime === startTime && stat.state !== 'Z' && stat.state !== 'X'
  } catch {
    return false
  }
}

/** The owner of /proc/<pid>, which the kernel makes the process's effective ids of this moment. */
function effectiveIds(directoryFd: number): Ids {
  const { uid, gid } = fstatSync(directoryFd)
  return { uid, gid }
}

function isGone(error: unknown): boolean {
  return errorCode(error) === 'ESRCH' || errorCode(error) === 'ENOENT'
}

function readFailed(pid: number, cause: unknown): SignetError {
  if (cause instanceof SignetError && errorName(cause) === '') return cause
  return new SignetError('internal', 'process_unreadable', 'caller process is not readable', {
    cause,
    fields: { pid },
  })
}

function errorCode(error: unknown): string | undefined {
  if (error instanceof SignetError) return errorName(error)
  return error instanceof Error && 'code' in error ? String(error.code) : undefined
}
