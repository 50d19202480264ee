/** The embedded PostgreSQL: private, one owner, stopped with the server, alive after SIGKILL. */
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import pg from 'pg'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { systemClock } from '../../../src/base/clock.ts'
import { createSystemRandom } from '../../../src/base/random.ts'
import {
  type EmbeddedPostgres,
  startEmbeddedPostgres,
} from '../../../src/server/datastore/embedded.ts'
import { silentLog } from '../../rigs/silent-log.ts'

const ports = { log: silentLog, clock: systemClock, random: createSystemRandom() }
let dataDir: string
let running: EmbeddedPostgres | undefined

beforeEach(() => {
  dataDir = mkdtempSync(path.join(tmpdir(), 'signet-embedded-'))
})
afterEach(async () => {
  await running?.stop()
  running = undefined
  rmSync(dataDir, { recursive: true, force: true })
})

async function start(dir = dataDir): Promise<EmbeddedPostgres> {
  running = await startEmbeddedPostgres({ ...ports, dataDir: dir })
  return running
}

async function query(server: EmbeddedPostgres, text: string): Promise<pg.QueryResult> {
  const client = new pg.Client({ ...server.poolConfig })
  await client.connect()
  try {
    return await client.query(text)
  } finally {
    await client.end()
  }
}

test('keeps its rows over a restart and listens on no TCP port', async () => {
  const first = await start()
  await query(first, 'create table kept as select 1 as n')
  const { rows } = await query(first, 'show listen_addresses')
  expect(rows).toEqual([{ listen_addresses: '' }])
  const pid = first.pid()!
  await first.stop()
  expect(existsSync(`/proc/${pid}`)).toBe(false)
  const second = await start()
  expect((await query(second, 'select n from kept')).rows).toEqual([{ n: 1 }])
})
