/**
 * A deployment of one server and its agents, each either SPIRE's unmodified binary or ours, started
 * from the same configuration files. A scenario written once runs on every pairing.
 */
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { homedir, tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Daemon, type RunOptions, type RunResult, run } from '../rigs/process.ts'
import { until } from '../rigs/until.ts'

export type Product = 'spire' | 'signet'

export const PROJECT_DIR = dirname(dirname(dirname(fileURLToPath(import.meta.url))))
const CACHE_DIR = process.env.SIGNET_CACHE ?? join(homedir(), '.cache', 'signet')
export const PEERS_DIR = join(CACHE_DIR, 'peers')
export const PYTHON = join(CACHE_DIR, 'python', 'bin', 'python')
const TRUST_DOMAIN = 'example.org'

/** Command and leading arguments of a product's program. */
export function program(product: Product, half: 'server' | 'agent'): [string, string[]] {
  return product === 'spire'
    ? [join(PEERS_DIR, `spire-${half}`), []]
    : [join(PROJECT_DIR, 'bin', 'signet'), [half]]
}

export interface ServerOptions {
  /** Lines for the `server` block beyond the basics. */
  readonly server?: string
  /** Replaces DataStore and KeyManager. */
  readonly storage?: string
  /** Further plugin blocks. */
  readonly plugins?: string
  /** Blocks beside `server` and `plugins`. */
  readonly blocks?: string
  readonly logLevel?: string
  /** Environment of the server process. */
  readonly env?: Readonly<Record<string, string>>
}

export interface AgentOptions {
  readonly name?: string
  readonly agent?: string
  readonly nodeAttestor?: string
  readonly keyManager?: string
  readonly workloadAttestor?: string
  readonly blocks?: string
  /** Where the first trust bundle comes from; by default a file with the server's. */
  readonly bootstrap?: string
  readonly args?: readonly string[]
  /** Instead of the product's own, `bin/signet` of this checkout for ours. */
  readonly program?: string
  /** Environment of the agent process. */
  readonly env?: Readonly<Record<string, string>>
}

export class Deployment implements AsyncDisposable {
  readonly dir: string
  readonly port: number
  readonly #daemons: Daemon[] = []
  serverProduct: Product

  private constructor(dir: string, port: number, serverProduct: Product) {
    this.dir = dir
    this.port = port
    this.serverProduct = serverProduct
  }

  static async create(serverProduct: Product): Promise<Deployment> {
    // Short: a Unix socket's path has 107 bytes.
    const dir = mkdtempSync(join(tmpdir(), 'si-'))
    // Workloads of other users walk through it to the socket.
    chmodSync(dir, 0o755)
    return new Deployment(dir, await freePort(), serverProduct)
  }

  get serverSocket(): string {
    return join(this.dir, 'server', 'api.sock')
  }

  agentSocket(name = 'a1'): string {
    return join(this.dir, name, 'public', 'api.sock')
  }

  adminSocket(name = 'a1'): string {
    return join(this.dir, name, 'admin', 'admin.sock')
  }

  get serverConf(): string {
    return join(this.dir, 'server.conf')
  }

  writeServerConf(options: ServerOptions = {}): void {
    const data = join(this.dir, 'server', 'data')
    mkdirSync(data, { recursive: true, mode: 0o750 })
    const storage =
      options.storage ??
      `DataStore "sql" {
         plugin_data { database_type = "sqlite3" connection_string = "${data}/datastore.sqlite3" }
       }
       KeyManager "disk" { plugin_data { keys_path = "${data}/keys.json" } }`
    writeFileSync(
      this.serverConf,
      `server {
         bind_address = "127.0.0.1"
         bind_port = "${this.port}"
         socket_path = "${this.serverSocket}"
         trust_domain = "${TRUST_DOMAIN}"
         data_dir = "${data}"
         log_level = "${options.logLevel ?? 'DEBUG'}"
         ${options.server ?? ''}
       }
       plugins {
         ${storage}
         NodeAttestor "join_token" { plugin_data {} }
         ${options.plugins ?? ''}
       }
       ${options.blocks ?? ''}
      `,
    )
  }

  /** Starts the server from `server.conf` and waits until its admin socket answers. */
  async startServer(options?: ServerOptions): Promise<Daemon> {
    if (options !== undefined) this.writeServerConf(options)
    const [command, args] = program(this.serverProduct, 'server')
    const daemon = Daemon.start(command, [...args, 'run', '-config', this.serverConf], {
      env: options?.env ?? {},
    })
    this.#daemons.push(daemon)
    await untilHealthy(
      'the server to be healthy',
      daemon,
      async () => (await this.server(['healthcheck'])).code === 0,
    )
    return daemon
  }

