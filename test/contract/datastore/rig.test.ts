import { expect, test } from 'vitest'
import { useDatabase, withDatabase } from '../../rigs/postgres.ts'

const db = useDatabase()

test('a file has a database of its own with the schema in it', async () => {
  const { rows } = await db.query("select to_regnamespace('signet') is not null as there")
  expect(rows).toEqual([{ there: true }])
})

test('an empty one on request', async () => {
  await withDatabase(
    async (empty) => {
      const { rows } = await empty.query("select to_regnamespace('signet') is null as absent")
      expect(rows).toEqual([{ absent: true }])
    },
    { migrated: false },
  )
})
