/**
 * A process held fast: a pidfd for its life and one opened /proc/<pid> directory for its facts, so
 * that a recycled pid can never mix two processes into one identity (reliability.md T-W1, T-W3).
 *
 * All facts are read through the directory's own descriptor: the kernel binds it to the process,
 * and once that is gone every read fails, whoever owns the number then. Owns two descriptors until
 * disposed.
 */
import { hash } from 'node:crypto'
import { closeSync, constants, openSync, readFileSync, readlinkSync, statSync } from 'node:fs'
import type { Socket } from 'node:net'
import { SignetError } from '../error.ts'
import { isReadable } from './libc.ts'
import {
  openPidfd,
  type PeerPidfd,
  peerCredentials,
  peerPidfd,
  processGone,
  socketFd,
} from './peer-credentials.ts'

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
  /** Inodes of the namespaces. */
  readonly mountNamespace: string
  readonly pidNamespace: string
}

export interface ProcessHandle extends Disposable {
  readonly pid: number
  /** As of connect time for a peer, else the effective ones. */
  readonly uid: number
  readonly gid: number
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
  const handle = openHandle(pid, peerPidfd(fd, pid))
  try {
    if (!handle.exact && effectiveIds(handle).uid !== uid) throw processGone(pid)
  } catch (error) {
    handle[Symbol.dispose]()
    throw error
  }
  return Object.assign(handle, { uid, gid })
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

interface OpenHandle extends ProcessHandle {
  readonly exact: boolean
}

function openHandle(pid: number, pidfd: PeerPidfd | undefined): OpenHandle {
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
    return createHandle(pid, directoryFd, pidfd, close)
  } catch (error) {
    close()
    throw error instanceof SignetError ? error : processGone(pid, error)
  }
}

function createHandle(
  pid: number,
  directoryFd: number,
  pidfd: PeerPidfd | undefined,
  close: () => void,
): OpenHandle {
  // Through /proc/self/fd the kernel continues at the opened directory itself: openat, which Node
  // does not have.
  const root = `/proc/self/fd/${directoryFd}`
  let open = true
  const read = <T>(fn: () => T): T => {
    if (!open) throw processGone(pid)
    try {
      return fn()
    } catch (error) {
      throw isGone(error) ? processGone(pid, error) : readFailed(pid, error)
    }
  }
  const started = parseStat(read(() => readFileSync(`${root}/stat`, 'latin1')))
  const readText: ProcessHandle['readText'] = (name) =>
    read(() => readFileSync(`${root}/${name}`, 'latin1'))
  const handle = {
    pid,
    exact: pidfd?.exact ?? false,
    alive() {
      if (!open) return false
      if (pidfd) return !isReadable(pidfd.fd)
      return stillRuns(root, started.startTime)
    },
    fingerprint: () => read(() => readFingerprint(root)),
    readText,
    exePath: () => read(() => readlinkSync(`${root}/exe`)),
    openExe: () => read(() => openSync(`${root}/exe`, constants.O_RDONLY)),
    [Symbol.dispose]() {
      if (!open) return
      open = false
      close()
    },
  }
  return { ...handle, ...effectiveIds(handle) }
}

function readFingerprint(root: string): ProcessFingerprint {
  const stat = parseStat(readFileSync(`${root}/stat`, 'latin1'))
  return {
    startTime: stat.startTime,
    stackStart: stat.stackStart,
    exe: inodeOf(`${root}/exe`),
    cgroup: hash('sha256', readFileSync(`${root}/cgroup`, 'latin1')),
    mountNamespace: inodeOf(`${root}/ns/mnt`),
    pidNamespace: inodeOf(`${root}/ns/pid`),
  }
}

/** Empty when we may not look; a process that is gone throws. */
function inodeOf(path: string): string {
  try {
    const { dev, ino } = statSync(path, { bigint: true })
    return `${dev}:${ino}`
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

function stillRuns(root: string, startTime: string): boolean {
  try {
    const stat = parseStat(readFileSync(`${root}/stat`, 'latin1'))
    return stat.startTime === startTime && stat.state !== 'Z' && stat.state !== 'X'
  } catch {
    return false
  }
}

/** The effective user and group, as SPIRE takes them from /proc/<pid>/status. */
export function effectiveIds(handle: Pick<ProcessHandle, 'pid' | 'readText'>): {
  readonly uid: number
  readonly gid: number
} {
  const text = handle.readText('status')
  const uid = /^Uid:\s+\d+\s+(\d+)/m.exec(text)?.[1]
  const gid = /^Gid:\s+\d+\s+(\d+)/m.exec(text)?.[1]
  if (uid === undefined || gid === undefined) throw readFailed(handle.pid, undefined)
  return { uid: Number(uid), gid: Number(gid) }
}

function isGone(error: unknown): boolean {
  return errorCode(error) === 'ESRCH' || errorCode(error) === 'ENOENT'
}

function readFailed(pid: number, cause: unknown): SignetError {
  if (cause instanceof SignetError) return cause
  return new SignetError('internal', 'process_unreadable', 'caller process is not readable', {
    cause,
    fields: { pid },
  })
}

function errorCode(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error ? String(error.code) : undefined
}
