/**
 * The change log under transactions that overlap in every way (F07): each commit is read once, none
 * is skipped, none waits for another transaction; positions are bound to their database.
 */
import fc from 'fast-check'
import pg from 'pg'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { CHANGES_PER_READ_MAX } from '../../../src/base/limits.ts'
import type { Datastore } from '../../../src/server/datastore/datastore.ts'
import { ACTOR, draft, id, NOW, openTestDatastore } from '../../rigs/datastore.ts'
import { useEmptiedDatastore } from '../../rigs/emptied.ts'
import { createDatabase } from '../../rigs/postgres.ts'
import { until } from '../../rigs/until.ts'

const { empty, database } = useEmptiedDatastore()

/** Connections that a test drives by hand. */
const WRITERS = 4
const writers: pg.Client[] = []
beforeAll(async () => {
  for (let i = 0; i < WRITERS; i++) {
    const client = new pg.Client({ ...database.poolConfig })
    await client.connect()
    writers.push(client)
  }
})
afterAll(async () => {
  await Promise.all(writers.map((client) => client.end()))
})

const write = (client: pg.Client, name: string) =>
  client.query("insert into signet.change_log (kind, ids) values ('entry', array[$1])", [name])

async function idsSince(datastore: Datastore, position: string) {
  const read = await datastore.changeLog.readSince(position)
  return { ids: read.changes.map((change) => change.id), position: read.position }
}

describe('reading', () => {
  test('what a batch changed, in order, once', async () => {
    const datastore = await empty()
    const start = await datastore.changeLog.position()
    await datastore.entries.createEntries(
      [draft({ id: 'a' }), draft({ id: 'b', spiffeId: id('/b') })],
      ACTOR,
    )
    await datastore.entries.updateEntries([{ id: 'b', hint: 'x' }], ACTOR)
    await datastore.entries.deleteEntries(['a', 'none'], ACTOR)
    const { changes, position } = await datastore.changeLog.readSince(start)
    expect(changes).toEqual(['a', 'b', 'b', 'a'].map((name) => ({ kind: 'entry', id: name })))
    expect(await idsSince(datastore, position)).toMatchObject({ ids: [] })
  })

  test('a transaction that commits late is read then, and holds nobody up', async () => {
    const datastore = await empty()
    const [late, elsewhere] = writers as [pg.Client, pg.Client]
    await elsewhere.query('begin')
    await elsewhere.query('select pg_current_xact_id()')
    await late.query('begin')
    await write(late, 'late')
    let at = await idsSince(datastore, await datastore.changeLog.position())
    await write(writers[2]!, 'other')
    at = await idsSince(datastore, at.position)
    expect(at.ids).toEqual(['other'])
    await late.query('commit')
    at = await idsSince(datastore, at.position)
    expect(at.ids).toEqual(['late'])
    await elsewhere.query('commit')
    at = await idsSince(datastore, at.position)
    expect(at.ids).toEqual([])
  })

  // Method: any interleaving of begins, writes, commits, rollbacks and reads on four connections;
  // each reader must see exactly the committed rows, each with the first read after its commit.
  test('any interleaving', async () => {
    const step = fc.tuple(
      fc.integer({ min: 0, max: WRITERS - 1 }),
      fc.constantFrom('write', 'write', 'commit', 'rollback', 'read'),
    )
    const steps = fc.array(step, { minLength: 5, maxLength: 40 })
    await fc.assert(fc.asyncProperty(steps, interleave), { numRuns: 40 })
  })
})

type Step = [number, string]

async function interleave(steps: Step[]): Promise<void> {
  const datastore = await empty()
  const open = writers.map((): string[] | undefined => undefined)
  const due = new Set<string>()
  let position = await datastore.changeLog.position()
  let made = 0
  for (const [n, action] of [...steps, ...writers.map((_, i): Step => [i, 'rollback'])]) {
    const client = writers[n]!
    if (action === 'write') {
      if (open[n] === undefined) await client.query('begin')
      open[n] ??= []
      const name = `n${made++}`
      await write(client, name)
      open[n].push(name)
    } else if (action === 'read') {
      const read = await idsSince(datastore, position)
      expect(new Set(read.ids)).toEqual(due)
      expect(read.ids.length).toBe(due.size)
      due.clear()
      position = read.position
    } else {
      await client.query(action)
      if (action === 'commit') for (const name of open[n] ?? []) due.add(name)
      open[n] = undefined
    }
  }
  expect(new Set((await idsSince(datastore, position)).ids)).toEqual(due)
}

test(`a reader ${CHANGES_PER_READ_MAX} commits behind catches up, one further behind reads anew`, async () => {
  const datastore = await empty()
  const start = await datastore.changeLog.position()
  const fill = (count: number) =>
    database.query(
      `insert into signet.change_log (kind, ids) select 'entry', array[n::text]
       from generate_series(1, ${count}) as n`,
    )
  await fill(CHANGES_PER_READ_MAX)
  expect((await idsSince(datastore, start)).ids).toHaveLength(CHANGES_PER_READ_MAX)
  await fill(1)
  await expect(datastore.changeLog.readSince(start)).rejects.toMatchObject({
    code: 'stale_position',
  })
})

