/**
 * An old cold copy put in the place of a database that a server is reading (F22): the server must
 * learn it, also when the copy has run through more transactions than it lost.
 */
import { cpSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { parseConnectionString } from '../../../src/server/datastore/connection-string.ts'
import { ACTOR, draft, openTestDatastore } from '../../rigs/datastore.ts'
import { startOwnPostgres } from '../../rigs/own-postgres.ts'

const dir = mkdtempSync(path.join(tmpdir(), 'signet-cold-'))
afterAll(() => rmSync(dir, { recursive: true }))

test('a position from before the copy was put back is stale, whatever came since', async () => {
  const place = path.join(dir, 'data', 'postgres', 'data')
  const copy = path.join(dir, 'copy')
  const postgres = await startOwnPostgres(path.join(dir, 'data'))
  const open = () =>
    openTestDatastore({ poolConfig: parseConnectionString(postgres.connectionString) })
  await (await open()).close()
  await postgres.stop()
  cpSync(place, copy, { recursive: true })
  await postgres.start()

  const before = await open()
  await before.entries.createEntries([draft({ id: 'lost' })], ACTOR)
  const position = await before.changeLog.position()
  await before.close()

  await postgres.stop()
  rmSync(place, { recursive: true })
  cpSync(copy, place, { recursive: true })
  await postgres.start()
  await using after = await open()
  for (const id of ['a', 'b', 'c', 'd', 'e', 'f']) {
    await after.entries.createEntries([draft({ id })], ACTOR)
  }
  const xmax = (of: string) => Number(of.split(':')[1])
  expect(xmax(await after.changeLog.position())).toBeGreaterThan(xmax(position))
  await expect(after.changeLog.readSince(position)).rejects.toMatchObject({
    code: 'stale_position',
  })
  await after.close()
  await postgres.stop()
})
