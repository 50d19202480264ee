/** What the server's doors know of a connection: set once by the listener, read on every call. */
import type { SpiffeId } from '../spiffe/spiffe-id.ts'
import type { Certificate } from '../x509/certificate.ts'

export interface Connection {
  /** As grpc-js's `call.getPeer()` returns it. */
  readonly peer: string
  readonly transport: 'tcp' | 'uds'
  /** TCP: the peer's address. */
  readonly remoteIp: string
  /** UDS: the peer's process at connect time. */
  readonly process?: {
    readonly pid: number
    readonly uid: number
    readonly gid: number
    readonly path: string
  }
  /** TCP with a client certificate that passed the door: leaf first. */
  readonly chain: readonly Certificate[]
  readonly spiffeId?: SpiffeId
  close(): void
}

export interface Connections {
  get(peer: string): Connection | undefined
  /** Ends every connection of this agent or workload (ban, evict). */
  closeWhere(test: (connection: Connection) => boolean): void
}
