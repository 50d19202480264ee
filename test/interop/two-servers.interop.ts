/**
 * Two servers on one PostgreSQL rotate at once at short lives, with a SPIRE agent at each: one active
 * authority of each kind at any time, used by both, and no handshake of their workloads fails.
 */
import { randomBytes } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import pg from 'pg'
import { expect, test } from 'vitest'
import { parseConnectionString } from '../../src/server/datastore/connection-string.ts'
import { startOwnPostgres } from '../rigs/own-postgres.ts'
import { run } from '../rigs/process.ts'
import { until } from '../rigs/until.ts'
import { Deployment, PEERS_DIR } from './rig.ts'

/** Prepared at 24 s, active at 40 s of 48. */
const CA_TTL_SECONDS = 48
const TRAFFIC_SECONDS = 45

test('two servers that rotate at once share one authority and drop no handshake', async () => {
  await using one = await Deployment.create('signet')
  await using two = await Deployment.create('signet')
  const database = await startOwnPostgres(join(one.dir, 'pg'))
  const keyFile = join(one.dir, 'kek')
  writeFileSync(keyFile, randomBytes(32).toString('base64'), { mode: 0o600 })
  const both = [one, two]
  const servers = await Promise.all(
    both.map((deployment) =>
      deployment.startServer({
        server: `ca_ttl = "${CA_TTL_SECONDS}s" default_x509_svid_ttl = "10s" agent_ttl = "20s"`,
        storage: `DataStore "sql" {
            plugin_data { database_type = "postgres"
              connection_string = "${database.connectionString}" }
          }
          KeyManager "sealed" { plugin_data { key_files = ["${keyFile}"] } }`,
      }),
    ),
  )
  expect(await one.serverOk(['bundle', 'show'])).toBe(await two.serverOk(['bundle', 'show']))
  await one.createEntry([
    ...['-parentID', 'spiffe://example.org/node', '-spiffeID', 'spiffe://example.org/w'],
    ...['-selector', `unix:uid:${process.getuid?.()}`],
  ])
  const agents = await Promise.all(
    both.map(async (deployment) => {
      const token = await deployment.joinToken('spiffe://example.org/node')
      return deployment.startAgent('spire', { args: ['-joinToken', token] })
    }),
  )
  const traffic = Promise.all(
    both.map(async (deployment) => {
      const fetch = ['api', 'fetch', 'x509', '-timeout', '5s']
      await until('the identity', async () => (await deployment.agent('spire', fetch)).code === 0)
      const socket = `unix://${deployment.agentSocket()}`
      const args = ['mtls', '-socket', socket, '-duration', `${TRAFFIC_SECONDS}s`]
      const result = await run(join(PEERS_DIR, 'gopeer'), args, { timeoutMs: 120_000 })
      return JSON.parse(result.stdout)
    }),
  )
  let ended = false
  const stop = () => {
    ended = true
  }
  traffic.then(stop, stop)
  const looks = await watchAuthorities(database.connectionString, () => ended)
  expect(looks).toBeGreaterThan(TRAFFIC_SECONDS)

  const reports = await traffic
  for (const report of reports) {
    expect(report.failures).toEqual([])
    expect(report.handshakes).toBeGreaterThan(TRAFFIC_SECONDS * 5)
    expect(report.serials.length).toBeGreaterThan(3)
    expect(report.intermediates.length).toBeGreaterThan(1)
  }
  const [a, b] = reports.map(({ intermediates }) => [...intermediates].sort())
  expect(a).toEqual(b)
  for (const daemon of [...agents, ...servers]) {
    expect(daemon.exitCode).toBeUndefined()
    await daemon.stop()
  }
  await database.stop()
}, 150_000)

/** Looks all the time until `isOver`; how often it looked. */
async function watchAuthorities(address: string, isOver: () => boolean): Promise<number> {
  const client = new pg.Client(parseConnectionString(address))
  await client.connect()
  let looks = 0
  try {
    for (; !isOver(); looks++) {
      const { rows } = await client.query<{ slot: string; active: number; prepared: number }>(
        `select concat_ws('/', kind, cluster_id, holder) as slot,
           (count(*) filter (where state = 'active'))::integer as active,
           (count(*) filter (where state = 'prepared'))::integer as prepared
         from signet.authority group by 1 order by 1`,
      )
      expect(rows.map(({ slot, active }) => `${slot}: ${active}`)).toEqual(
        rows.map(({ slot }) => `${slot}: 1`),
      )
      expect(rows).toHaveLength(4)
      expect(Math.max(...rows.map(({ prepared }) => prepared))).toBeLessThanOrEqual(1)
      await client.query('select pg_sleep(0.2)')
    }
  } finally {
    await client.end()
  }
  return looks
}
