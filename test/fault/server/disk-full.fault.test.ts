/**
 * The disk of the embedded database full, on a small file system of its own (F08): callers hear what
 * it is, the server stays up, nothing acknowledged is lost, and all heals when there is space again.
 */
import { execFileSync } from 'node:child_process'
import { mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type Client, status } from '@grpc/grpc-js'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { BundleService } from '../../../src/wire/gen/spire/api/server/bundle/v1/bundle.ts'
import { EntryService } from '../../../src/wire/gen/spire/api/server/entry/v1/entry.ts'
import { SVIDService } from '../../../src/wire/gen/spire/api/server/svid/v1/svid.ts'
import { Entry } from '../../../src/wire/gen/spire/api/types/entry.ts'
import { fromGrpcError } from '../../../src/wire/status.ts'
import { call, LiveServer } from '../../rigs/live-server.ts'
import { until } from '../../rigs/until.ts'

const canMount = process.geteuid?.() === 0
if (!canMount) console.warn('NOT RUN: a full disk, because only root mounts a file system')
const FREE_BYTES = 48 * 1024 * 1024
const CHUNK = Buffer.alloc(64 * 1024, 1)

let server: LiveServer
let agent: Client
let entryId: string
let filler: string
let made = 0
const acknowledged: string[] = []
const jwts: string[] = []

beforeAll(async () => {
  if (!canMount) return
  server = await LiveServer.start()
  agent = server.tls(await server.attest('spiffe://example.org/node'))
  const path = ['-parentID', 'spiffe://example.org/node', '-spiffeID', 'spiffe://example.org/web']
  entryId = await server.deployment.createEntry([...path, '-selector', 'unix:uid:1'])
  await server.daemon.stop()
  moveToSmallDisk(server.postgresDir)
  filler = join(server.postgresDir, 'filler')
  server.daemon = await server.deployment.startServer()
}, 60_000)
afterAll(async () => {
  if (!canMount || server === undefined) return
  await server.daemon.stop()
  execFileSync('umount', [server.postgresDir])
  await server[Symbol.asyncDispose]()
})

function moveToSmallDisk(dir: string): void {
  const away = `${dir}.away`
  renameSync(dir, away)
  mkdirSync(dir, { mode: 0o700 })
  const used = Number.parseInt(execFileSync('du', ['-sb', away]).toString(), 10)
  execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${used + FREE_BYTES},mode=700`, 'tmpfs', dir])
  execFileSync('cp', ['-a', `${away}/.`, dir])
  rmSync(away, { recursive: true })
}

function fillDisk(): void {
  for (;;) {
    try {
      writeFileSync(filler, CHUNK, { flag: 'a' })
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOSPC') return
      throw error
    }
  }
}

/** 500 rows: more than the pages at hand have room for. */
async function createEntries() {
  const entries = Array.from({ length: 500 }, () =>
    Entry.create({
      spiffeId: { trustDomain: 'example.org', path: `/load/${made++}` },
      parentId: { trustDomain: 'example.org', path: '/elsewhere' },
      selectors: [{ type: 'unix', value: `user:${'x'.repeat(200)}` }],
    }),
  )
  const request = { entries, outputMask: undefined }
  const answer = await call(server.admin, EntryService.batchCreateEntry, request)
  const results = answer.value?.results ?? []
  for (const { status: outcome, entry } of results) {
    if (outcome?.code === status.OK) acknowledged.push(entry!.id)
  }
  const bad = results.find((result) => result.status?.code !== status.OK)?.status
  if (bad) return { code: bad.code, details: bad.message, error: undefined }
  return { code: answer.code, details: answer.details, error: answer.error }
}

async function issueJwt() {
  const answer = await call(agent, SVIDService.newJwtsvid, { entryId, audience: ['a'] })
  if (answer.value?.svid) jwts.push(answer.value.svid.token)
  return answer
}

function untilRefused(ask: typeof createEntries | typeof issueJwt) {
  return until('a refusal', async () => {
    const answer = await ask()
    return answer.code === status.OK ? undefined : answer
  })
}

async function expectNothingLost(): Promise<void> {
  const missing = await server.rows(
    `select v from unnest($1::text[]) as v
     where not exists (select from signet.entry where id = v)`,
    [acknowledged],
  )
  expect(missing).toEqual([])
  const [{ count }] = (await server.rows(
    `select count(*)::integer from signet.ledger where kind = 'jwt'`,
  )) as [{ count: string }]
  expect(Number(count)).toBeGreaterThanOrEqual(jwts.length)
}

async function expectHealed(): Promise<void> {
  await until('entries again', async () => (await createEntries()).code === status.OK)
  await until('tokens again', async () => (await issueJwt()).code === status.OK)
  await expectNothingLost()
}

test.skipIf(!canMount)(
  'no room for rows: refused by name, healed with space',
  async () => {
    expect((await createEntries()).code).toBe(status.OK)
    fillDisk()
    const refused = await untilRefused(createEntries)
    expect([refused.code, refused.details]).toEqual([
      status.UNAVAILABLE,
      expect.stringContaining('datastore is unavailable: the disk of the database is full'),
    ])
    expect(server.daemon.exitCode).toBeUndefined()
    rmSync(filler)
    await expectHealed()
  },
  60_000,
)

test.skipIf(!canMount)(
  'no room for the write-ahead log: unavailable, not dead',
  async () => {
    fillDisk()
    const log = () =>
      until('the log to be full', () =>
        server.rows('select pg_switch_wal(), txid_current()').then(
          () => false,
          () => true,
        ),
      )
    await log()
    const refused = await untilRefused(issueJwt)
    expect([refused.code, refused.details]).toEqual([
      status.UNAVAILABLE,
      expect.stringContaining('datastore is unavailable'),
    ])
    expect(fromGrpcError(refused.error).retryAfterSeconds).toBeGreaterThan(0)
    const bundle = await call(server.tls(), BundleService.getBundle, { outputMask: undefined })
    expect(bundle.code).toBe(status.OK)
    // Recovery needs space as well; the log of the server says what is missing.
    await server.daemon.untilPrinted(/ended unexpectedly.*No space left on device/, 20_000)
    expect(server.daemon.exitCode).toBeUndefined()
    rmSync(filler)
    await expectHealed()
  },
  60_000,
)
