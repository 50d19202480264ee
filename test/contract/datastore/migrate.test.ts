/** Migrations: fresh output, many starters at once, refusals. */
import { readFileSync } from 'node:fs'
import pg from 'pg'
import { expect, test } from 'vitest'
import { compileSql, outputFile } from '../../../scripts/compile-sql.ts'
import { migrate, SCHEMA_VERSION } from '../../../src/server/datastore/migrate.ts'
import { createDatabase } from '../../rigs/postgres.ts'

test('gen/sql.ts is what sql/*.sql compiles to', () => {
  expect(readFileSync(outputFile, 'utf8')).toBe(compileSql())
})

async function migrateOnce(config: pg.ClientConfig): Promise<void> {
  const client = new pg.Client(config)
  await client.connect()
  try {
    await migrate(client)
  } finally {
    await client.end()
  }
}

test('of 20 servers starting on one empty database all succeed', async () => {
  await using db = await createDatabase({ migrated: false })
  await Promise.all(Array.from({ length: 20 }, () => migrateOnce(db.poolConfig)))
  const { rows } = await db.query('select version from signet.schema_migration order by 1')
  expect(rows).toEqual(Array.from({ length: SCHEMA_VERSION }, (_, i) => ({ version: i + 1 })))
  await migrateOnce(db.poolConfig)
})

test('a schema from the future is refused', async () => {
  await using db = await createDatabase()
  await db.query('insert into signet.schema_migration (version) values ($1)', [SCHEMA_VERSION + 1])
  await expect(migrateOnce(db.poolConfig)).rejects.toMatchObject({
    kind: 'failed_precondition',
    code: 'schema_too_new',
  })
})

test('the reserved clusters are there', async () => {
  await using db = await createDatabase()
  const { rows } = await db.query('select id, name from signet.cluster order by id')
  expect(rows).toEqual([
    { id: 0, name: '' },
    { id: 1, name: 'control' },
    { id: 2, name: 'default' },
  ])
})
