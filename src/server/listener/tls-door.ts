/**
 * The TCP door (design.md §5, api.md §2): TLS that asks for a client certificate without demanding
 * one, verifies it with our own code against the current bundles, and hands the socket to gRPC.
 *
 * Session resumption is off in both TLS versions: a resumed session would skip the chain check
 * (SPIRE 1.14.3, T-S1). Without tickets only stored sessions could be resumed, and nothing stores
 * them: never add a `resumeSession` listener. The server certificate is read at each change, not
 * at each handshake.
 */

import { constants } from 'node:crypto'
import type { AddressInfo, Server as NetServer, Socket } from 'node:net'
import { createServer, type Server, type TLSSocket } from 'node:tls'
import { SignetError } from '../../base/error.ts'
import {
  HANDSHAKE_MS_MAX,
  HANDSHAKES_MAX,
  HANDSHAKES_PER_ADDRESS_MAX,
  REFUSALS_LOGGED_PER_SECOND,
  TCP_CONNECTIONS_MAX,
} from '../../base/limits.ts'
import type { Clock, Log, Metrics } from '../../base/ports.ts'
import { formatPem } from '../../x509/pem.ts'
import {
  type ClientCertificatePolicy,
  type ClientIdentity,
  verifyClientCertificate,
} from './client-certificate.ts'
import { type ConnectionRegistry, nameSocket } from './connection-registry.ts'

/** As Go's listeners: a peer that vanished is noticed within minutes. */
const KEEPALIVE_MS = 15_000

export interface ServerCertificate {
  /** DER, leaf first. */
  readonly chain: readonly Uint8Array[]
  /** PKCS#8 PEM. */
  readonly privateKeyPem: string
}

export interface TlsDoorPorts {
  readonly clock: Clock
  readonly log: Log
  readonly metrics: Metrics
  readonly connections: ConnectionRegistry
  readonly policy: ClientCertificatePolicy
  /** Takes the socket over: it speaks HTTP/2 from here. */
  accept(socket: Socket): void
}

export interface TlsDoor {
  /** As Go prints it: `0.0.0.0:8081`. */
  readonly address: string
  readonly port: number
  /** New handshakes use it; open connections stay. */
  setCertificate(certificate: ServerCertificate): void
  /** No new connections; open ones are gRPC's to end. */
  close(): void
}

export async function openTlsDoor(
  address: { readonly host: string; readonly port: number },
  certificate: ServerCertificate,
  ports: TlsDoorPorts,
  limits: { readonly handshakeMsMax?: number | undefined } = {},
): Promise<TlsDoor> {
  const server = createServer({
    ...contextOptions(certificate),
    ALPNProtocols: ['h2'],
    requestCert: true,
    // Verified by `verifyClientCertificate` instead: OpenSSL knows no trust domains.
    rejectUnauthorized: false,
    handshakeTimeout: limits.handshakeMsMax ?? HANDSHAKE_MS_MAX,
  })
  server.maxConnections = TCP_CONNECTIONS_MAX
  boundHandshakes(server, ports.metrics)
  const refuse = refusalLog(ports)
  server.on('secureConnection', (socket) => admit(socket, ports, refuse))
  server.on('tlsClientError', (error, socket) => {
    ports.log.debug('TLS handshake failed', { error, address: socket.remoteAddress })
    // Node leaves this to us, also when the handshake took too long.
    socket.destroy()
  })
  await listen(server, address)
  // No descriptor left to accept with, for one: nothing to die of.
  server.on('error', (error) => ports.log.error('Unable to accept connections', { error }))
  const bound = server.address() as AddressInfo
  return {
    address: bound.family === 'IPv6' ? `[${bound.address}]:${bound.port}` : textOf(bound),
    port: bound.port,
    setCertificate: (next) => server.setSecureContext(contextOptions(next)),
    close: () => void server.close(),
  }
}

function textOf({ address, port }: AddressInfo): string {
  return `${address}:${port}`
}

