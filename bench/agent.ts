/**
 * `npm run bench -- agent [--streams N] [--identities N]`: SPIRE's agent and ours, on our server, with
 * a thousand identities in the cache and a thousand Workload API connections with a stream each.
 * Ours is built first, as in the package. Prints memory, the CPU it takes to open the streams, to
 * push one change to all, and to idle.
 */
import { execFileSync } from 'node:child_process'
import { cpSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { Deployment, PEERS_DIR, PROJECT_DIR, type Product } from '../test/interop/rig.ts'
import { Daemon } from '../test/rigs/process.ts'
import { until } from '../test/rigs/until.ts'
import { cpuSeconds, memoryMb } from './process-stats.ts'

const IDLE_SECONDS = 20

export async function benchAgent(identities: number, streams: number): Promise<void> {
  const rows: string[][] = []
  for (const product of ['spire', 'signet'] as const) {
    rows.push(await measure(product, identities, streams))
  }
  const head = [
    'agent',
    'RSS idle MB',
    'RSS streams MB',
    'open ms',
    'open CPU ms',
    'push CPU ms',
    'idle % core',
  ]
  for (const row of [head, ...rows]) {
    process.stdout.write(`${row.map((cell) => cell.padStart(15)).join('')}\n`)
  }
}

async function measure(product: Product, identities: number, streams: number): Promise<string[]> {
  await using deployment = await Deployment.create('signet')
  await deployment.startServer({ logLevel: 'WARN' })
  const token = await deployment.joinToken('spiffe://example.org/node')
  const built = product === 'signet' ? { program: build(join(deployment.dir, 'package')) } : {}
  const agent = await deployment.startAgent(product, { args: ['-joinToken', token], ...built })
  await createEntries(deployment, identities)
  await until('all SVIDs in the cache', async () => {
    const info = await deployment.agent('spire', ['healthcheck'])
    return info.code === 0 && (await cachedSvids(deployment)) >= Math.min(identities, 1000)
  })
  const rssIdle = memoryMb(agent.pid)
  const cpu0 = cpuSeconds(agent.pid) * 1000
  const load = Daemon.start(join(PEERS_DIR, 'gopeer'), [
    'streams',
    '-socket',
    `unix://${deployment.agentSocket()}`,
    '-n',
    String(streams),
    '-duration',
    '90s',
  ])
  const start = performance.now()
  await load.untilPrinted('open', 120_000)
  const openMs = performance.now() - start
  const openCpu = cpuSeconds(agent.pid) * 1000 - cpu0
  const rssStreams = memoryMb(agent.pid)
  const idle0 = cpuSeconds(agent.pid) * 1000
  await new Promise((resolve) => setTimeout(resolve, IDLE_SECONDS * 1000))
  const idle = ((cpuSeconds(agent.pid) * 1000 - idle0) / (IDLE_SECONDS * 1000)) * 100
  const push0 = cpuSeconds(agent.pid) * 1000
  await deployment.createEntry([
    '-parentID',
    'spiffe://example.org/node',
    '-spiffeID',
    'spiffe://example.org/pushed',
    '-selector',
    'unix:uid:0',
  ])
  await new Promise((resolve) => setTimeout(resolve, 8_000))
  const push = cpuSeconds(agent.pid) * 1000 - push0
  await load.stop('SIGKILL')
  return [
    product,
    rssIdle.toFixed(0),
    rssStreams.toFixed(0),
    openMs.toFixed(0),
    openCpu.toFixed(0),
    push.toFixed(0),
    idle.toFixed(2),
  ]
}

/** What the package holds. A checkout's agent also keeps what it read TypeScript with, some 25 MB. */
function build(directory: string): string {
  const tsc = join(PROJECT_DIR, 'node_modules', '.bin', 'tsc')
  const outDir = join(directory, 'dist')
  execFileSync(tsc, ['-p', join(PROJECT_DIR, 'tsconfig.build.json'), '--outDir', outDir])
  for (const name of ['bin', 'package.json']) {
    cpSync(join(PROJECT_DIR, name), join(directory, name), { recursive: true })
  }
  symlinkSync(join(PROJECT_DIR, 'node_modules'), join(directory, 'node_modules'))
  return join(directory, 'bin', 'signet')
}

/** One for the caller of the streams, the rest for other users. */
async function createEntries(deployment: Deployment, count: number): Promise<void> {
  const entries = Array.from({ length: count }, (_, i) => ({
    parent_id: 'spiffe://example.org/node',
    spiffe_id: `spiffe://example.org/w/${i}`,
    selectors: [
      { type: 'unix', value: `uid:${i === 0 ? (process.getuid?.() ?? 0) : 100_000 + i}` },
    ],
  }))
  for (let at = 0; at < count; at += 500) {
    const input = JSON.stringify({ entries: entries.slice(at, at + 500) })
    const made = await deployment.server(['entry', 'create', '-data', '-'], 'spire', { input })
    if (made.code !== 0) throw new Error(made.stderr)
  }
}

async function cachedSvids(deployment: Deployment): Promise<number> {
  const info = await deployment.agentAdmin('spire', ['debug', 'getinfo', '-output', 'json'])
  return Number(JSON.parse(info.stdout || '{}').cached_x509_svids_count ?? 0)
}
