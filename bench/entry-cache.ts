/**
 * What 100,000 entries cost in the entry cache: time to take them in, memory, and the price of its
 * questions. Run: `node bench/entry-cache.ts [entries] [agents]`. Five selectors an entry; half of
 * them are shared by many entries (namespace, image), half are nearly unique (pod labels).
 */
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { systemClock } from '../src/base/clock.ts'
import { EntryIndex } from '../src/server/entry-cache/entry-index.ts'
import { PLAIN_ENTRY, type RegistrationEntry } from '../src/spiffe/registration-entry.ts'
import { SpiffeId } from '../src/spiffe/spiffe-id.ts'
import { TrustDomain } from '../src/spiffe/trust-domain.ts'

const entryCount = Number(process.argv[2] ?? 100_000)
const agentCount = Number(process.argv[3] ?? 100)
const trustDomain = TrustDomain.parse('example.org')

setFlagsFromString('--expose-gc')
const collectGarbage = runInNewContext('gc') as () => void

function memoryMb(): { rss: number; heap: number } {
  collectGarbage()
  const { rss, heapUsed } = process.memoryUsage()
  return { rss: Math.round(rss / 1e6), heap: Math.round(heapUsed / 1e6) }
}

/** As a row comes from a database driver: every string and object its own. */
function row(n: number, agent: number): RegistrationEntry {
  const text = JSON.stringify({
    id: `${n.toString(16).padStart(8, '0')}-0000-4000-8000-${n.toString(16).padStart(12, '0')}`,
    spiffeId: `spiffe://example.org/ns/team-${n % 200}/sa/service-${n}`,
    parentId: `spiffe://example.org/spire/agent/join_token/node-${agent}`,
    selectors: [
      { type: 'k8s', value: `ns:team-${n % 200}` },
      { type: 'k8s', value: `sa:service-${n}` },
      { type: 'k8s', value: `pod-image:registry.test/team/image-${n % 1000}` },
      { type: 'k8s', value: `container-name:main` },
      { type: 'k8s', value: `pod-label:app:service-${n}` },
    ],
  })
  const { id, spiffeId, parentId, selectors } = JSON.parse(text)
  return {
    id,
    spiffeId: SpiffeId.parse(spiffeId),
    parentId: SpiffeId.parse(parentId),
    selectors,
    ...PLAIN_ENTRY,
    revisionNumber: BigInt(n % 3),
    createdAt: 1_800_000_000,
  }
}

function microsecondsEach(times: number, fn: (n: number) => void): string {
  for (let n = 0; n < times / 10; n++) fn(n)
  const start = systemClock.monotonicMs()
  for (let n = 0; n < times; n++) fn(n)
  return `${(((systemClock.monotonicMs() - start) / times) * 1000).toFixed(2)} µs`
}

const agentId = (n: number) =>
  SpiffeId.parse(`spiffe://example.org/spire/agent/join_token/node-${n % agentCount}`)

const before = memoryMb()
const index = new EntryIndex(trustDomain, systemClock)
let inserting = 0
for (let n = 0; n < entryCount; n++) {
  const entry = row(n, n % agentCount)
  const start = systemClock.monotonicMs()
  index.applyEntry(entry.id, entry)
  inserting += systemClock.monotonicMs() - start
}
const after = memoryMb()
console.log('counts', JSON.stringify(index.counts()))
console.log(`taking in: ${Math.round(inserting)} ms, without making the rows`)
console.log('memory before', before, 'after', after, 'MB')
console.log(`heap per entry: ${Math.round(((after.heap - before.heap) * 1e6) / entryCount)} bytes`)

const ids = [...index.ids()]
const someAgent = agentId(0)
console.log(
  'one entry, allowed:',
  microsecondsEach(100_000, (n) => index.authorizedEntry(agentId(n), ids[n % ids.length]!)),
)
console.log(
  'one entry, denied:',
  microsecondsEach(100_000, (n) => index.authorizedEntry(someAgent, ids[n % ids.length]!)),
)
console.log(
  'all entries of an agent, remembered:',
  microsecondsEach(100_000, () => index.authorizedEntries(someAgent)),
)
console.log(
  'an entry changed:',
  microsecondsEach(20_000, (n) => {
    const entry = index.entry(ids[n % ids.length]!)!
    index.applyEntry(entry.id, { ...entry, revisionNumber: entry.revisionNumber + 1n })
  }),
)
console.log(
  'all entries of an agent, changed each time:',
  microsecondsEach(100, (n) => {
    const entry = index.authorizedEntries(agentId(n))[0]!
    index.applyEntry(entry.id, { ...entry, revisionNumber: entry.revisionNumber + 1n })
    index.authorizedEntries(agentId(n))
  }),
)
