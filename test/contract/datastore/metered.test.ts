/** Calls of the stores are counted, each under its key and with its status. */
import { expect, test } from 'vitest'
import { SignetError } from '../../../src/base/error.ts'
import { createMetrics } from '../../../src/base/metrics.ts'
import { metered, meterStores } from '../../../src/server/metered-stores.ts'
import {
  ACTOR,
  createTestClock,
  draft,
  id,
  NOW,
  openTestDatastore,
  TD,
} from '../../rigs/datastore.ts'
import { useDatabase } from '../../rigs/postgres.ts'

const database = useDatabase()

function prometheus() {
  const metrics = createMetrics({
    serviceName: 'spire_server',
    trustDomain: TD,
    metricPrefix: '',
    enableTrustDomainLabel: false,
    enableHostnameLabel: false,
    allowedPrefixes: [],
    blockedPrefixes: [],
    allowedLabels: [],
    blockedLabels: [],
  })
  const count = async (key: string, status = 'OK') => {
    const name = `spire_server_${key.replaceAll('.', '_')}{status="${status}"} `
    const line = (await metrics.text()).split('\n').find((text) => text.startsWith(name))
    return line === undefined ? 0 : Number(line.slice(name.length))
  }
  return { metrics, count }
}

test('a call counts once, whatever its batch', async () => {
  const { metrics, count } = prometheus()
  await using datastore = await openTestDatastore({ poolConfig: { ...database.poolConfig } })
  const store = meterStores(datastore, { metrics, clock: createTestClock() })
  const drafts = [draft({ id: 'a' }), draft({ id: 'b', spiffeId: id('/b') })]
  await store.entries.createEntries(drafts, ACTOR)
  await store.entries.pruneEntries(NOW, ACTOR)
  await store.agents.getAgent(id('/spire/agent/x509pop/none'))
  await store.joinTokens.redeemJoinToken('none')
  await expect(store.bundles.updateBundle({ trustDomain: 'x.org' }, ACTOR)).rejects.toMatchObject({
    kind: 'not_found',
  })
  expect(await count('datastore.registration_entry.create')).toBe(1)
  expect(await count('datastore.registration_entry.prune')).toBe(1)
  expect(await count('registration_entry.manager.prune')).toBe(1)
  expect(await count('datastore.node.fetch')).toBe(1)
  expect(await count('datastore.join_token.delete')).toBe(1)
  expect(await count('datastore.bundle.update', 'NotFound')).toBe(1)
  expect(await count('datastore.bundle.update')).toBe(0)
})

test('what a store throws passes through, also at once, and what is not counted stays', async () => {
  const { metrics, count } = prometheus()
  const thrown = new SignetError('unavailable', 'x', 'x', { retryAfterSeconds: 1 })
  const store = {
    later: async (n: number) => n + 1,
    now: (): Promise<void> => {
      throw thrown
    },
    other: () => 'same',
  }
  const port: Pick<typeof store, 'later' | 'now'> = store
  const keys: { readonly [Name in keyof typeof port]: readonly string[] } = {
    later: ['one', 'two'],
    now: ['three'],
  }
  const counted = metered(
    { metrics, clock: createTestClock() },
    keys,
    store as typeof store & typeof port,
  )
  expect(await counted.later(1)).toBe(2)
  await expect(counted.now()).rejects.toBe(thrown)
  expect(counted.other()).toBe('same')
  expect([await count('one'), await count('two')]).toEqual([1, 1])
  expect(await count('three', 'Unavailable')).toBe(1)
})
