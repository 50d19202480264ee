import { expect, test } from 'vitest'
import { ACTOR, NOW } from '../../rigs/datastore.ts'
import { useEmptiedDatastore } from '../../rigs/emptied.ts'
import { aliasOf, joinTokenStoreContract } from './join-token-store.contract.ts'

const { empty, database } = useEmptiedDatastore()

joinTokenStoreContract(async () => ({ ...(await empty()), [Symbol.asyncDispose]: async () => {} }))

test('a token that waits is nowhere in the database', async () => {
  const { joinTokens } = await empty()
  const value = 'canary-4f1c9d'
  const token = { value, expiresAt: NOW + 60, clusterId: 2 }
  await joinTokens.createJoinToken(token, aliasOf(value), ACTOR)
  const tables = await database.query(
    "select oid::regclass::text as name from pg_class where relkind in ('r', 'p') and relnamespace = 'signet'::regnamespace",
  )
  expect(tables.rows.length).toBeGreaterThan(10)
  for (const { name } of tables.rows) {
    const { rows } = await database.query(
      `select count(*)::integer as n from ${name} as t where t::text like $1`,
      [`%${value}%`],
    )
    expect(rows, name).toEqual([{ n: 0 }])
  }
})
