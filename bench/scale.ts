/**
 * `npm run bench -- scale [--entries N] [--agents N]`: one server with 100,000 entries and 100 agents
 * on PostgreSQL. Prints how long it takes to be ready, the server's memory, what it costs when nothing
 * happens, how soon a new entry is an SVID in a workload's stream, and what a JWT costs an agent with
 * all entries beside one with a single entry.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { credentials, Metadata } from '@grpc/grpc-js'
import pg from 'pg'
import { SyncClient, type SyncResponse } from '../src/wire/gen/signet/sync/v1/sync.ts'
import { AgentClient } from '../src/wire/gen/spire/api/server/agent/v1/agent.ts'
import {
  type BatchCreateEntryResponse,
  EntryClient,
} from '../src/wire/gen/spire/api/server/entry/v1/entry.ts'
import type { JoinToken } from '../src/wire/gen/spire/api/types/jointoken.ts'
import { SpiffeWorkloadAPIClient, type X509SVIDResponse } from '../src/wire/gen/workload.ts'
import { attestWithToken, channelTo, type RawIdentity } from '../test/interop/raw-client.ts'
import { Deployment } from '../test/interop/rig.ts'
import type { Daemon } from '../test/rigs/process.ts'
import { until } from '../test/rigs/until.ts'
import { loadServer } from './loaded-server.ts'
import { cpuSeconds, memoryMb } from './process-stats.ts'

const BATCH = 500
const SETTLE_MS = 45_000
const IDLE_SECONDS = 40
const CHANGES = 100

export async function benchScale(entryCount: number, agentCount: number): Promise<void> {
  await using deployment = await Deployment.create('signet')
  const options = { logLevel: 'WARN', server: 'ratelimit { attestation = false signing = false }' }
  const first = await deployment.startServer(options)
  const agents = await attestAgents(deployment, agentCount)
  const seeded = performance.now()
  await seedEntries(deployment, agents, entryCount)
  const perSecond = entryCount / ((performance.now() - seeded) / 1000)
  print('entries created per second', perSecond.toFixed(0))
  await first.stop()

  const started = performance.now()
  const server = await deployment.startServer()
  print('ready after start, s', ((performance.now() - started) / 1000).toFixed(2))
  const streams = await openStreams(deployment, agents)
  print('server memory, MB', memoryMb(server.pid).toFixed(0))
  await measureIdle(deployment, server)
  print('server memory with all streams, MB', memoryMb(server.pid).toFixed(0))
  await measureChanges(deployment)
  await measureJwt(deployment, server)
  for (const close of streams) close()
}

function print(what: string, value: string): void {
  process.stdout.write(`${what.padEnd(52)} ${value}\n`)
}

const adminClient = <T>(
  Client: new (address: string, creds: ReturnType<typeof credentials.createInsecure>) => T,
  deployment: Deployment,
): T => new Client(`unix:${deployment.serverSocket}`, credentials.createInsecure())

async function attestAgents(deployment: Deployment, count: number): Promise<RawIdentity[]> {
  const roots = await deployment.serverOk(['bundle', 'show'])
  const admin = adminClient(AgentClient, deployment)
  const agents: RawIdentity[] = []
  for (let i = 0; i < count; i++) {
    const token = await new Promise<JoinToken>((resolve, reject) => {
      admin.createJoinToken({ ttl: 600, token: '', agentId: undefined }, (error, value) =>
        error === null ? resolve(value) : reject(error),
      )
    })
    agents.push(
      await attestWithToken(`localhost:${deployment.port}`, roots, token.value, deployment.dir),
    )
  }
  admin.close()
  return agents
}

/** Spread evenly over the agents; five selectors each. */
async function seedEntries(
  deployment: Deployment,
  agents: readonly RawIdentity[],
  count: number,
): Promise<void> {
  const client = adminClient(EntryClient, deployment)
  for (let done = 0; done < count; done += BATCH) {
    const entries = Array.from({ length: Math.min(BATCH, count - done) }, (_, k) => {
      const n = done + k
      return {
        parentId: { trustDomain: 'example.org', path: pathOf(agents[n % agents.length]!) },
        spiffeId: { trustDomain: 'example.org', path: `/ns/scale-${n % 100}/sa/w-${n}` },
        selectors: [
          { type: 'k8s', value: `ns:scale-${n % 100}` },
          { type: 'k8s', value: `sa:w-${n}` },
          { type: 'k8s', value: `pod-label:app:w-${n}` },
          { type: 'k8s', value: 'container-name:main' },
          { type: 'k8s', value: `node-name:node-${n % agents.length}` },
        ],
      }
    })
    await createEntries(client, entries)
  }
  client.close()
}

function pathOf(identity: RawIdentity): string {
  return identity.spiffeId.slice('spiffe://example.org'.length)
}

function createEntries(client: EntryClient, entries: readonly object[]): Promise<string[]> {
  const request = { entries: entries.map((e) => ({ ...EMPTY_ENTRY, ...e })), outputMask: undefined }
  return new Promise((resolve, reject) => {
    client.batchCreateEntry(request, (error: unknown, value: BatchCreateEntryResponse) => {
      if (error !== null) return reject(error)
      const bad = value.results.find((r) => r.status?.code !== 0)
      if (bad !== undefined) return reject(new Error(bad.status?.message))
      resolve(value.results.map((r) => r.entry?.id ?? ''))
    })
  })
}

const EMPTY_ENTRY = {
  id: '',
  spiffeId: undefined,
  parentId: undefined,
  selectors: [],
  x509SvidTtl: 0,
  federatesWith: [],
  admin: false,
  downstream: false,
  expiresAt: 0n,
  dnsNames: [],
  revisionNumber: 0n,
  storeSvid: false,
  jwtSvidTtl: 0,
  hint: '',
  createdAt: 0n,
  additionalAttributes: undefined,
}

