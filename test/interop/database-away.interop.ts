/** What SPIRE's agent notices of our server's database going away: nothing but missing renewals. */
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { startOwnPostgres } from '../rigs/own-postgres.ts'
import { until } from '../rigs/until.ts'
import { Deployment, freePort } from './rig.ts'

test('a spire agent goes on syncing while PostgreSQL is away', async () => {
  await using deployment = await Deployment.create('signet')
  const database = await startOwnPostgres(join(deployment.dir, 'pg'))
  const metricsPort = await freePort()
  const server = await deployment.startServer({
    blocks: `telemetry { Prometheus { port = ${metricsPort} } }`,
    storage: `DataStore "sql" {
        plugin_data { database_type = "postgres" connection_string = "${database.connectionString}" }
      }
      KeyManager "disk" { plugin_data { keys_path = "keys.json" } }`,
  })
  const token = await deployment.joinToken('spiffe://example.org/node')
  const agent = await deployment.startAgent('spire', {
    agent: 'experimental { sync_interval = "1s" }',
    args: ['-joinToken', token],
  })
  await deployment.createEntry([
    ...['-parentID', 'spiffe://example.org/node', '-spiffeID', 'spiffe://example.org/w'],
    ...['-selector', `unix:uid:${process.getuid?.()}`],
  ])
  const fetched = async () =>
    (await deployment.agent('spire', ['api', 'fetch', 'x509', '-timeout', '5s'])).code === 0
  await until('the identity', fetched)

  await database.stop()
  await until('the server to notice', () => server.output.includes('Unable to read changes'))
  const metrics = `http://127.0.0.1:${metricsPort}/`
  const syncsServed = async () => {
    const text = await (await fetch(metrics)).text()
    return Number(/sync_authorized_entries\{[^}]*status="OK"[^}]*\} (\d+)/.exec(text)?.[1] ?? 0)
  }
  const [before, served] = [agent.output.length, await syncsServed()]
  await until('five more syncs', async () => (await syncsServed()) >= served + 5)
  expect(agent.output.slice(before)).not.toMatch(/failed to fetch authorized entries|Unavailable/)
  expect(await fetched()).toBe(true)
  await database.start()
  await until('issuing again', async () => {
    const minted = await deployment.server([
      ...['jwt', 'mint', '-spiffeID', 'spiffe://example.org/m', '-audience', 'a'],
    ])
    return minted.code === 0
  })
  await agent.stop()
  await server.stop()
  await database.stop()
}, 180_000)
