/**
 * The admin socket (api.md §2, reliability.md T-A1): plaintext HTTP/2 for local callers. Besides
 * the file's mode and its directory, the kernel's word on the peer decides: root, our own user or
 * a member of our group, nobody else, however he got at the socket.
 */
import { chmodSync, readFileSync, readlinkSync } from 'node:fs'
import { createServer, type Server, type Socket } from 'node:net'
import { SignetError } from '../../base/error.ts'
import { UDS_CONNECTIONS_MAX } from '../../base/limits.ts'
import { type PeerCredentials, peerCredentials, socketFd } from '../../base/os/peer-credentials.ts'
import type { Log } from '../../base/ports.ts'
import { type ConnectionRegistry, nameSocket } from './connection-registry.ts'

const SOCKET_MODE = 0o770

export interface UdsDoorPorts {
  readonly log: Log
  readonly connections: ConnectionRegistry
  accept(socket: Socket): void
}

export interface UdsDoor {
  readonly path: string
  close(): void
}

/** `path` is one that `prepareSocketPath` gave. */
export async function openUdsDoor(path: string, ports: UdsDoorPorts): Promise<UdsDoor> {
  let count = 0
  const server = createServer((socket) => {
    // A number in place of a port makes the name unique; it is never given out twice.
    admit(socket, ++count, ports)
  })
  server.maxConnections = UDS_CONNECTIONS_MAX
  await listen(server, path)
  server.on('error', (error) => ports.log.error('Unable to accept connections', { error }))
  chmodSync(path, SOCKET_MODE)
  return { path, close: () => void server.close() }
}

function admit(socket: Socket, number: number, ports: UdsDoorPorts): void {
  socket.on('error', () => {})
  try {
    const credentials = peerCredentials(socketFd(socket))
    if (!mayAdminister(credentials)) {
      throw new SignetError(
        'permission_denied',
        'uds_peer',
        'caller is neither ours nor of our group',
      )
    }
    const peer = nameSocket(socket, 'uds', number)
    ports.connections.add(socket, {
      peer,
      transport: 'uds',
      remoteIp: '',
      process: { ...credentials, path: executableOf(credentials.pid) },
      chain: [],
      close: () => void socket.destroy(),
    })
    ports.accept(socket)
  } catch (error) {
    ports.log.warn('Local connection refused', { error })
    socket.destroy()
  }
}

function mayAdminister({ pid, uid, gid }: PeerCredentials): boolean {
  const ourGroup = process.getegid?.() ?? 0
  if (uid === 0 || uid === process.geteuid?.() || gid === ourGroup) return true
  return supplementaryGroups(pid).includes(ourGroup)
}

/** Empty for a process that is gone or lives in a pid namespace that we can't see. */
function supplementaryGroups(pid: number): number[] {
  try {
    const text = readFileSync(`/proc/${pid}/status`, 'latin1')
    // An empty list must stay empty: Number('') would be root's group.
    return [...(/^Groups:(.*)$/m.exec(text)?.[1] ?? '').matchAll(/\d+/g)].map(Number)
  } catch {
    return []
  }
}

/** For the audit record only, so a recycled pid does no harm. */
function executableOf(pid: number): string {
  try {
    return readlinkSync(`/proc/${pid}/exe`)
  } catch {
    return ''
  }
}

function listen(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(path, () => {
      server.off('error', reject)
      resolve()
    })
  })
}