  /** Starts an agent; waits for its socket unless told not to. */
  async startAgent(product: Product, options: AgentOptions = {}, ready = true): Promise<Daemon> {
    const name = options.name ?? 'a1'
    const conf = join(this.dir, `${name}.conf`)
    const data = join(this.dir, name, 'data')
    mkdirSync(data, { recursive: true, mode: 0o750 })
    chmodSync(join(this.dir, name), 0o755)
    mkdirSync(join(this.dir, name, 'public'), { recursive: true })
    chmodSync(join(this.dir, name, 'public'), 0o755)
    const bundle = join(this.dir, 'bundle.pem')
    const shown = await this.server(['bundle', 'show'])
    if (shown.code === 0) writeFileSync(bundle, shown.stdout)
    writeFileSync(
      conf,
      `agent {
         data_dir = "${data}"
         log_level = "DEBUG"
         server_address = "127.0.0.1"
         server_port = "${this.port}"
         socket_path = "${this.agentSocket(name)}"
         admin_socket_path = "${this.adminSocket(name)}"
         ${options.bootstrap ?? `trust_bundle_path = "${bundle}"`}
         trust_domain = "${TRUST_DOMAIN}"
         ${options.agent ?? ''}
       }
       plugins {
         ${options.nodeAttestor ?? 'NodeAttestor "join_token" { plugin_data {} }'}
         ${options.keyManager ?? `KeyManager "disk" { plugin_data { directory = "${data}" } }`}
         ${options.workloadAttestor ?? 'WorkloadAttestor "unix" { plugin_data {} }'}
       }
       ${options.blocks ?? ''}
      `,
    )
    const [command, args] = program(product, 'agent')
    const call = [...args, 'run', '-config', conf, ...(options.args ?? [])]
    const daemon = Daemon.start(options.program ?? command, call, { env: options.env ?? {} })
    this.#daemons.push(daemon)
    if (ready) {
      await untilHealthy(
        'the agent to be healthy',
        daemon,
        async () => (await this.agent(product, ['healthcheck'], name)).code === 0,
      )
    }
    return daemon
  }

  /** The server CLI of `product` (default: the running server's own) on the admin socket. */
  async server(
    args: readonly string[],
    product: Product = this.serverProduct,
    options: RunOptions = {},
  ): Promise<RunResult> {
    const [command, lead] = program(product, 'server')
    return run(command, [...lead, ...args, '-socketPath', this.serverSocket], options)
  }

  /** Like `server`, but a failure is an error. */
  async serverOk(args: readonly string[], product?: Product): Promise<string> {
    const result = await this.server(args, product)
    if (result.code !== 0) {
      throw new Error(`${args.join(' ')}: ${result.code}\n${result.stdout}${result.stderr}`)
    }
    return result.stdout
  }

  async agent(
    product: Product,
    args: readonly string[],
    name = 'a1',
    options: RunOptions = {},
  ): Promise<RunResult> {
    const [command, lead] = program(product, 'agent')
    return run(command, [...lead, ...args, '-socketPath', this.agentSocket(name)], options)
  }

  /** The agent CLI on the admin socket. */
  async agentAdmin(product: Product, args: readonly string[], name = 'a1'): Promise<RunResult> {
    const [command, lead] = program(product, 'agent')
    return run(command, [...lead, ...args, '-socketPath', this.adminSocket(name)])
  }

  async joinToken(spiffeId?: string): Promise<string> {
    const out = await this.serverOk([
      'token',
      'generate',
      ...(spiffeId === undefined ? [] : ['-spiffeID', spiffeId]),
    ])
    const token = /^Token: (\S+)/m.exec(out)?.[1]
    if (token === undefined) throw new Error(`no token in ${out}`)
    return token
  }

  /** Creates an entry and returns its ID. */
  async createEntry(args: readonly string[]): Promise<string> {
    const out = await this.serverOk(['entry', 'create', ...args])
    const id = /^Entry ID +: (\S+)/m.exec(out)?.[1]
    if (id === undefined) throw new Error(`no entry ID in ${out}`)
    return id
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const daemon of this.#daemons.reverse()) await daemon.stop()
    rmSync(this.dir, { recursive: true, force: true })
  }
}

/** Fails at once, with the end of its log, when the process ends. */
async function untilHealthy(
  what: string,
  daemon: Daemon,
  isHealthy: () => Promise<boolean>,
): Promise<void> {
  const ended = () => daemon.exitCode !== undefined
  const why = await until(what, async () => ended() || (await isHealthy()), 60_000).then(
    () => (ended() ? `ended (${daemon.exitCode}) before it was healthy` : undefined),
    (error: Error) => error.message,
  )
  if (why !== undefined) throw new Error(`${why}\n${daemon.output.slice(-8000)}`)
}

export async function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer()
    server.once('error', reject)
    server.listen(0, '127.0.0.1', () => {
      const address = server.address()
      server.close(() => {
        if (address !== null && typeof address === 'object') resolve(address.port)
        else reject(new Error('no port'))
      })
    })
  })
}
