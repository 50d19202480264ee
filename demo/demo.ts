/**
 * `npm run demo`: a server with its embedded PostgreSQL, an agent, and two workloads that prove to
 * each other who they are, on this machine, from nothing. `-- --once` ends by itself; without it the
 * stack stays up until Ctrl-C and the next commands to try are printed.
 */
import { type ChildProcess, type SpawnOptions, spawn, spawnSync } from 'node:child_process'
import {
  copyFileSync,
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const project = dirname(dirname(fileURLToPath(import.meta.url)))
const signet = join(project, 'bin', 'signet')
const once = process.argv.includes('--once')
const dir = mkdtempSync(join(tmpdir(), 'signet-demo-'))
const children: ChildProcess[] = []
const serverSocket = join(dir, 'server', 'api.sock')
const agentSocket = join(dir, 'agent', 'public', 'api.sock')

/** What a killed demo can not stop any more, the kernel does (prctl(2), PR_SET_PDEATHSIG). */
const SETPRIV = '/usr/bin/setpriv'
const dyingWithUs = existsSync(SETPRIV) ? [SETPRIV, '--pdeathsig', 'TERM', '--'] : []

let stopping = false
/** From the first moment on: what was started is stopped and removed, whenever Ctrl-C comes. */
const interrupted = new Promise<void>((resolve) => {
  const stopEarly = () => {
    stopping = true
    resolve()
  }
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.once(signal, stopEarly)
  // npm was killed, and could tell nobody.
  const starter = process.ppid
  setInterval(() => process.ppid !== starter && stopEarly(), 1_000).unref()
})

let step = 0
function heading(text: string): void {
  step += 1
  process.stdout.write(`\n${step}. ${text}\n`)
}

function line(text: string): void {
  process.stdout.write(`   ${text}\n`)
}

async function until(what: string, probe: () => boolean, timeoutMs = 60_000): Promise<void> {
  const deadline = performance.now() + timeoutMs
  while (!probe()) {
    if (performance.now() > deadline)
      throw new Error(`${what} took longer than ${timeoutMs / 1000} s`)
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
}

async function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const server = createServer()
    server.listen(0, '127.0.0.1', () => {
      const address = server.address()
      server.close(() =>
        resolve(address !== null && typeof address === 'object' ? address.port : 0),
      )
    })
  })
}

function launch(program: string, args: readonly string[], options: SpawnOptions): ChildProcess {
  const [first = '', ...rest] = [...dyingWithUs, program, ...args]
  const child = spawn(first, rest, options)
  children.push(child)
  return child
}

function start(name: string, args: readonly string[]): ChildProcess {
  const child = launch(signet, args, { stdio: ['ignore', 'ignore', 'inherit'] })
  child.once('exit', (code) => {
    if (!stopping && code !== 0)
      fail(new Error(`${name} ended with status ${code}; its log is ${dir}/${name}.log`))
  })
  return child
}

function cli(args: readonly string[]): string {
  const result = spawnSync(signet, args, { encoding: 'utf8' })
  if (result.status !== 0)
    throw new Error(`signet ${args.join(' ')}: ${result.stderr}${result.stdout}`)
  return result.stdout
}

const isHealthy = (half: string, socket: string) =>
  spawnSync(signet, [half, 'healthcheck', '-socketPath', socket]).status === 0

function writeConfigurations(port: number): void {
  mkdirSync(join(dir, 'server'), { mode: 0o750 })
  writeFileSync(
    join(dir, 'server.conf'),
    `server {
  bind_address = "127.0.0.1"
  bind_port = ${port}
  socket_path = "${serverSocket}"
  trust_domain = "example.org"
  data_dir = "${dir}/server/data"
  log_file = "${dir}/server.log"
}
`,
  )
  writeFileSync(
    join(dir, 'agent.conf'),
    `agent {
  server_address = "127.0.0.1"
  server_port = ${port}
  socket_path = "${agentSocket}"
  trust_domain = "example.org"
  trust_bundle_path = "${dir}/bundle.pem"
  data_dir = "${dir}/agent/data"
  log_file = "${dir}/agent.log"
}
plugins {
  NodeAttestor "join_token" { plugin_data {} }
  KeyManager "disk" { plugin_data { directory = "${dir}/agent/data" } }
  WorkloadAttestor "unix" { plugin_data { discover_workload_path = true } }
}
`,
  )
}

/** A program of its own for each workload: the same Node under two names, so paths tell them apart. */
function program(name: string): string {
  const path = join(dir, name)
  try {
    linkSync(process.execPath, path)
  } catch {
    copyFileSync(process.execPath, path)
  }
  return path
}

interface Event {
  readonly event: string
  readonly [key: string]: unknown
}

