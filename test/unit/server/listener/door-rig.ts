/** A TLS door with one gRPC method behind it, and clients to knock with. */
import { type ClientHttp2Session, connect as connectHttp2 } from 'node:http2'
import { type ConnectionOptions, connect, type TLSSocket } from 'node:tls'
import { Client, credentials, type ServiceError } from '@grpc/grpc-js'
import { systemClock } from '../../../../src/base/clock.ts'
import { ConnectionRegistry } from '../../../../src/server/listener/connection-registry.ts'
import { createGrpcServer } from '../../../../src/server/listener/grpc-server.ts'
import { openTlsDoor } from '../../../../src/server/listener/tls-door.ts'
import { TrustDomain } from '../../../../src/spiffe/trust-domain.ts'
import { parseCertificate } from '../../../../src/x509/certificate.ts'
import { createMemoryLog, createMemoryMetrics } from '../../../fakes/memory-log.ts'
import { makeAuthority, makeLeaf, type TestLeaf } from '../../../rigs/certificates.ts'

export const PATH = '/test.Echo/Who'
const HOLD = '/test.Echo/Hold'
const identity = (bytes: Buffer) => bytes

export async function openDoor(
  options: { connectionAgeMsMax?: number; handshakeMsMax?: number } = {},
) {
  const root = await makeAuthority('root', 'spiffe://example.org')
  const issue = (path: string) => makeLeaf(root, { uris: [`spiffe://example.org${path}`] })
  const log = createMemoryLog()
  const metrics = createMemoryMetrics()
  const connections = new ConnectionRegistry()
  const grpc = createGrpcServer(options, systemClock)
  const held: (() => void)[] = []
  grpc.server.register(
    PATH,
    (call: { getPeer(): string }, done: (e: null, b: Buffer) => void) => {
      const connection = connections.get(call.getPeer())
      const id = connection?.spiffeId?.toString() ?? 'nobody'
      done(null, Buffer.from(`${connection?.transport} ${id}`))
    },
    identity,
    identity,
    'unary',
  )
  grpc.server.register(
    HOLD,
    (_call: unknown, done: (e: null, b: Buffer) => void) => {
      held.push(() => done(null, Buffer.from('released')))
    },
    identity,
    identity,
    'unary',
  )
  const first = await issue('/spire/server')
  const door = await openTlsDoor(
    { host: '127.0.0.1', port: 0 },
    { chain: first.chain, privateKeyPem: first.keyPem },
    {
      clock: systemClock,
      log,
      metrics,
      connections,
      policy: {
        trustDomain: TrustDomain.parse('example.org'),
        adminIds: [],
        rootsOf: (name) => (name === 'example.org' ? [parseCertificate(root.der)] : undefined),
        mayHaveIssued: () => true,
      },
      accept: grpc.inject,
    },
    { handshakeMsMax: options.handshakeMsMax },
  )
  return {
    door,
    grpc,
    connections,
    log,
    metrics,
    held,
    issue,
    rootPem: root.certificate.toString('pem'),
    async [Symbol.asyncDispose]() {
      door.close()
      grpc.server.forceShutdown()
    },
  }
}

export type Door = Awaited<ReturnType<typeof openDoor>>

export function client(door: Door, leaf?: TestLeaf): Client {
  const options = { checkServerIdentity: () => undefined }
  const chain = leaf && Buffer.from(toPem(leaf.chain))
  return new Client(
    `127.0.0.1:${door.door.port}`,
    credentials.createSsl(
      Buffer.from(door.rootPem),
      leaf ? Buffer.from(leaf.keyPem) : null,
      chain ?? null,
      options,
    ),
    { 'grpc.ssl_target_name_override': 'localhost', 'grpc.default_authority': 'localhost' },
  )
}

/** `call` is `who`, `hold` or a path. */
export function ask(client: Client, call = 'who', deadlineMs = 10_000): Promise<string> {
  return new Promise((resolve, reject) => {
    client.makeUnaryRequest(
      { who: PATH, hold: HOLD }[call] ?? call,
      identity,
      identity,
      Buffer.alloc(0),
      { deadline: Date.now() + deadlineMs },
      (error: ServiceError | null, answer?: Buffer) =>
        error ? reject(error) : resolve(String(answer)),
    )
  })
}

export function rawTls(door: Door, options: ConnectionOptions = {}): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    const socket = connect(
      {
        host: '127.0.0.1',
        port: door.door.port,
        rejectUnauthorized: false,
        ALPNProtocols: ['h2'],
        ...options,
      },
      () => resolve(socket),
    )
    socket.once('error', reject)
  })
}

/** Resolves when the peer has closed, with what was said before. */
export function closed(socket: TLSSocket): Promise<Buffer> {
  const parts: Buffer[] = []
  return new Promise((resolve) => {
    socket.on('data', (part: Buffer) => parts.push(part))
    socket.on('error', () => {})
    socket.once('close', () => resolve(Buffer.concat(parts)))
  })
}

export function http2(door: Door): ClientHttp2Session {
  const session = connectHttp2(`https://127.0.0.1:${door.door.port}`, {
    rejectUnauthorized: false,
  })
  session.on('error', () => {})
  return session
}

export function toPem(chain: readonly Uint8Array[]): string {
  return chain
    .map((der) => {
      const lines = Buffer.from(der)
        .toString('base64')
        .match(/.{1,64}/g)!
      return `-----BEGIN CERTIFICATE-----\n${lines.join('\n')}\n-----END CERTIFICATE-----\n`
    })
    .join('')
}
