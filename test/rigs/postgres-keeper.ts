/**
 * Keeps one PostgreSQL for all workers of one vitest run: started by the first test that wants a
 * database, ended when the run's main process is gone (however it ended).
 *
 * Arguments: the directory to work in, the pid to outlive by no more than a second.
 */
import { renameSync, rmSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { systemClock } from '../../src/base/clock.ts'
import { createSystemRandom } from '../../src/base/random.ts'
import { startEmbeddedPostgres } from '../../src/server/datastore/embedded.ts'
import { silentLog } from './silent-log.ts'

const POLL_MS = 250

const [dir, parentText] = process.argv.slice(2)
if (dir === undefined || parentText === undefined) throw new Error('usage: keeper <dir> <pid>')
const parent = Number(parentText)

const server = await startEmbeddedPostgres({
  dataDir: dir,
  log: silentLog,
  clock: systemClock,
  random: createSystemRandom(),
  tuning: { fsync: false, connectionsMax: 200 },
})
const { password, user, port } = server.poolConfig
const file = path.join(dir, 'server.json')
const text = JSON.stringify({ host: server.socketDir, port, user, password })
writeFileSync(`${file}.new`, text, { mode: 0o600 })
renameSync(`${file}.new`, file)

while (isAlive(parent)) await systemClock.sleep(POLL_MS)
await server.stop()
rmSync(dir, { recursive: true, force: true })

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}