/** A push stream for each agent, answered with acknowledgements as a real agent would. */
async function openStreams(
  deployment: Deployment,
  agents: readonly RawIdentity[],
): Promise<(() => void)[]> {
  const roots = await deployment.serverOk(['bundle', 'show'])
  return Promise.all(
    agents.map(async (agent) => {
      const client = new SyncClient(`localhost:${deployment.port}`, channelTo(roots, agent))
      const stream = client.subscribe()
      await new Promise<void>((resolve, reject) => {
        stream.on('data', (message: SyncResponse) => {
          if (message.cursor === '') return
          stream.write({ ack: { cursor: message.cursor, bundleSequence: 1n } })
          resolve()
        })
        stream.on('error', reject)
        stream.write({ hello: { cursor: '', bundleSequence: 0n, agentVersion: 'bench' } })
      })
      stream.removeAllListeners('error')
      stream.on('error', () => {})
      return () => client.close()
    }),
  )
}

function descendants(pid: number): number[] {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim()
  if (children === '') return [pid]
  return [pid, ...children.split(' ').flatMap((child) => descendants(Number(child)))]
}

function treeCpuSeconds(pid: number): number {
  return descendants(pid).reduce((sum, p) => sum + cpuSeconds(p), 0)
}

async function measureIdle(deployment: Deployment, server: Daemon): Promise<void> {
  const postgres = join(deployment.dir, 'server', 'data', 'postgres')
  const db = new pg.Client({
    host: join(postgres, 'socket'),
    user: 'signet',
    password: readFileSync(join(postgres, 'password'), 'utf8').trim(),
    database: 'postgres',
  })
  await db.connect()
  const rowsRead = async () => {
    const { rows } = await db.query(
      'select sum(tup_returned + tup_fetched) as n from pg_stat_database',
    )
    return Number(rows[0].n)
  }
  // What autovacuum would do within the next minute about the seeding belongs to the seeding.
  await db.query('vacuum analyze')
  // Figures of the database reach its statistics within a second of the query that made them.
  // So do the collections by which V8 gives memory back after the start.
  await new Promise((resolve) => setTimeout(resolve, SETTLE_MS))
  const rows0 = await rowsRead()
  const cpu0 = treeCpuSeconds(server.pid)
  await new Promise((resolve) => setTimeout(resolve, IDLE_SECONDS * 1000))
  const cpu = treeCpuSeconds(server.pid) - cpu0
  const rows = (await rowsRead()) - rows0
  await db.end()
  print('idle, % of a core (PostgreSQL included)', ((cpu / IDLE_SECONDS) * 100).toFixed(2))
  print('idle, rows read per second', (rows / IDLE_SECONDS).toFixed(1))
}

/** From BatchCreateEntry's answer to the SVID in an open FetchX509SVID stream. */
async function measureChanges(deployment: Deployment): Promise<void> {
  const token = await deployment.joinToken('spiffe://example.org/bench-node')
  await deployment.startAgent('signet', { args: ['-joinToken', token] })
  const entries = adminClient(EntryClient, deployment)
  const make = (n: number) =>
    createEntries(entries, [
      {
        parentId: { trustDomain: 'example.org', path: '/bench-node' },
        spiffeId: { trustDomain: 'example.org', path: `/change/${n}` },
        selectors: [{ type: 'unix', value: `uid:${process.getuid?.() ?? 0}` }],
      },
    ])
  await make(0)
  const seen = new Map<string, number>()
  const workload = new SpiffeWorkloadAPIClient(
    `unix:${deployment.agentSocket()}`,
    credentials.createInsecure(),
  )
  const metadata = new Metadata()
  metadata.set('workload.spiffe.io', 'true')
  const stream = await until('the first identity', async () => {
    const attempt = workload.fetchX509Svid({}, metadata)
    return new Promise<typeof attempt | undefined>((resolve) => {
      attempt.once('data', () => resolve(attempt))
      attempt.once('error', () => resolve(undefined))
    })
  })
  stream.on('data', (response: X509SVIDResponse) => {
    for (const svid of response.svids) {
      if (!seen.has(svid.spiffeId)) seen.set(svid.spiffeId, performance.now())
    }
  })
  const waits: number[] = []
  for (let n = 1; n <= CHANGES; n++) {
    await make(n)
    const from = performance.now()
    const id = `spiffe://example.org/change/${n}`
    await until(id, () => seen.has(id))
    waits.push(Math.max(0, (seen.get(id) ?? 0) - from))
  }
  stream.cancel()
  workload.close()
  entries.close()
  waits.sort((a, b) => a - b)
  print('entry change to SVID in the stream, p50 ms', (waits[CHANGES / 2] ?? 0).toFixed(0))
  print(
    'entry change to SVID in the stream, p99 ms',
    (waits[Math.floor(CHANGES * 0.99)] ?? 0).toFixed(0),
  )
}

/** The same load with one entry and with 100,000 on the asking agent. */
async function measureJwt(deployment: Deployment, server: Daemon): Promise<void> {
  for (const entries of [1, 100_000]) {
    const args = ['-entries', String(entries), '-batches', '', '-duration', '5s']
    const samples = await loadServer(deployment, server.pid, args)
    const jwt = samples.find(({ phase }) => phase === 'jwt')!
    print(
      `JWT for an agent with ${entries} entries, µs of CPU`,
      jwt.server_cpu_us_per_svid.toFixed(0),
    )
  }
}
