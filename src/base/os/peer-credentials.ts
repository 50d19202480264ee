/**
 * Who is at the other end of a Unix socket (api.md §12.1; T-W1). The kernel notes process, user and
 * group when the peer connects, so they can't be claimed, only inherited by passing the socket on.
 */
import type { Socket } from 'node:net'
import { SignetError } from '../error.ts'
import { errorName, getSocketOption, pidfdOpen } from './libc.ts'

const SOL_SOCKET = 1
const SO_PEERCRED = 17
/** Linux 6.5. */
const SO_PEERPIDFD = 77

export interface PeerCredentials {
  /** 0 when the peer lives in a pid namespace that we can't see. */
  readonly pid: number
  readonly uid: number
  readonly gid: number
}

/** The descriptor of an open socket. Node has no public accessor; this is its one private use. */
export function socketFd(socket: Socket): number {
  const handle: unknown = Reflect.get(socket, '_handle')
  const fd: unknown =
    typeof handle === 'object' && handle !== null ? Reflect.get(handle, 'fd') : undefined
  if (typeof fd !== 'number' || fd < 0) {
    throw new SignetError('internal', 'no_socket_fd', 'socket is closed or has no file descriptor')
  }
  return fd
}

export function peerCredentials(fd: number): PeerCredentials {
  const value = new DataView(new ArrayBuffer(12))
  const size = getSocketOption(fd, SOL_SOCKET, SO_PEERCRED, new Uint8Array(value.buffer))
  if (size !== 12) {
    throw new SignetError('internal', 'bad_peer_credentials', 'unexpected size of peer credentials')
  }
  return {
    pid: value.getInt32(0, true),
    uid: value.getUint32(4, true),
    gid: value.getUint32(8, true),
  }
}

export interface PeerPidfd {
  /** The caller closes it. */
  readonly fd: number
  /**
   * True when the kernel tied it to the peer at connect time. False when it was opened by number
   * after accept, so that in theory another process may have got the number in between.
   */
  readonly exact: boolean
}

/** undefined where the kernel knows no pidfd at all (before 5.3). */
export function peerPidfd(fd: number, pid: number): PeerPidfd | undefined {
  try {
    const value = new DataView(new ArrayBuffer(4))
    getSocketOption(fd, SOL_SOCKET, SO_PEERPIDFD, new Uint8Array(value.buffer))
    return { fd: value.getInt32(0, true), exact: true }
  } catch (error) {
    if (errorName(error) === 'ESRCH') throw processGone(pid)
    if (errorName(error) !== 'ENOPROTOOPT') throw error
  }
  return openPidfd(pid)
}

export function openPidfd(pid: number): PeerPidfd | undefined {
  try {
    return { fd: pidfdOpen(pid), exact: false }
  } catch (error) {
    if (errorName(error) === 'ESRCH') throw processGone(pid)
    if (errorName(error) !== 'ENOSYS') throw error
    return undefined
  }
}

export function processGone(pid: number, cause?: unknown): SignetError {
  return new SignetError('unavailable', 'process_gone', 'caller process is gone', {
    cause,
    fields: { pid },
  })
}
