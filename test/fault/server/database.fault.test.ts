/**
 * The database of a running server restarted, robbed of its connections, gone, frozen and killed
 * together with the server (F01, F03, F08): nothing acknowledged is lost, nothing leaves without its
 * ledger row, callers hear `unavailable` with a hint, and what lives from memory goes on.
 */
import { createHash, X509Certificate } from 'node:crypto'
import { chmodSync, readdirSync, readlinkSync, renameSync } from 'node:fs'
import { join } from 'node:path'
import { type Client, status } from '@grpc/grpc-js'
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { BundleService } from '../../../src/wire/gen/spire/api/server/bundle/v1/bundle.ts'
import { EntryService } from '../../../src/wire/gen/spire/api/server/entry/v1/entry.ts'
import { SVIDService } from '../../../src/wire/gen/spire/api/server/svid/v1/svid.ts'
import { Entry } from '../../../src/wire/gen/spire/api/types/entry.ts'
import { fromGrpcError } from '../../../src/wire/status.ts'
import { parseCertificate } from '../../../src/x509/certificate.ts'
import type { RawIdentity } from '../../interop/raw-client.ts'
import { type Answer, call, LiveServer } from '../../rigs/live-server.ts'
import { p256, signedCsr } from '../../rigs/odd-csr.ts'
import { PushClient } from '../../rigs/push-client.ts'
import { until } from '../../rigs/until.ts'

/** A caller hears of a database that swallows statements before it gives up itself, after 30 s. */
const ANSWER_MS_MAX = 28_000

let server: LiveServer
let identity: RawIdentity
let agent: Client
let entryId: string
let load: Load

beforeAll(async () => {
  server = await LiveServer.start()
  identity = await server.attest('spiffe://example.org/node')
  agent = server.tls(identity)
  entryId = await server.deployment.createEntry([
    ...['-parentID', 'spiffe://example.org/node', '-spiffeID', 'spiffe://example.org/web'],
    ...['-selector', 'unix:uid:1'],
  ])
  load = new Load()
})
afterAll(async () => {
  await load?.stop()
  await server?.[Symbol.asyncDispose]()
})
beforeEach(() => load.untilProgress())

/** Creates entries and asks for SVIDs of both kinds; keeps what was given. */
class Load {
  readonly entries: string[] = []
  /** SHA-256 of what was signed, hex. */
  readonly signed: string[] = []
  /** Serial numbers of certificates, hex. */
  readonly serials: string[] = []
  readonly refusals: Answer<unknown>[] = []
  #running = true
  #count = 0
  readonly loops = 4
  readonly #loops = [
    this.#loop(() => this.#createEntries()),
    this.#loop(() => this.#issueX509()),
    this.#loop(() => this.#issueX509()),
    this.#loop(() => this.#issueJwt()),
  ]

  async stop(): Promise<void> {
    this.#running = false
    await Promise.all(this.#loops)
  }

  /** Of each kind. */
  async untilProgress(): Promise<void> {
    const before = [this.entries.length, this.serials.length, this.signed.length]
    await until('acknowledged work', () => {
      const now = [this.entries.length, this.serials.length, this.signed.length]
      return now.every((count, n) => count > before[n]! + 5)
    })
  }

  async #loop(work: () => Promise<Answer<unknown>>): Promise<void> {
    while (this.#running) {
      const answer = await work()
      if (answer.code === status.OK) continue
      this.refusals.push(answer)
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
  }

  async #createEntries(): Promise<Answer<unknown>> {
    const path = `/load/${this.#count++}`
    const entries = ['a', 'b', 'c'].map((name) =>
      Entry.create({
        spiffeId: { trustDomain: 'example.org', path: `${path}/${name}` },
        parentId: { trustDomain: 'example.org', path: '/elsewhere' },
        selectors: [{ type: 'unix', value: `user:${name}` }],
      }),
    )
    const request = { entries, outputMask: undefined }
    const answer = await call(server.admin, EntryService.batchCreateEntry, request)
    for (const result of answer.value?.results ?? []) {
      if (result.status?.code === status.OK) this.entries.push(result.entry!.id)
    }
    return failedItem(answer) ?? answer
  }

  async #issueX509(): Promise<Answer<unknown>> {
    const csr = signedCsr(p256())
    const params = [0, 1, 2, 3].map(() => ({ entryId, csr }))
    const answer = await call(agent, SVIDService.batchNewX509Svid, { params })
    for (const { status: outcome, svid } of answer.value?.results ?? []) {
      if (outcome?.code !== status.OK) continue
      const { serialNumber, tbs } = parts(svid!.certChain[0]!)
      this.serials.push(serialNumber)
      this.signed.push(tbs)
    }
    return failedItem(answer) ?? answer
  }

  async #issueJwt(): Promise<Answer<unknown>> {
    const request = { entryId, audience: ['a'] }
    const answer = await call(agent, SVIDService.newJwtsvid, request)
    const token = answer.value?.svid?.token
    if (token !== undefined) this.signed.push(sha256(token.slice(0, token.lastIndexOf('.'))))
    return answer
  }
}

