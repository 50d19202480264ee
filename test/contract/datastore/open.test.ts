/** Whose database is it: refusals at opening, and many servers opening one. */
import { expect, test } from 'vitest'
import { openDatabase } from '../../../src/server/datastore/database.ts'
import { ACTOR, draft, NOW, openTestDatastore } from '../../rigs/datastore.ts'
import { createDatabase } from '../../rigs/postgres.ts'
import { silentLog } from '../../rigs/silent-log.ts'
import { rootDraft } from '../ca/authority-store.contract.ts'
import { attestation } from './agent-store.contract.ts'

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

test('a role that may not make the schemas hears which right it lacks', async () => {
  await using db = await createDatabase({ migrated: false })
  const role = `weak_${db.poolConfig.database}`
  await db.query(`create role ${role} login password 'weak'`)
  const poolConfig = { ...db.poolConfig, user: role, password: 'weak' }
  try {
    await expect(openTestDatastore({ poolConfig })).rejects.toMatchObject({
      code: 'database_right_missing',
      message: expect.stringContaining('grant it CREATE on the database'),
    })
  } finally {
    await db.query(`drop role ${role}`)
  }
})

test("somebody else's schema of our name is left alone", async () => {
  await using db = await createDatabase({ migrated: false })
  await db.query('create schema signet create table mine (x integer)')
  await expect(openTestDatastore(db)).rejects.toMatchObject({
    code: 'schema_not_ours',
    message: expect.stringContaining('give Signet another database'),
  })
  expect((await db.query('select * from signet.mine')).rows).toEqual([])
})

test('every kind of change has its record, in the transaction of the change', async () => {
  await using db = await createDatabase()
  await using datastore = await openTestDatastore({ poolConfig: { ...db.poolConfig } })
  const { agents, authorities, bundles, entries, joinTokens } = datastore
  const recorded = async () => {
    const { rows } = await db.query(
      `select action, object_id, actor_id, before is not null as before, after is not null as after
       from signet.audit order by id`,
    )
    await db.query('delete from signet.audit')
    return rows.map(({ action, object_id, actor_id, before, after }) =>
      [action, object_id, actor_id, before ? 'before' : '', after ? 'after' : ''].join(' ').trim(),
    )
  }

  const agent = attestation()
  const name = agent.id.toString()
  await agents.recordAttestation(agent, ACTOR)
  await agents.setNewSerial(agent.id, '124', NOW + 60)
  await agents.banAgent(agent.id, ACTOR)
  await agents.deleteAgent(agent.id, ACTOR)
  await agents.recordAttestation(attestation({ expiresAt: NOW - 9 }), ACTOR)
  await agents.pruneAgents(NOW, { tofu: true, limit: 9 }, ACTOR)
  expect(await recorded()).toEqual([
    `agent.attest ${name} uid:0  after`,
    `agent.ban ${name} uid:0 before`,
    `agent.delete ${name} uid:0 before`,
    `agent.attest ${name} uid:0  after`,
    `agent.prune ${name} uid:0 before`,
  ])

  const bundle = {
    trustDomain: 'other.org',
    x509Authorities: [],
    jwtAuthorities: [],
    refreshHintSeconds: 0,
    sequenceNumber: 1n,
  }
  await bundles.createBundle(bundle, ACTOR)
  await bundles.updateBundle({ trustDomain: 'other.org', refreshHintSeconds: 5 }, ACTOR)
  await bundles.setBundle({ ...bundle, sequenceNumber: 3n }, ACTOR)
  await bundles.deleteBundle('other.org', 'restrict', ACTOR)
  await expect(bundles.deleteBundle('other.org', 'restrict', ACTOR)).rejects.toThrow()
  expect(await recorded()).toEqual([
    'bundle.create other.org uid:0 before after',
    'bundle.update other.org uid:0 before after',
    'bundle.set other.org uid:0 before after',
    'bundle.delete other.org uid:0 before',
  ])

  const token = { value: 'token', expiresAt: NOW + 60, clusterId: 2 }
  await joinTokens.createJoinToken(token, undefined, ACTOR)
  await expect(joinTokens.createJoinToken(token, undefined, ACTOR)).rejects.toThrow()
  expect(await recorded()).toEqual([expect.stringMatching(/^join_token.create [0-9a-f]{64} uid:0/)])

  const root = await authorities.insertPrepared(rootDraft())
  await authorities.activate(root.id)
  await expect(authorities.activate(root.id)).rejects.toThrow()
  const made = await recorded()
  expect(made.map((line) => line.split(' ')[0])).toEqual([
    'authority.prepare',
    'authority.activate',
  ])

  await entries.createEntries([draft({ expiresAt: NOW - 9, id: 'old' })], ACTOR)
  await entries.pruneEntries(NOW, ACTOR)
  expect(await recorded()).toEqual([
    'entry.create old uid:0  after',
    'entry.prune old uid:0 before',
  ])
})