describe('positions', () => {
  const stale = { kind: 'failed_precondition', code: 'stale_position' }

  test.each([
    ['nothing', () => ''],
    ['not a snapshot', (p: string) => `${p}x`],
    ['another database', (p: string) => `0000000000000000${p.slice(16)}`],
    ['disordered', (p: string) => `${p.slice(0, 16)}/9:3:`],
    ['from the future', (p: string) => `${p.slice(0, 16)}/9000000000:9000000000:`],
    ['not a number PostgreSQL knows', (p: string) => `${p.slice(0, 16)}/1:9999999999999999999:`],
    ['quoting', (p: string) => `${p}'; drop table signet.entry; --`],
  ])('%s is stale', async (_, change) => {
    const { changeLog } = await empty()
    const position = await changeLog.position()
    await expect(changeLog.readSince(change(position))).rejects.toMatchObject(stale)
    await changeLog.readSince(position)
  })

  test('a position of another database of the same server is stale', async () => {
    const { changeLog } = await empty()
    await using other = await createDatabase()
    await using datastore = await openTestDatastore({ poolConfig: { ...other.poolConfig } })
    await expect(datastore.changeLog.readSince(await changeLog.position())).rejects.toMatchObject(
      stale,
    )
  })

  test('a restored database has a new epoch', async () => {
    const { changeLog } = await empty()
    const position = await changeLog.position()
    await database.query('update signet.deployment set epoch = gen_random_uuid()')
    await expect(changeLog.readSince(position)).rejects.toMatchObject(stale)
  })
})

describe('pruning the change log', () => {
  test('readers behind the limit learn it, readers at or past it go on', async () => {
    const datastore = await empty()
    const { changeLog, maintenance } = datastore
    const early = await changeLog.position()
    await write(writers[0]!, 'one')
    const middle = await changeLog.position()
    expect(await maintenance.pruneChangeLog(NOW, 60)).toBe(0)
    await write(writers[0]!, 'two')
    expect(await maintenance.pruneChangeLog(NOW + 59, 60)).toBe(0)
    expect(await idsSince(datastore, early)).toMatchObject({ ids: ['one', 'two'] })
    expect(await maintenance.pruneChangeLog(NOW + 60, 60)).toBe(1)
    await expect(changeLog.readSince(early)).rejects.toMatchObject({ code: 'stale_position' })
    expect(await idsSince(datastore, middle)).toMatchObject({ ids: ['two'] })
  })

  test('a transaction that ran for longer than rows are kept is still read', async () => {
    const datastore = await empty()
    const { changeLog, maintenance } = datastore
    await database.query('update signet.deployment set pending_at = null, pruned_snapshot = null')
    const [late] = writers as [pg.Client]
    await late.query('begin')
    await write(late, 'late')
    let at = await idsSince(datastore, await changeLog.position())
    // Each round wakes the readers.
    for (const hour of [0, 1, 2]) {
      await maintenance.pruneChangeLog(NOW + hour * 3600, 3600)
      at = await idsSince(datastore, at.position)
      expect(at.ids).toEqual([])
    }
    await late.query('commit')
    await maintenance.pruneChangeLog(NOW + 3 * 3600, 3600)
    at = await idsSince(datastore, at.position)
    expect(at.ids).toEqual(['late'])
  })

  test('an idle reader that follows the wakes never becomes stale', async () => {
    const datastore = await empty()
    const { changeLog, maintenance } = datastore
    await write(writers[0]!, 'one')
    let at = await idsSince(datastore, await changeLog.position())
    for (const hour of [10, 11, 12, 13]) {
      // Others use up transaction numbers meanwhile.
      await writers[1]!.query('select pg_current_xact_id()')
      await maintenance.pruneChangeLog(NOW + hour * 3600, 3600)
      at = await idsSince(datastore, at.position)
    }
    expect((await database.query('select from signet.change_log')).rowCount).toBe(0)
  })
})

describe('listening', () => {
  test('wakes on connecting, on each commit, and after the connection was lost', async () => {
    const datastore = await empty()
    let wakes = 0
    await using _listener = datastore.changeLog.listen(() => {
      wakes++
    })
    await until('the wakes', () => wakes >= 1)
    await datastore.entries.createEntries([draft()], ACTOR)
    await until('the wakes', () => wakes >= 2)
    await writers[0]!.query(
      `select pg_terminate_backend(pid) from pg_stat_activity
       where application_name = 'signet notifications' and datname = current_database()`,
    )
    await until('the wakes', () => wakes >= 3)
    await datastore.entries.updateEntries([{ id: 'none' }], ACTOR)
    await datastore.entries.createEntries([draft({ spiffeId: id('/again') })], ACTOR)
    await until('the wakes', () => wakes >= 4)
  })
})
