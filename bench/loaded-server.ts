/** A server with svidload before it, for the benches. */
import { appendFileSync, existsSync, mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Deployment, PEERS_DIR, PROJECT_DIR, type Product } from '../test/interop/rig.ts'
import { Daemon, run } from '../test/rigs/process.ts'
import { until } from '../test/rigs/until.ts'

/** A line of svidload's. */
export interface Sample {
  readonly label: Product
  readonly phase: string
  readonly per_s: number
  readonly p50_ms: number
  readonly p99_ms: number
  readonly server_cpu_us_per_svid: number
}

const RESULTS_DIR = join(PROJECT_DIR, 'bench', 'results')
const SVIDLOAD = join(PEERS_DIR, 'svidload')

export class LoadedServer implements AsyncDisposable {
  readonly #deployment: Deployment
  readonly #name: string
  readonly #common: readonly string[]
  #load: Daemon | undefined

  private constructor(deployment: Deployment, name: string, common: readonly string[]) {
    this.#deployment = deployment
    this.#name = name
    this.#common = common
  }

  /** Raw lines go to bench/results/<name>.jsonl, with `profile` a V8 CPU profile of ours beside them. */
  static async start(product: Product, name: string, profile: boolean): Promise<LoadedServer> {
    const deployment = await Deployment.create(product)
    const server = await deployment.startServer({
      logLevel: 'WARN',
      ...(profile ? { env: { NODE_OPTIONS: `--cpu-prof --cpu-prof-dir=${RESULTS_DIR}` } } : {}),
      server: 'ratelimit { attestation = false signing = false }',
    })
    const pids = serverPids(deployment, server.pid)
    return new LoadedServer(deployment, name, svidloadOptions(deployment, product, pids))
  }

  /** All phases of one run of svidload. */
  async run(args: readonly string[]): Promise<Sample[]> {
    return this.#keep(await runSvidload([...this.#common, ...args]))
  }

  /** Makes the entries; from then on `phase` is ready. */
  async prepare(entries: number, seconds: number): Promise<void> {
    const args = ['-steps', '-entries', String(entries), '-duration', `${seconds}s`]
    this.#load = Daemon.start(SVIDLOAD, [...this.#common, ...args])
    await this.#load.untilPrinted('"authorized-entries"')
  }

  /** One phase: a batch size, or `jwt`. */
  async phase(name: string): Promise<Sample> {
    const load = this.#load
    if (load === undefined) throw new Error('prepare comes first')
    const seen = load.output.length
    load.write(`${name}\n`)
    const done = () => load.output.endsWith('\n') && load.output.length > seen
    await until(`svidload ${name}`, () => done() || load.exitCode !== undefined, 120_000)
    if (load.exitCode !== undefined) throw new Error(load.output.slice(seen))
    return this.#keep(load.output.slice(seen))[0]!
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#load?.stop()
    await this.#deployment[Symbol.asyncDispose]()
  }

  #keep(lines: string): Sample[] {
    mkdirSync(RESULTS_DIR, { recursive: true })
    appendFileSync(join(RESULTS_DIR, `${this.#name}.jsonl`), lines)
    return samplesOf(lines)
  }
}

/** One run against a server that somebody else has started. */
export async function loadServer(
  deployment: Deployment,
  pid: number,
  args: readonly string[],
): Promise<Sample[]> {
  const options = svidloadOptions(deployment, 'signet', String(pid))
  return samplesOf(await runSvidload([...options, ...args]))
}

function svidloadOptions(deployment: Deployment, label: Product, pids: string): string[] {
  return [
    ...['-addr', `127.0.0.1:${deployment.port}`, '-admin', deployment.serverSocket],
    ...['-label', label, '-pid', pids, '-verify=false'],
  ]
}

async function runSvidload(args: readonly string[]): Promise<string> {
  const result = await run(SVIDLOAD, args, { timeoutMs: 15 * 60_000 })
  if (result.code !== 0) throw new Error(result.stderr)
  return result.stdout
}

function samplesOf(lines: string): Sample[] {
  return lines
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))
}

/** Process ids whose CPU counts: the server's, and its database's, which may not be its child. */
function serverPids(deployment: Deployment, serverPid: number): string {
  const pids = [serverPid]
  const pidFile = join(deployment.dir, 'server', 'data', 'postgres', 'postmaster.pid')
  const alternatives = [pidFile, pidFile.replace('/postgres/', '/postgres/data/')]
  const found = alternatives.find((file) => existsSync(file))
  if (found !== undefined) pids.push(Number(readFileSync(found, 'utf8').split('\n')[0]))
  return pids.join(',')
}

/** The middle one of an odd number. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN
}