function contextOptions(certificate: ServerCertificate) {
  return {
    cert: certificate.chain.map((der) => formatPem('CERTIFICATE', der)).join(''),
    key: certificate.privateKeyPem,
    // None: else Node loads the public web's roots for a verdict that nobody asks for.
    ca: [],
    minVersion: 'TLSv1.2' as const,
    secureOptions: constants.SSL_OP_NO_TICKET | constants.SSL_OP_NO_RENEGOTIATION,
  }
}

/**
 * A handshake costs a signature: floods of half-open ones are shed before they cost it. The raw
 * and the TLS socket of a connection are two objects that share the peer's address and port.
 */
function boundHandshakes(server: Server, metrics: Metrics): void {
  const pending = new Map<string, () => void>()
  const byAddress = new Map<string, number>()
  server.prependListener('connection', (socket: Socket) => {
    const address = socket.remoteAddress ?? ''
    const mine = byAddress.get(address) ?? 0
    if (pending.size >= HANDSHAKES_MAX || mine >= HANDSHAKES_PER_ADDRESS_MAX) {
      metrics.counter('endpoints.tcp.handshakes_shed')
      socket.destroy()
      return
    }
    const peer = `${address}:${socket.remotePort}`
    byAddress.set(address, mine + 1)
    const done = () => {
      if (pending.get(peer) !== done) return
      pending.delete(peer)
      const left = byAddress.get(address)! - 1
      if (left === 0) byAddress.delete(address)
      else byAddress.set(address, left)
    }
    pending.set(peer, done)
    socket.once('close', done)
  })
  server.on('secureConnection', (socket) => {
    pending.get(`${socket.remoteAddress}:${socket.remotePort}`)?.()
  })
}

type Refuse = (socket: TLSSocket, error: unknown) => void

function admit(socket: TLSSocket, ports: TlsDoorPorts, refuse: Refuse): void {
  // A connection that fails later fails its calls; nobody else needs to hear of it.
  socket.on('error', () => {})
  const address = socket.remoteAddress
  const port = socket.remotePort
  if (address === undefined || port === undefined) return void socket.destroy()
  let identity: ClientIdentity | undefined
  try {
    if (socket.alpnProtocol !== 'h2') {
      throw new SignetError('unauthenticated', 'no_alpn', 'client did not negotiate h2')
    }
    const presented = presentedChain(socket)
    if (presented.length > 0) {
      identity = verifyClientCertificate(presented, ports.policy, ports.clock.nowSeconds())
    }
  } catch (error) {
    refuse(socket, error)
    socket.destroy()
    return
  }
  socket.setNoDelay(true)
  socket.setKeepAlive(true, KEEPALIVE_MS)
  const peer = nameSocket(socket, address, port)
  ports.connections.add(socket, {
    peer,
    transport: 'tcp',
    remoteIp: address.startsWith('::ffff:') ? address.slice('::ffff:'.length) : address,
    chain: identity?.chain ?? [],
    ...(identity && { spiffeId: identity.spiffeId }),
    close: () => void socket.destroy(),
  })
  ports.accept(socket)
}

/** DER as the client sent it, leaf first. */
function presentedChain(socket: TLSSocket): Uint8Array[] {
  const chain: Uint8Array[] = []
  let certificate = socket.getPeerX509Certificate()
  while (certificate !== undefined) {
    chain.push(certificate.raw)
    certificate = certificate.issuerCertificate
  }
  return chain
}

/** Refused certificates are logged, but a flood of them is only counted. */
function refusalLog({ clock, log, metrics }: TlsDoorPorts): Refuse {
  let second = 0
  let logged = 0
  return (socket, error) => {
    metrics.counter('endpoints.tcp.refused', 1, {
      reason: error instanceof SignetError ? error.code : 'internal',
    })
    const now = Math.floor(clock.monotonicMs() / 1000)
    if (now !== second) {
      second = now
      logged = 0
    }
    if (logged++ >= REFUSALS_LOGGED_PER_SECOND) return
    log.warn('Client connection refused', { error, address: socket.remoteAddress })
  }
}

function listen(
  server: NetServer,
  address: { readonly host: string; readonly port: number },
): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen({ host: address.host, port: address.port, backlog: 1024 }, () => {
      server.off('error', reject)
      resolve()
    })
  })
}
