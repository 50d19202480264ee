/** Whose database is it: refusals at opening, and many servers opening one. */
import { expect, test } from 'vitest'
import { openDatabase } from '../../../src/server/datastore/database.ts'
import { ACTOR, draft, openTestDatastore } from '../../rigs/datastore.ts'
import { createDatabase } from '../../rigs/postgres.ts'
import { silentLog } from '../../rigs/silent-log.ts'

test('by a connection string as in a configuration file', async () => {
  await using db = await createDatabase({ migrated: false })
  const { connectionString } = db
  const options = { connectionString } as unknown as Parameters<typeof openTestDatastore>[0]
  await using datastore = await openTestDatastore(options)
  const [outcome] = await datastore.entries.createEntries([draft()], ACTOR)
  expect(outcome?.ok).toBe(true)
  await datastore.ping()
})

test('who waits in vain for a free connection is told to come again, and why is in the code', async () => {
  await using db = await createDatabase()
  const config = { ...db.poolConfig, connectionTimeoutMillis: 200 }
  await using database = openDatabase(config, { maxOpenConns: 1, log: silentLog })
  const free = Promise.withResolvers<void>()
  const holding = Promise.withResolvers<void>()
  const held = database.transaction(async () => {
    holding.resolve()
    await free.promise
  })
  await holding.promise
  await expect(database.query('select 1')).rejects.toMatchObject({
    kind: 'unavailable',
    code: 'database_busy',
    message: 'datastore is unavailable',
    retryAfterSeconds: expect.any(Number),
  })
  free.resolve()
  await held
  expect((await database.query('select 1')).count).toBe(1)
})

test('ten servers opening one empty database all get it', async () => {
  await using db = await createDatabase({ migrated: false })
  const open = () => openTestDatastore({ poolConfig: { ...db.poolConfig }, maxOpenConns: 2 })
  const datastores = await Promise.all(Array.from({ length: 10 }, open))
  for (const datastore of datastores) await datastore.close()
})

test('the database of another trust domain is refused', async () => {
  await using db = await createDatabase()
  const poolConfig = { ...db.poolConfig }
  await (await openTestDatastore({ poolConfig })).close()
  await expect(openTestDatastore({ poolConfig, trustDomain: 'other.org' })).rejects.toMatchObject({
    kind: 'failed_precondition',
    code: 'other_trust_domain',
    message: 'the database belongs to trust domain "example.org", not to "other.org"',
  })
})

test.each([['registered_entries'], ['attested_node_entries'], ['bundles'], ['migrations']])(
  'a database with the table %s of SPIRE is refused, unless told otherwise',
  async (table) => {
    await using db = await createDatabase({ migrated: false })
    await db.query(`create table ${table} (id integer)`)
    const poolConfig = { ...db.poolConfig }
    await expect(openTestDatastore({ poolConfig })).rejects.toMatchObject({
      kind: 'failed_precondition',
      code: 'spire_database',
    })
    await (await openTestDatastore({ poolConfig, fresh: true })).close()
    // From then on it is ours.
    await (await openTestDatastore({ poolConfig })).close()
  },
)

test('every change is in the audit, with who did it and what was before and after', async () => {
  await using db = await createDatabase()
  await using datastore = await openTestDatastore({ poolConfig: { ...db.poolConfig } })
  await datastore.entries.createEntries([draft({ id: 'a' })], ACTOR)
  await datastore.entries.updateEntries([{ id: 'a', hint: 'new' }], ACTOR)
  await datastore.entries.deleteEntries(['a'], ACTOR)
  const { rows } = await db.query(
    `select actor_kind, actor_id, request_id, action, object_id, before->>'hint' as before,
       after->>'hint' as after from signet.audit order by id`,
  )
  const who = { actor_kind: 'local', actor_id: 'uid:0', request_id: 'request-1', object_id: 'a' }
  expect(rows).toEqual([
    { ...who, action: 'entry.create', before: null, after: '' },
    { ...who, action: 'entry.update', before: '', after: 'new' },
    { ...who, action: 'entry.delete', before: 'new', after: null },
  ])
})