function failedItem(
  answer: Answer<{ results: { status?: { code: number; message: string } | undefined }[] }>,
) {
  const bad = answer.value?.results.find((result) => result.status?.code !== status.OK)?.status
  return bad && { code: bad.code, details: bad.message, value: undefined, error: undefined }
}

function parts(der: Uint8Array): { serialNumber: string; tbs: string } {
  const { serialNumber } = new X509Certificate(der)
  const certificate = parseCertificate(der)
  return { serialNumber: serialNumber.toLowerCase(), tbs: sha256(certificate.tbs) }
}

function sha256(bytes: Uint8Array | string): string {
  return createHash('sha256').update(bytes).digest('hex')
}

/** Every refusal was the right one, every acknowledgement is kept. */
async function expectHonest(): Promise<void> {
  for (const { code, details, error } of load.refusals) {
    expect(`${code} ${details}`).toMatch(/^14 /)
    if (error !== undefined && details.includes('datastore')) {
      expect(fromGrpcError(error).retryAfterSeconds, details).toBeGreaterThan(0)
    }
  }
  load.refusals.length = 0
  const [entries, serials, signed] = [[...load.entries], [...load.serials], [...load.signed]]
  const missing = (table: string, column: string, values: string[]) =>
    server.rows(
      `select v from unnest($1::text[]) as v
       where not exists (select from signet.${table} where ${column} = v)`,
      [values],
    )
  expect(await missing('entry', 'id', entries)).toEqual([])
  const rows = await server.rows(
    `select encode(serial_number, 'hex') as serial, encode(tbs_sha256, 'hex') as tbs
     from signet.ledger`,
  )
  const stored = {
    serials: new Set(rows.map((r) => r.serial)),
    tbs: new Set(rows.map((r) => r.tbs)),
  }
  expect(serials.filter((serial) => !stored.serials.has(serial))).toEqual([])
  expect(signed.filter((hash) => !stored.tbs.has(hash))).toEqual([])
}

/** What needs no database. */
async function expectServesFromMemory(): Promise<void> {
  // A new connection each: the handshake needs no database either.
  for (const client of [server.tls(), server.admin]) {
    const bundle = await call(client, BundleService.getBundle, { outputMask: undefined })
    expect([bundle.code, bundle.value?.x509Authorities.length]).toEqual([0, 1])
  }
  const mine = await call(server.tls(identity), EntryService.getAuthorizedEntries, {
    outputMask: undefined,
  })
  expect([mine.code, mine.details]).toEqual([0, ''])
  expect(mine.value?.entries.map(({ spiffeId }) => spiffeId?.path)).toContain('/web')
  using push = new PushClient(server.tls(identity))
  await push.untilPath('/web', 5_000)
}

async function expectUnavailable(): Promise<void> {
  const csr = signedCsr(p256())
  const id = { trustDomain: 'example.org', path: '/mint' }
  const from = performance.now()
  const batch = call(agent, SVIDService.batchNewX509Svid, { params: [{ entryId, csr }] })
  const answers: Answer<unknown>[] = await Promise.all([
    call(agent, SVIDService.newJwtsvid, { entryId, audience: ['a'] }),
    call(server.admin, SVIDService.mintJwtsvid, { id, audience: ['a'], ttl: 60 }),
    call(server.admin, SVIDService.mintX509Svid, { csr: mintable(), ttl: 60 }),
    call(server.admin, EntryService.listEntries, {
      pageSize: 0,
      pageToken: '',
      filter: undefined,
      outputMask: undefined,
    }),
  ])
  const issued = await batch
  expect(performance.now() - from).toBeLessThan(ANSWER_MS_MAX)
  expect(failedItem(issued)?.code ?? issued.code).toBe(status.UNAVAILABLE)
  for (const { code, details, error } of answers) {
    expect(code, details).toBe(status.UNAVAILABLE)
    expect(fromGrpcError(error).retryAfterSeconds, details).toBeGreaterThan(0)
  }
}

