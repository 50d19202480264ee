/** A PostgreSQL of one test's own, which it may stop and start again under its server. */
import { mkdirSync } from 'node:fs'
import { systemClock } from '../../src/base/clock.ts'
import { createSystemRandom } from '../../src/base/random.ts'
import { startEmbeddedPostgres } from '../../src/server/datastore/embedded.ts'
import { silentLog } from './silent-log.ts'

export interface OwnPostgres {
  /** libpq's form, for a configuration file. */
  readonly connectionString: string
  stop(): Promise<void>
  start(): Promise<void>
}

export async function startOwnPostgres(dataDir: string): Promise<OwnPostgres> {
  mkdirSync(dataDir, { recursive: true })
  const ports = { dataDir, log: silentLog, clock: systemClock, random: createSystemRandom() }
  let running = await startEmbeddedPostgres(ports)
  const { user, password, database, port } = running.poolConfig
  return {
    connectionString:
      `host=${running.socketDir} port=${port} user=${user} password=${password} ` +
      `dbname=${database}`,
    stop: () => running.stop(),
    start: async () => {
      running = await startEmbeddedPostgres(ports)
    },
  }
}
