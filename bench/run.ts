/**
 * `npm run bench [-- issue|entries|scale|agent] [--seconds N] [--rounds N] [--profile]`: speed beside SPIRE, both servers in
 * one sitting on this machine, with the same client. Ours keeps its ledger on, and the CPU of its
 * PostgreSQL counts; SPIRE runs on SQLite with its rate limit off. Raw lines go to bench/results/.
 */
import { appendFileSync, existsSync, mkdirSync, readFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { join } from 'node:path'
import { Deployment, PEERS_DIR, PROJECT_DIR, type Product } from '../test/interop/rig.ts'
import { run } from '../test/rigs/process.ts'
import { benchAgent } from './agent.ts'
import { benchScale } from './scale.ts'

interface Sample {
  readonly label: Product
  readonly phase: string
  readonly per_s: number
  readonly p50_ms?: number
  readonly p99_ms?: number
  readonly server_cpu_us_per_svid?: number
}

const args = process.argv.slice(2)
const option = (name: string, fallback: number): number => {
  const at = args.indexOf(name)
  return at < 0 ? fallback : Number(args[at + 1])
}
const what = args.find((a) => !a.startsWith('-') && !/^\d+$/.test(a)) ?? 'issue'
const seconds = option('--seconds', 8)
const rounds = option('--rounds', 3)
const resultsDir = join(PROJECT_DIR, 'bench', 'results')

/** Process ids whose CPU counts: the server's, and its database's, which may not be its child. */
function serverPids(deployment: Deployment, serverPid: number): string {
  const pids = [serverPid]
  const pidFile = join(deployment.dir, 'server', 'data', 'postgres', 'postmaster.pid')
  const alternatives = [pidFile, pidFile.replace('/postgres/', '/postgres/data/')]
  const found = alternatives.find((file) => existsSync(file))
  if (found !== undefined) pids.push(Number(readFileSync(found, 'utf8').split('\n')[0]))
  return pids.join(',')
}

/** One server started, loaded and stopped. */
async function measure(product: Product, load: readonly string[]): Promise<Sample[]> {
  await using deployment = await Deployment.create(product)
  const server = await deployment.startServer({
    logLevel: 'WARN',
    // A profile of our server lands beside the results; open it in a browser's developer tools.
    ...(args.includes('--profile')
      ? { env: { NODE_OPTIONS: `--cpu-prof --cpu-prof-dir=${resultsDir}` } }
      : {}),
    server: 'ratelimit { attestation = false signing = false }',
  })
  const common = [
    '-addr',
    `127.0.0.1:${deployment.port}`,
    '-admin',
    deployment.serverSocket,
    '-label',
    product,
    '-pid',
    serverPids(deployment, server.pid),
    '-verify=false',
  ]
  const svidload = (extra: readonly string[]) =>
    run(join(PEERS_DIR, 'svidload'), [...common, ...extra], { timeoutMs: 15 * 60_000 })
  // Servers run for weeks: what the first seconds cost (compiling, connecting) is not measured.
  await svidload(['-entries', '500', '-duration', '4s', '-batches', '1,500'])
  const result = await svidload(load)
  if (result.code !== 0)
    throw new Error(`${product}: ${result.stderr}\n${server.output.slice(-2000)}`)
  mkdirSync(resultsDir, { recursive: true })
  appendFileSync(join(resultsDir, `${what}.jsonl`), result.stdout)
  process.stdout.write(result.stdout)
  return result.stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN
}

async function bench(load: readonly string[], figure: keyof Sample): Promise<void> {
  const samples: Sample[] = []
  for (let round = 0; round < rounds; round++) {
    for (const product of ['spire', 'signet'] as const)
      samples.push(...(await measure(product, load)))
  }
  const of = (product: Product, phase: string, key: keyof Sample) =>
    median(
      samples.filter((s) => s.label === product && s.phase === phase).map((s) => Number(s[key])),
    )
  const phases = [...new Set(samples.map((s) => s.phase))].filter((p) => p !== 'authorized-entries')
  process.stdout.write(
    `\n${cpus()[0]?.model}, ${cpus().length} cores, ${new Date().toISOString()}\n`,
  )
  process.stdout.write(
    `phase             ${String(figure)}: spire   signet   ratio   | /s spire  signet | p99 ms spire signet\n`,
  )
  for (const phase of phases) {
    const theirs = of('spire', phase, figure)
    const ours = of('signet', phase, figure)
    const ratio = figure === 'per_s' ? ours / theirs : theirs / ours
    const cells = [
      phase.padEnd(18),
      theirs.toFixed(0).padStart(10),
      ours.toFixed(0).padStart(10),
      ratio.toFixed(2).padStart(8),
      of('spire', phase, 'per_s').toFixed(0).padStart(10),
      of('signet', phase, 'per_s').toFixed(0).padStart(8),
      of('spire', phase, 'p99_ms').toFixed(1).padStart(12),
      of('signet', phase, 'p99_ms').toFixed(1).padStart(7),
    ]
    process.stdout.write(`${cells.join('')}\n`)
  }
}

if (what === 'issue') {
  await bench(['-duration', `${seconds}s`, '-entries', '1000'], 'server_cpu_us_per_svid')
} else if (what === 'entries') {
  await bench(['-entries', '20000', '-batches', '1', '-duration', '1s', '-jwt=false'], 'per_s')
} else if (what === 'scale') {
  await benchScale(option('--entries', 100_000), option('--agents', 100))
} else if (what === 'agent') {
  await benchAgent(option('--identities', 1_000), option('--streams', 1_000))
} else {
  throw new Error(`unknown bench ${what}: issue, entries, scale or agent`)
}
