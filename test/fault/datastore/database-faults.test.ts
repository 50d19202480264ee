/**
 * PostgreSQL killed, restarted, read-only or locked under load (F01, F03, F04, F08): callers get
 * `unavailable` with a hint, nothing acknowledged is lost, all heals without a restart of ours.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import pg from 'pg'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { toHex } from '../../../src/base/bytes.ts'
import { systemClock } from '../../../src/base/clock.ts'
import { SignetError } from '../../../src/base/error.ts'
import { createSystemRandom } from '../../../src/base/random.ts'
import type { Datastore } from '../../../src/server/datastore/datastore.ts'
import {
  type EmbeddedPostgres,
  startEmbeddedPostgres,
} from '../../../src/server/datastore/embedded.ts'
import { startJobs } from '../../../src/server/jobs/runner.ts'
import { ACTOR, draft, id, ledgerRow, openTestDatastore } from '../../rigs/datastore.ts'
import { silentLog } from '../../rigs/silent-log.ts'
import { until } from '../../rigs/until.ts'

let dataDir: string
let server: EmbeddedPostgres
let datastore: Datastore

beforeAll(async () => {
  dataDir = mkdtempSync(path.join(tmpdir(), 'signet-faults-'))
  const random = createSystemRandom()
  server = await startEmbeddedPostgres({ dataDir, log: silentLog, clock: systemClock, random })
  datastore = await openTestDatastore({ poolConfig: { ...server.poolConfig } })
})
afterAll(async () => {
  await datastore.close()
  await server.stop()
  rmSync(dataDir, { recursive: true, force: true })
})

async function query(text: string): Promise<pg.QueryResult> {
  const client = new pg.Client({ ...server.poolConfig })
  client.on('error', () => {})
  await client.connect()
  try {
    return await client.query(text)
  } finally {
    await client.end().catch(() => {})
  }
}

/** Writes entries and ledger rows, one after the other in several loops, until told to stop. */
class Load {
  readonly acknowledgedEntries: string[] = []
  readonly acknowledgedSerials: string[] = []
  readonly errors: unknown[] = []
  #running = true
  readonly #loops: Promise<void>[]

  constructor() {
    this.#loops = [this.#entries('a'), this.#entries('b'), this.#rows(), this.#rows()]
  }

  async stop(): Promise<void> {
    this.#running = false
    await Promise.all(this.#loops)
  }

  async #entries(name: string): Promise<void> {
    for (let n = 0; this.#running; n++) {
      const one = draft({ id: `${name}-${n}-${Date.now()}`, spiffeId: id(`/${name}/${n}`) })
      const unique = { ...one, hint: one.id, selectors: [{ type: 'n', value: one.id }] }
      await this.#try(async () => {
        const [outcome] = await datastore.entries.createEntries([unique], ACTOR)
        if (outcome?.ok === true) this.acknowledgedEntries.push(one.id)
        else throw outcome?.error
      })
    }
  }

  async #rows(): Promise<void> {
    while (this.#running) {
      const row = ledgerRow({ serialNumber: crypto.getRandomValues(new Uint8Array(16)) })
      await this.#try(async () => {
        await datastore.ledger.record([row])
        this.acknowledgedSerials.push(toHex(row.serialNumber))
      })
    }
  }

  async #try(write: () => Promise<void>): Promise<void> {
    try {
      await write()
    } catch (error) {
      this.errors.push(error)
      await systemClock.sleep(10)
    }
  }
}

const progress = (load: Load) => load.acknowledgedEntries.length + load.acknowledgedSerials.length

async function untilProgress(load: Load): Promise<void> {
  const entries = load.acknowledgedEntries.length
  const serials = load.acknowledgedSerials.length
  await until(
    'entries and ledger rows acknowledged again',
    () =>
      load.acknowledgedEntries.length > entries + 5 &&
      load.acknowledgedSerials.length > serials + 5,
  )
}

function expectUnavailable(error: unknown): void {
  expect(error).toBeInstanceOf(SignetError)
  expect(error).toMatchObject({ kind: 'unavailable', message: 'datastore is unavailable' })
  expect((error as SignetError).retryAfterSeconds).toBeGreaterThan(0)
}

