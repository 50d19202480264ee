/**
 * The agent's Unix sockets (api.md §12.1; design.md §5). Every connection has a record: the process
 * at its other end, held by pidfd from accept on, and a fingerprint of it. grpc-js is handed the
 * socket only afterwards; its `getPeer()` leads back to the record.
 */
import { chmod, rm } from 'node:fs/promises'
import { createServer, type Server as NetServer, type Socket } from 'node:net'
import type { Server as GrpcServer } from '@grpc/grpc-js'
import { ServerCredentials } from '@grpc/grpc-js'
import { SignetError } from '../../base/error.ts'
import { WORKLOAD_CONNECTIONS_MAX, WORKLOAD_CONNECTIONS_PER_UID_MAX } from '../../base/limits.ts'
import { createExitWatch, type ExitWatch } from '../../base/os/exit-watch.ts'
import {
  fingerprintChange,
  openPeerProcess,
  type ProcessFingerprint,
  type ProcessHandle,
} from '../../base/os/process-handle.ts'
import type { Clock, Log } from '../../base/ports.ts'
import type { Selector } from '../../spiffe/selector.ts'
import type { WorkloadAttestation } from './attestation.ts'

/** How often it is asked whose process exited: one system call for all. */
const EXITS_INTERVAL_MS = 100
/**
 * Within this time each fingerprint is compared once, a share each second. It only tidies up:
 * nothing is sent to a process whose fingerprint was not compared just before.
 */
const FINGERPRINTS_SECONDS = 60

export interface WorkloadConnection {
  readonly process: Pick<ProcessHandle, 'pid' | 'uid' | 'gid' | 'alive'>
  /** The agent's own health check: not logged, not counted, not limited. */
  readonly isAgent: boolean
  /**
   * What the caller is. Attested once, then remembered as long as the process is the same; a
   * failure is not remembered. Rejects with unavailable, and ends the connection when the process
   * changed meanwhile.
   */
  attest(): Promise<readonly Selector[]>
  /** False, and the connection is closed, when the process died or turned into another program. */
  isUnchanged(): boolean
  close(): void
}

export interface UnixListenerOptions {
  readonly path: string
  readonly mode: number
  readonly server: GrpcServer
  readonly attestation: WorkloadAttestation
  readonly clock: Clock
  readonly log: Log
}

export interface UnixListener extends AsyncDisposable {
  /** By grpc-js's `call.getPeer()`. */
  connection(peer: string): WorkloadConnection | undefined
  readonly connectionCount: number
}

interface Registry {
  readonly connections: Map<string, Tracked>
  readonly perUid: Map<number, number>
  readonly exits: ExitWatch
  nextId: number
}

interface Tracked extends WorkloadConnection {
  readonly id: number
  dispose(): void
}

/** Rejects when the socket can't be made; `socket-places.ts` prepares its place. */
export async function listenUnix(options: UnixListenerOptions): Promise<UnixListener> {
  const injector = options.server.createConnectionInjector(ServerCredentials.createInsecure())
  const registry: Registry = {
    connections: new Map(),
    perUid: new Map(),
    exits: createExitWatch(),
    nextId: 1,
  }
  const sockets = createServer((socket) => {
    if (accept(options, registry, socket)) injector.injectConnection(socket)
  })
  await listening(sockets, options.path)
  await chmod(options.path, options.mode)
  const exits = options.clock.every(EXITS_INTERVAL_MS, () => registry.exits.check())
  let second = 0
  const fingerprints = options.clock.every(1_000, () => {
    second = (second + 1) % FINGERPRINTS_SECONDS
    for (const connection of registry.connections.values()) {
      if (connection.id % FINGERPRINTS_SECONDS === second) connection.isUnchanged()
    }
  })
  return {
    connection: (peer) => registry.connections.get(peer),
    get connectionCount() {
      return registry.connections.size
    },
    async [Symbol.asyncDispose]() {
      exits[Symbol.dispose]()
      fingerprints[Symbol.dispose]()
      await new Promise<void>((resolve) => {
        sockets.close(() => resolve())
        for (const connection of registry.connections.values()) connection.close()
      })
      registry.exits[Symbol.dispose]()
      await rm(options.path, { force: true })
    },
  }
}

