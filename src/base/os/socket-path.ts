/**
 * The place of an admin socket. Whoever may rename or replace something on the way to it can stand
 * in for the server or agent, so the way is checked: every directory is root's or ours, and none is
 * writable by others (a sticky one like /tmp may be, but never the socket's own parent).
 */
import { lstatSync, mkdirSync, realpathSync, type Stats, unlinkSync } from 'node:fs'
import { connect } from 'node:net'
import { basename, dirname, join } from 'node:path'
import { SignetError } from '../error.ts'
import type { Log } from '../ports.ts'

const DIRECTORY_MODE = 0o750
const OTHERS_WRITE = 0o002
const STICKY = 0o1000
/** `sun_path` of Linux with its final zero byte: longer paths would be cut without a word. */
const SOCKET_PATH_BYTES_MAX = 107

/**
 * Makes the parent directory where absent, checks the way and removes a socket that nobody
 * answers. Returns the path with symbolic links resolved. Throws failed_precondition.
 */
export async function prepareSocketPath(path: string, log: Log): Promise<string> {
  if (Buffer.byteLength(path) > SOCKET_PATH_BYTES_MAX) {
    throw refused('socket_path_too_long', `socket path is too long: ${path}`)
  }
  try {
    mkdirSync(dirname(path), { recursive: true, mode: DIRECTORY_MODE })
  } catch (cause) {
    throw refused('socket_directory', 'unable to create socket directory', cause)
  }
  const real = join(realpathSync(dirname(path)), basename(path))
  checkWay(dirname(real))
  await removeStale(real, log)
  return real
}

function checkWay(parent: string): void {
  for (let at = parent; ; at = dirname(at)) {
    const stats = lstatSync(at)
    if (stats.uid !== 0 && stats.uid !== process.getuid?.()) {
      throw refused(
        'socket_directory_foreign',
        `socket directory "${at}" belongs to another user (uid ${stats.uid})`,
      )
    }
    if (mayBeChangedByOthers(stats, at === parent)) {
      throw refused(
        'socket_directory_open',
        `socket directory "${at}" is writable by others; remove that permission (chmod o-w)`,
      )
    }
    if (at === dirname(at)) return
  }
}

function mayBeChangedByOthers(stats: Stats, isParent: boolean): boolean {
  if ((stats.mode & OTHERS_WRITE) === 0) return false
  return isParent || (stats.mode & STICKY) === 0
}

async function removeStale(path: string, log: Log): Promise<void> {
  const stats = lstatSync(path, { throwIfNoEntry: false })
  if (stats === undefined) return
  if (!stats.isSocket()) throw refused('not_a_socket', `"${path}" exists and is no socket`)
  if (await answers(path)) {
    throw refused('socket_in_use', `another process serves "${path}"`)
  }
  unlinkSync(path)
  log.debug('Removed a socket that nobody serves', { path })
}

function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path)
    socket.once('connect', () => {
      socket.destroy()
      resolve(true)
    })
    // Refused: its server is gone. Any other failure (no permission, full backlog) may hide a live one.
    socket.once('error', (error: NodeJS.ErrnoException) => resolve(error.code !== 'ECONNREFUSED'))
  })
}

function refused(code: string, text: string, cause?: unknown): SignetError {
  return new SignetError('failed_precondition', code, text, { cause })
}