async function expectNothingLost(load: Load): Promise<void> {
  const entries = await query('select id from signet.entry')
  const stored = new Set(entries.rows.map((row) => row.id))
  expect(load.acknowledgedEntries.filter((name) => !stored.has(name))).toEqual([])
  const ledger = await query("select encode(serial_number, 'hex') as serial from signet.ledger")
  const serials = new Set(ledger.rows.map((row) => row.serial))
  expect(load.acknowledgedSerials.filter((serial) => !serials.has(serial))).toEqual([])
}

describe('PostgreSQL under load', () => {
  test.each([
    ['killed', () => void process.kill(server.pid()!, 'SIGKILL')],
    ['restarted at once', () => void process.kill(server.pid()!, 'SIGQUIT')],
  ])('%s', async (_, strike) => {
    const load = new Load()
    await untilProgress(load)
    strike()
    await until('errors', () => load.errors.length > 0)
    await untilProgress(load)
    await load.stop()
    expect(progress(load)).toBeGreaterThan(0)
    for (const error of load.errors) expectUnavailable(error)
    await expectNothingLost(load)
  })

  test('a storm of terminated connections', async () => {
    const load = new Load()
    await untilProgress(load)
    for (let i = 0; i < 5; i++) {
      await query(
        `select pg_terminate_backend(pid) from pg_stat_activity
         where backend_type = 'client backend' and pid <> pg_backend_pid()`,
      )
      await untilProgress(load)
    }
    await load.stop()
    for (const error of load.errors) expectUnavailable(error)
    await expectNothingLost(load)
  })
})

test('jobs go on after PostgreSQL was killed', async () => {
  let runs = 0
  const run = async () => {
    runs++
  }
  const ports = { clock: systemClock, random: createSystemRandom(), log: silentLog }
  const jobs = [{ name: 'counted', cron: '0 0 1 1 *', run }]
  await using _runner = await startJobs({ ...ports, pool: datastore.openJobPool(), jobs })
  const queue = () => query("select signet_worker.add_job('counted', job_key := 'counted')")
  const untilRun = async (count: number) =>
    until('a run', async () => {
      if (runs < count) await queue()
      return runs >= count
    })
  await untilRun(1)
  for (let i = 0; i < 2; i++) {
    const before = runs
    process.kill(server.pid()!, 'SIGKILL')
    await untilRun(before + 1)
  }
})

describe('PostgreSQL that takes no writes', () => {
  test('read-only: refused, healed without a restart', async () => {
    await query('alter system set default_transaction_read_only = on')
    await query('select pg_reload_conf()')
    const write = () => datastore.entries.createEntries([draft()], ACTOR)
    const refused = await until('a refusal', async () => {
      try {
        await datastore.ledger.record([ledgerRow()])
      } catch (error) {
        return error
      }
    })
    expect(refused).toMatchObject({ kind: 'unavailable', code: 'database_read_only' })
    await expect(write()).rejects.toMatchObject({ code: 'database_read_only' })
    const client = new pg.Client({ ...server.poolConfig })
    await client.connect()
    await client.query('set default_transaction_read_only = off')
    await client.query('alter system reset default_transaction_read_only')
    await client.query('select pg_reload_conf()')
    await client.end()
    await until('a write', () => write().then(() => true))
    await until('a ledger row', () => datastore.ledger.record([ledgerRow()]).then(() => true))
  })

  test('a table locked by somebody: an error in seconds, not a hang', async () => {
    const locker = new pg.Client({ ...server.poolConfig })
    await locker.connect()
    await locker.query('begin; lock table signet.join_token in access exclusive mode')
    const started = systemClock.monotonicMs()
    await expect(datastore.joinTokens.redeemJoinToken('x')).rejects.toMatchObject({
      kind: 'unavailable',
      code: 'database_timeout',
    })
    expect(systemClock.monotonicMs() - started).toBeLessThan(10_000)
    await locker.query('rollback')
    await locker.end()
    expect(await datastore.joinTokens.redeemJoinToken('x')).toBeUndefined()
  })

  test('no server at all', async () => {
    const nowhere = { ...server.poolConfig, host: dataDir }
    await expect(openTestDatastore({ poolConfig: nowhere })).rejects.toMatchObject({
      kind: 'unavailable',
      code: 'database_connection_lost',
    })
    const refused = { ...server.poolConfig, password: 'wrong' }
    await expect(openTestDatastore({ poolConfig: refused })).rejects.toMatchObject({
      kind: 'unavailable',
      code: 'database_refused',
    })
  })
})
