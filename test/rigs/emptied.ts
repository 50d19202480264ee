/** One datastore per test file whose tables are emptied for each test: cheaper than a database each. */
import { afterAll, beforeAll } from 'vitest'
import type { Datastore, DatastoreOptions } from '../../src/server/datastore/datastore.ts'
import { openTestDatastore } from './datastore.ts'
import { type TestDatabase, useDatabase } from './postgres.ts'

/** Deletes: for a few rows they are many times faster than truncation. */
const EMPTY = [
  'entry',
  'agent',
  'join_token',
  'bundle',
  'authority',
  'audit',
  'change_log',
  'ledger',
  'ledger_failure',
]
  .map((table) => `delete from signet.${table};`)
  .join('')

export interface EmptiedDatastore {
  readonly database: TestDatabase
  /** The datastore, empty. Not to be closed by the test. */
  empty(): Promise<Datastore>
}

export function useEmptiedDatastore(options: Partial<DatastoreOptions> = {}): EmptiedDatastore {
  const database = useDatabase()
  let datastore: Datastore | undefined
  beforeAll(async () => {
    datastore = await openTestDatastore({ ...options, poolConfig: { ...database.poolConfig } })
  })
  afterAll(async () => {
    await datastore?.close()
  })
  return {
    database,
    empty: async () => {
      await database.query(EMPTY)
      return datastore!
    },
  }
}