function mintable(): Uint8Array {
  const name = new TextEncoder().encode('spiffe://example.org/minted')
  const uri = Uint8Array.of(0x30, name.length + 2, 0x86, name.length, ...name)
  return signedCsr(p256(), [{ oid: '2.5.29.17', critical: false, value: uri }])
}

test('restarted at once, three times', async () => {
  for (let n = 0; n < 3; n++) {
    process.kill(server.postmaster(), 'SIGQUIT')
    await until('refusals', () => load.refusals.length > 0)
    await load.untilProgress()
    await expectHonest()
  }
}, 60_000)

test('its connections terminated again and again', async () => {
  for (let n = 0; n < 8; n++) {
    await server.rows(
      `select pg_terminate_backend(pid) from pg_stat_activity
       where backend_type = 'client backend' and pid <> pg_backend_pid()`,
    )
    await load.untilProgress()
  }
  await expectHonest()
}, 60_000)

test.each<[string, (data: string) => void, (data: string) => void]>([
  // PostgreSQL refuses a directory that others can write.
  ['refuses to start', (data) => chmodSync(data, 0o777), (data) => chmodSync(data, 0o700)],
  [
    'can not be started',
    (data) => renameSync(data, `${data}-away`),
    (data) => renameSync(`${data}-away`, data),
  ],
])(
  'gone, and %s: refusals with a hint, memory serves, all heals',
  async (_, away, back) => {
    const data = join(server.postgresDir, 'data')
    const postmaster = server.postmaster()
    const attempts = () => server.daemon.output.split('Embedded PostgreSQL ').length
    const before = attempts()
    away(data)
    process.kill(postmaster, 'SIGQUIT')
    try {
      // Started again in vain.
      await until('attempts', () => attempts() > before + 2, 10_000)
      await expectUnavailable()
      await expectServesFromMemory()
    } finally {
      back(data)
    }
    await load.untilProgress()
    await expectHonest()
  },
  60_000,
)

test('frozen: nobody waits for ever, all heals', async () => {
  const processes = postgresProcesses()
  expect(processes.length).toBeGreaterThan(3)
  for (const pid of processes) process.kill(pid, 'SIGSTOP')
  load.refusals.length = 0
  try {
    await expectUnavailable()
    await expectServesFromMemory()
    // Also who was in the middle of something.
    await until('all to be answered', () => load.refusals.length >= load.loops, 30_000)
  } finally {
    for (const pid of processes) process.kill(pid, 'SIGCONT')
  }
  await load.untilProgress()
  await expectHonest()
}, 90_000)

/** Milliseconds of load before each blow: some fall into the start of the load, some into its midst. */
const LOAD_MS_MAX = 400

test('killed with the server in mid-commit, twenty times at random points', async () => {
  for (let n = 0; n < 20; n++) {
    const [first, pause, cut] = crypto.getRandomValues(new Uint32Array(3)) as Uint32Array
    await new Promise((resolve) => setTimeout(resolve, pause! % LOAD_MS_MAX))
    const postmaster = server.postmaster()
    const blows = [() => killIfThere(postmaster), () => server.daemon.stop('SIGKILL')]
    if (first! % 2 === 1) blows.reverse()
    await blows[0]!()
    await new Promise((resolve) => setTimeout(resolve, cut! % 20))
    await blows[1]!()
    server.daemon = await server.deployment.startServer()
    if (n % 5 === 4) {
      await load.untilProgress()
      await expectHonest()
    }
  }
}, 180_000)

/** With its server gone it ends by itself. */
function killIfThere(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
  }
}

function postgresProcesses(): number[] {
  const data = join(server.postgresDir, 'data')
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => {
      try {
        return readlinkSync(`/proc/${pid}/cwd`) === data
      } catch {
        return false
      }
    })
}
