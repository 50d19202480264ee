/**
 * A server process under attack: bytes of any shape on both doors, agents that do what no real one
 * would, a look at its process and at its embedded database.
 */
import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { type ChannelCredentials, Client, credentials, type ServiceError } from '@grpc/grpc-js'
import pg from 'pg'
import { attestWithToken, channelTo, type RawIdentity } from '../interop/raw-client.ts'
import { Deployment, type ServerOptions } from '../interop/rig.ts'
import type { Daemon } from './process.ts'

/** What every generated service definition says of a unary method. */
export interface Method<Request, Response> {
  readonly path: string
  readonly requestSerialize: (value: Request) => Buffer
  readonly responseDeserialize: (bytes: Buffer) => Response
}

export interface Answer<Response> {
  /** 0 when it went well. */
  readonly code: number
  readonly details: string
  readonly value: Response | undefined
  readonly error: ServiceError | undefined
}

/** As SPIRE's agents and commands wait (api.md §11.1). */
const CALL_MS_MAX = 30_000
/** Nothing of a fault test waits for its turn. */
const NO_RATE_LIMITS = 'ratelimit { attestation = false signing = false }'

export class LiveServer implements AsyncDisposable {
  readonly deployment: Deployment
  daemon: Daemon
  readonly admin: Client
  readonly rootsPem: string
  readonly #clients: Client[] = []

  private constructor(deployment: Deployment, daemon: Daemon, rootsPem: string) {
    this.deployment = deployment
    this.daemon = daemon
    this.rootsPem = rootsPem
    this.admin = this.client(`unix:${deployment.serverSocket}`, credentials.createInsecure())
  }

  static async start(options: ServerOptions = {}): Promise<LiveServer> {
    const deployment = await Deployment.create('signet')
    try {
      const server = `${NO_RATE_LIMITS}\n${options.server ?? ''}`
      const daemon = await deployment.startServer({ ...options, server })
      return new LiveServer(deployment, daemon, await deployment.serverOk(['bundle', 'show']))
    } catch (error) {
      await deployment[Symbol.asyncDispose]()
      throw error
    }
  }

  get address(): string {
    // A name: Node refuses an address as TLS server name.
    return `localhost:${this.deployment.port}`
  }

  get dataDir(): string {
    return join(this.deployment.dir, 'server', 'data')
  }

  get postgresDir(): string {
    return join(this.dataDir, 'postgres')
  }

  client(address: string, channel: ChannelCredentials): Client {
    const client = new Client(address, channel, {
      'grpc.default_authority': 'localhost',
      'grpc.use_local_subchannel_pool': 1,
      'grpc.max_send_message_length': -1,
      'grpc.max_receive_message_length': -1,
      'grpc.initial_reconnect_backoff_ms': 50,
      'grpc.max_reconnect_backoff_ms': 200,
    })
    this.#clients.push(client)
    return client
  }

  /** On the TCP door, as nobody or as `identity`. */
  tls(identity?: RawIdentity): Client {
    return this.client(this.address, channelTo(this.rootsPem, identity))
  }

  /** A node that attested by join token. */
  async attest(spiffeId?: string): Promise<RawIdentity> {
    const token = await this.deployment.joinToken(spiffeId)
    return attestWithToken(this.address, this.rootsPem, token, this.deployment.dir)
  }

  /** Of the embedded database's postmaster. */
  postmaster(): number {
    const text = readFileSync(join(this.postgresDir, 'data', 'postmaster.pid'), 'utf8')
    return Number.parseInt(text, 10)
  }

  /** A connection to the embedded database, as its owner has it. */
  async database(): Promise<pg.Client> {
    const client = new pg.Client({
      host: join(this.postgresDir, 'socket'),
      port: 5432,
      user: 'signet',
      password: readFileSync(join(this.postgresDir, 'password'), 'utf8'),
      database: 'postgres',
    })
    client.on('error', () => {})
    await client.connect()
    return client
  }

  async rows(text: string, values: unknown[] = []): Promise<Record<string, string>[]> {
    const client = await this.database()
    try {
      return (await client.query(text, values)).rows
    } finally {
      await client.end()
    }
  }

  residentBytes(): number {
    const status = readFileSync(`/proc/${this.daemon.pid}/status`, 'utf8')
    return Number(/^VmRSS:\s+(\d+)/m.exec(status)?.[1]) * 1024
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const client of this.#clients) client.close()
    await this.deployment[Symbol.asyncDispose]()
  }
}

/** Never rejects: what a call answered, whatever it was. */
export function call<Request, Response>(
  client: Client,
  method: Method<Request, Response>,
  request: Request,
  timeoutMs = CALL_MS_MAX,
): Promise<Answer<Response>> {
  return new Promise((resolve) => {
    client.makeUnaryRequest(
      method.path,
      method.requestSerialize,
      method.responseDeserialize,
      request,
      { deadline: Date.now() + timeoutMs },
      (error, value) =>
        resolve({
          code: error?.code ?? 0,
          details: error?.details ?? '',
          value,
          error: error ?? undefined,
        }),
    )
  })
}

/** `body` as the message, whatever the method expects. */
export function callBytes(
  client: Client,
  path: string,
  body: Uint8Array,
  timeoutMs?: number,
): Promise<Answer<Buffer>> {
  const same = (bytes: Buffer) => bytes
  const method = { path, requestSerialize: same, responseDeserialize: same }
  return call(client, method, Buffer.from(body), timeoutMs)
}

/** A word that occurs nowhere by itself. */
export function canary(): string {
  return `canary${randomBytes(8).toString('hex')}`
}