/** Starts a workload; its events come as they happen. */
function workload(
  name: string,
  args: readonly string[],
  onEvent: (event: Event) => void,
): ChildProcess {
  const child = launch(join(dir, name), [join(project, 'demo', 'workload.ts'), ...args], {
    env: { SPIFFE_ENDPOINT_SOCKET: `unix://${agentSocket}` },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  let rest = ''
  child.stdout?.on('data', (chunk) => {
    const lines = (rest + chunk).split('\n')
    rest = lines.pop() ?? ''
    for (const text of lines) onEvent(JSON.parse(text))
  })
  return child
}

function printIdentity(name: string, event: Event): void {
  if (event.event !== 'identity') return
  line(`${name} is ${event.spiffe_id}, until ${event.expires_at}`)
  const chain = event.chain as string[]
  chain.forEach((subject, i) => {
    line(
      `  ${i === 0 ? 'leaf        ' : i === chain.length - 1 ? 'root        ' : 'intermediate'} ${subject}`,
    )
  })
}

async function main(): Promise<void> {
  const port = await freePort()
  writeConfigurations(port)

  heading('Starting the server (with its embedded PostgreSQL)')
  start('server', ['server', 'run', '-config', join(dir, 'server.conf')])
  await until('the server', () => isHealthy('server', serverSocket))
  const bundle = cli(['server', 'bundle', 'show', '-socketPath', serverSocket])
  writeFileSync(join(dir, 'bundle.pem'), bundle)
  line(
    `listening on 127.0.0.1:${port}; the trust bundle holds ${bundle.split('BEGIN').length - 1} root`,
  )

  heading('Attesting an agent with a one-time join token')
  const token = /^Token: (\S+)/m.exec(
    cli([
      'server',
      'token',
      'generate',
      '-spiffeID',
      'spiffe://example.org/node',
      '-socketPath',
      serverSocket,
    ]),
  )?.[1]
  start('agent', ['agent', 'run', '-config', join(dir, 'agent.conf'), '-joinToken', token ?? ''])
  await until('the agent', () => isHealthy('agent', agentSocket))
  line('the agent serves the Workload API and stands for spiffe://example.org/node')

  heading('Registering two workloads')
  for (const name of ['frontend', 'backend']) {
    cli([
      'server',
      'entry',
      'create',
      '-socketPath',
      serverSocket,
      '-parentID',
      'spiffe://example.org/node',
      '-spiffeID',
      `spiffe://example.org/${name}`,
      '-selector',
      `unix:path:${program(name)}`,
    ])
    line(`spiffe://example.org/${name} is the process that runs ${join(dir, name)}`)
  }

  heading('Running them: each asks the Workload API who it is')
  await runWorkloads()

  if (once) {
    heading('Done: everything is stopped and removed again')
    return
  }
  heading('The stack stays up until Ctrl-C. Things to try in another terminal:')
  const shown = [
    `server entry show -socketPath ${serverSocket}`,
    `server agent list -socketPath ${serverSocket}`,
    `server x509 mint -spiffeID spiffe://example.org/me -socketPath ${serverSocket}`,
    `agent api fetch x509 -socketPath ${agentSocket}   (refused: your shell has no entry)`,
    `server entry create -parentID spiffe://example.org/node -spiffeID spiffe://example.org/shell ` +
      `-selector unix:uid:${process.getuid?.() ?? 0} -socketPath ${serverSocket}   (now it has)`,
  ]
  for (const command of shown) line(`${signet} ${command}`)
  line(`logs: ${dir}/server.log, ${dir}/agent.log`)
  await interrupted
}

async function runWorkloads(): Promise<void> {
  const portFile = join(dir, 'backend.port')
  const served: Event[] = []
  const failures: string[] = []
  const watch = (name: string) => (event: Event) => {
    printIdentity(name, event)
    if (event.event === 'served') served.push(event)
    if (event.event === 'failed' || event.event === 'mismatch' || event.event === 'refused') {
      failures.push(`${name}: ${event.reason ?? event.peer}`)
    }
    if (event.event === 'called') {
      line(`frontend trusted ${event.peer} (${event.protocol}) and got: "${event.answer}"`)
    }
  }
  await retryUntilReady('backend', ['backend', portFile], watch('backend'), failures, () =>
    existsSync(portFile),
  )
  const port = readFileSync(portFile, 'utf8')
  const called = workload(
    'frontend',
    ['frontend', port, 'spiffe://example.org/backend'],
    watch('frontend'),
  )
  await until('the call', () => called.exitCode !== null)
  if (failures.length > 0 || served.length === 0)
    throw new Error(`workloads failed: ${failures.join('; ')}`)
  line(`backend trusted ${served[0]?.peer}`)
}

/** An entry takes a moment to reach the agent; a workload that came too early is started again. */
async function retryUntilReady(
  name: string,
  args: readonly string[],
  onEvent: (event: Event) => void,
  failures: string[],
  ready: () => boolean,
): Promise<void> {
  for (let attempt = 0; attempt < 20; attempt++) {
    const child = workload(name, args, onEvent)
    await until(name, () => ready() || child.exitCode !== null)
    if (ready()) {
      failures.length = 0
      return
    }
    await new Promise((resolve) => setTimeout(resolve, 500))
  }
  throw new Error(`${name} got no identity: ${failures.at(-1)}`)
}

async function stop(): Promise<void> {
  stopping = true
  for (const child of children.reverse()) {
    if (child.exitCode !== null || child.signalCode !== null) continue
    child.kill('SIGTERM')
    await Promise.race([
      new Promise((resolve) => child.once('exit', resolve)),
      new Promise((resolve) => setTimeout(resolve, 15_000).unref()),
    ])
    if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL')
  }
  rmSync(dir, { recursive: true, force: true })
}

function fail(error: unknown): void {
  process.stderr.write(`\ndemo: ${error instanceof Error ? error.message : String(error)}\n`)
  for (const name of ['server', 'agent']) {
    const log = join(dir, `${name}.log`)
    if (existsSync(log))
      process.stderr.write(`${log} ends with:\n${readFileSync(log, 'utf8').slice(-2000)}\n`)
  }
  void stop().then(() => process.exit(1))
}

try {
  await Promise.race([main(), interrupted])
  await stop()
  // Steps that an interruption cut short still wait for what will not come.
  process.exit(0)
} catch (error) {
  fail(error)
}
