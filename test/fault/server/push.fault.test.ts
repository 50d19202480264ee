/**
 * The push stream of a running server against agents that lie about where they stand, and against a
 * database in which somebody's transaction stays open (F07, F22).
 */
import { execFileSync } from 'node:child_process'
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { RawIdentity } from '../../interop/raw-client.ts'
import { LiveServer } from '../../rigs/live-server.ts'
import { PushClient } from '../../rigs/push-client.ts'

/** A change is there within a second; the rest is for a busy machine. */
const ARRIVAL_MS_MAX = 1_000

let server: LiveServer
let alice: RawIdentity
let bob: RawIdentity

beforeAll(async () => {
  server = await LiveServer.start()
  alice = await server.attest('spiffe://example.org/alice')
  bob = await server.attest('spiffe://example.org/bob')
  await createEntry('/alice', '/of-alice')
  await createEntry('/bob', '/of-bob')
})
afterAll(() => server?.[Symbol.asyncDispose]())

function createEntry(parent: string, path: string): Promise<string> {
  return server.deployment.createEntry([
    ...['-parentID', `spiffe://example.org${parent}`, '-spiffeID', `spiffe://example.org${path}`],
    ...['-selector', `test:${path}`],
  ])
}

async function cursorOf(identity: RawIdentity): Promise<string> {
  using push = new PushClient(server.tls(identity))
  return await push.untilCursor()
}

test("an own cursor continues, somebody else's starts anew and shows nothing of theirs", async () => {
  const cursor = await cursorOf(alice)
  using mine = new PushClient(server.tls(alice), cursor)
  using theirs = new PushClient(server.tls(bob), cursor)
  await theirs.untilPath('/of-bob')
  expect(theirs.hasSnapshot).toBe(true)
  expect(theirs.paths).toEqual(['/bob', '/of-bob'])
  await createEntry('/alice', '/of-alice-2')
  await mine.untilPath('/of-alice-2')
  expect(mine.hasSnapshot).toBe(false)
  expect(mine.paths).toEqual(['/of-alice-2'])
  expect(theirs.paths).toEqual(['/bob', '/of-bob'])
})

test.each([
  ['noise', 'x'],
  ['of megabytes', 'A'.repeat(3_000_000)],
  ['of the right length', 'A'.repeat(54)],
  ['with a NUL', '\0'],
])('a cursor: %s; starts anew', async (_, cursor) => {
  using push = new PushClient(server.tls(bob), cursor)
  await push.untilPath('/of-bob')
  expect(push.hasSnapshot).toBe(true)
  expect(push.paths).toEqual(['/bob', '/of-bob'])
})

test('a transaction that somebody leaves open holds up nobody', async () => {
  const other = await server.database()
  await other.query('begin')
  await other.query('select pg_current_xact_id()')
  // A change of its own, seen when it commits, though younger ones were read before.
  await other.query(`insert into signet.change_log (kind, ids)
    select 'entry', array_agg(id) from signet.entry where spiffe_id like '%/of-bob'`)
  await other.query(`update signet.entry set hint = 'late', revision_number = revision_number + 1
    where spiffe_id like '%/of-bob'`)
  using push = new PushClient(server.tls(bob))
  await push.untilCursor()
  for (let n = 0; n < 5; n++) {
    await createEntry('/bob', `/of-bob-${n}`)
    expect(await push.untilPath(`/of-bob-${n}`)).toBeLessThan(ARRIVAL_MS_MAX)
  }
  const hints = () =>
    push.messages.flatMap(({ delta }) => delta?.entriesUpserted.map(({ hint }) => hint) ?? [])
  expect(hints()).not.toContain('late')
  await other.query('commit')
  const from = performance.now()
  await expect.poll(hints, { timeout: 5_000, interval: 20 }).toContain('late')
  expect(performance.now() - from).toBeLessThan(ARRIVAL_MS_MAX)
  await other.end()
})

test('a cursor from before a restart, and from before a restore, starts anew', async () => {
  const before = await cursorOf(alice)
  await server.daemon.stop()
  const data = join(server.postgresDir, 'data')
  const backup = join(server.deployment.dir, 'backup')
  copy(data, backup)
  server.daemon = await server.deployment.startServer()
  await createEntry('/alice', '/after-backup')
  const after = new PushClient(server.tls(alice), before)
  await after.untilPath('/after-backup')
  expect(after.hasSnapshot).toBe(true)
  const cursor = await after.untilCursor()
  after[Symbol.dispose]()

  await server.daemon.stop()
  rmSync(data, { recursive: true })
  copy(backup, data)
  server.daemon = await server.deployment.startServer()
  using push = new PushClient(server.tls(alice), cursor)
  await push.untilPath('/of-alice')
  await push.untilCursor()
  expect(push.hasSnapshot).toBe(true)
  // What the restore took away is gone, and what is there is all of it.
  expect(push.paths).toEqual(['/alice', '/of-alice', '/of-alice-2'])
}, 120_000)

/** With owners and modes. */
function copy(from: string, to: string): void {
  execFileSync('cp', ['-a', from, to])
}