/** False when the connection was refused; the socket is closed then. */
function accept(options: UnixListenerOptions, registry: Registry, socket: Socket): boolean {
  socket.on('error', () => {})
  let process: ProcessHandle
  try {
    process = openPeerProcess(socket)
  } catch (error) {
    options.log.warn('Connection refused: caller is unknown', { error: String(error) })
    socket.destroy()
    return false
  }
  const uidCount = registry.perUid.get(process.uid) ?? 0
  if (
    uidCount >= WORKLOAD_CONNECTIONS_PER_UID_MAX ||
    registry.connections.size >= WORKLOAD_CONNECTIONS_MAX
  ) {
    options.log.warn('Connection refused: too many connections', { uid: process.uid })
    process[Symbol.dispose]()
    socket.destroy()
    return false
  }
  const id = registry.nextId++
  const peer = `unix#${id}`
  try {
    registry.connections.set(peer, track(options, registry.exits, id, process, socket))
  } catch (error) {
    options.log.warn('Connection refused: caller is unreadable', { error: String(error) })
    process[Symbol.dispose]()
    socket.destroy()
    return false
  }
  registry.perUid.set(process.uid, uidCount + 1)
  // A Unix socket has no remote address; grpc-js reports what stands here as the peer.
  Object.defineProperty(socket, 'remoteAddress', { value: peer })
  socket.once('close', () => {
    registry.connections.get(peer)?.dispose()
    registry.connections.delete(peer)
    const left = (registry.perUid.get(process.uid) ?? 1) - 1
    if (left === 0) registry.perUid.delete(process.uid)
    else registry.perUid.set(process.uid, left)
  })
  return true
}

function track(
  options: UnixListenerOptions,
  exits: ExitWatch,
  id: number,
  process: ProcessHandle,
  socket: Socket,
): Tracked {
  // Its ids are those of the connecting, even if they changed before we got to look.
  const baseline = { ...process.fingerprint(), uid: process.uid, gid: process.gid }
  const log = options.log.with({ pid: process.pid })
  let attested: Promise<readonly Selector[]> | undefined
  const close = () => socket.destroy()
  const isUnchanged = () => {
    const change = changeOf(process, baseline)
    if (change === undefined) return true
    // The process may end while its call is still being answered: nothing to warn about.
    if (change === 'exited') log.debug('Connection closed: caller process exited')
    else log.warn('Connection closed: caller process changed', { changed: change })
    close()
    return false
  }
  const attestOnce = async () => {
    const selectors = await options.attestation.attest(process)
    // Whatever the attestors read may have been of another program if it changed meanwhile.
    if (!isUnchanged()) throw callerChanged()
    return selectors
  }
  const watched = exits.add(process, isUnchanged)
  return {
    id,
    process,
    isAgent: process.pid === ownPid(),
    close,
    isUnchanged,
    dispose() {
      watched[Symbol.dispose]()
      process[Symbol.dispose]()
    },
    async attest() {
      // The first time what follows compares.
      if (attested !== undefined && !isUnchanged()) throw callerChanged()
      attested ??= attestOnce().catch((error: unknown) => {
        attested = undefined
        throw error
      })
      return attested
    },
  }
}

function changeOf(
  process: ProcessHandle,
  baseline: ProcessFingerprint,
): keyof ProcessFingerprint | 'exited' | undefined {
  try {
    if (!process.alive()) return 'exited'
    return fingerprintChange(baseline, process.fingerprint())
  } catch {
    return 'exited'
  }
}

function ownPid(): number {
  return globalThis.process.pid
}

function listening(server: NetServer, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen({ path, backlog: 1024 }, () => {
      server.off('error', reject)
      resolve()
    })
  })
}

function callerChanged(): SignetError {
  return new SignetError('unavailable', 'caller_changed', 'workload attestation failed')
}
