/**
 * PostgreSQL gone for a whole minute (F01): long enough for every retry to have reached its longest
 * pause. Nothing is issued, what lives from memory is served all along, and all is well in seconds.
 */
import { join } from 'node:path'
import { type Client, status } from '@grpc/grpc-js'
import { expect, test } from 'vitest'
import { CHANGE_RETRY_MS_MAX } from '../../../src/base/limits.ts'
import { BundleService } from '../../../src/wire/gen/spire/api/server/bundle/v1/bundle.ts'
import { EntryService } from '../../../src/wire/gen/spire/api/server/entry/v1/entry.ts'
import { SVIDService } from '../../../src/wire/gen/spire/api/server/svid/v1/svid.ts'
import { fromGrpcError } from '../../../src/wire/status.ts'
import { Deployment } from '../../interop/rig.ts'
import { call, LiveServer } from '../../rigs/live-server.ts'
import { startOwnPostgres } from '../../rigs/own-postgres.ts'
import { PushClient } from '../../rigs/push-client.ts'
import { until } from '../../rigs/until.ts'

const AWAY_MS = 60_000
const HEALED_MS_MAX = 3 * CHANGE_RETRY_MS_MAX

test('a minute without PostgreSQL: served from memory, then all goes on', async () => {
  await using place = await Deployment.create('signet')
  const database = await startOwnPostgres(join(place.dir, 'pg'))
  await using server = await LiveServer.start({
    storage: `DataStore "sql" {
        plugin_data { database_type = "postgres" connection_string = "${database.connectionString}" }
      }
      KeyManager "disk" { plugin_data { keys_path = "keys.json" } }`,
  })
  const identity = await server.attest('spiffe://example.org/node')
  const agent = server.tls(identity)
  const createEntry = (name: string) =>
    server.deployment.createEntry([
      ...['-parentID', 'spiffe://example.org/node', '-selector', 'unix:uid:1'],
      ...['-spiffeID', `spiffe://example.org/${name}`],
    ])
  const entryId = await createEntry('web')
  const issue = () => call(agent, SVIDService.newJwtsvid, { entryId, audience: ['a'] })
  await until('issuing', async () => (await issue()).code === 0)
  using push = new PushClient(agent)
  await push.untilPath('/web')

  await database.stop()
  const gone = performance.now()
  let rounds = 0
  for (; performance.now() - gone < AWAY_MS; rounds++) {
    const refused = await issue()
    expect([refused.code, refused.value]).toEqual([status.UNAVAILABLE, undefined])
    expect(fromGrpcError(refused.error).retryAfterSeconds, refused.details).toBeGreaterThan(0)
    await expectServed(server.tls(identity))
    await until('the next second', () => performance.now() - gone > rounds * 1_000)
  }
  expect(rounds).toBeGreaterThan(30)
  expect(server.daemon.exitCode).toBeUndefined()

  await database.start()
  const back = performance.now()
  await until('issuing again', async () => (await issue()).code === 0, HEALED_MS_MAX)
  await createEntry('later')
  // On the stream that was there before.
  await push.untilPath('/later', HEALED_MS_MAX)
  expect(performance.now() - back).toBeLessThan(HEALED_MS_MAX)
  await server.daemon.stop()
  await database.stop()
}, 180_000)

/** On a new connection. */
async function expectServed(client: Client): Promise<void> {
  const bundle = await call(client, BundleService.getBundle, { outputMask: undefined })
  expect([bundle.code, bundle.value?.x509Authorities.length]).toEqual([0, 1])
  const mine = await call(client, EntryService.getAuthorizedEntries, { outputMask: undefined })
  expect(mine.value?.entries.map(({ spiffeId }) => spiffeId?.path)).toContain('/web')
  client.close()
}
