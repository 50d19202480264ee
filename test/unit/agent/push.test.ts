import { describe, expect, test } from 'vitest'
import { createPushAssembler } from '../../../src/agent/sync/push.ts'
import { ENTRIES_PER_AGENT_MAX } from '../../../src/base/limits.ts'
import { SyncResponse } from '../../../src/wire/gen/signet/sync/v1/sync.ts'
import type { Bundle } from '../../../src/wire/gen/spire/api/types/bundle.ts'
import { Entry } from '../../../src/wire/gen/spire/api/types/entry.ts'
import { createMemoryLog } from '../../fakes/memory-log.ts'

const message = (fields: Partial<SyncResponse>): SyncResponse => ({
  ...SyncResponse.decode(new Uint8Array()),
  ...fields,
})

const entry = (id: string): Entry => ({
  ...Entry.decode(new Uint8Array()),
  id,
  spiffeId: { trustDomain: 'example.org', path: `/${id}` },
  selectors: [{ type: 'unix', value: 'uid:1' }],
})

const bundle = (trustDomain: string): Bundle => ({
  trustDomain,
  x509Authorities: [],
  jwtAuthorities: [],
  refreshHint: 0n,
  sequenceNumber: 3n,
  witAuthorities: [],
})

const begin = message({ snapshotBegin: {} })
const pageOf = (...ids: string[]) =>
  message({ snapshotPage: { entries: ids.map(entry), bundles: [bundle('example.org')] } })
const end = (entryCount: number, bundleCount: number, cursor = 'c1') =>
  message({ snapshotEnd: { entryCount, bundleCount }, cursor })
const delta = (fields: Partial<NonNullable<SyncResponse['delta']>>, cursor = '') =>
  message({
    cursor,
    delta: {
      entriesUpserted: [],
      entryIdsRemoved: [],
      bundlesUpserted: [],
      trustDomainsRemoved: [],
      ...fields,
    },
  })

function feed(...messages: SyncResponse[]) {
  const assembler = createPushAssembler(createMemoryLog())
  return messages.map((one) => assembler.accept(one))
}

describe('the push stream', () => {
  test('gives a snapshot as one change when its end fits', () => {
    const changes = feed(
      begin,
      pageOf('a', 'b'),
      message({ heartbeat: {} }),
      pageOf('c'),
      end(3, 2),
    )
    expect(changes.slice(0, 4)).toEqual([undefined, undefined, undefined, undefined])
    expect(changes[4]).toMatchObject({ snapshot: true, cursor: 'c1', removals: [] })
    expect(changes[4]!.upserts.map(({ id }) => id)).toEqual(['a', 'b', 'c'])
    expect(changes[4]!.bundles.map((one) => one.sequenceNumber)).toEqual([3n])
  })

  test('counts what was sent, malformed entries included', () => {
    const broken = message({
      snapshotPage: { entries: [{ ...entry('x'), selectors: [] }, entry('y')], bundles: [] },
    })
    expect(feed(begin, broken, end(2, 0))[2]!.upserts.map(({ id }) => id)).toEqual(['y'])
  })

  test('applies the parts of one change together, removals first within each', () => {
    const changes = feed(
      delta({ entriesUpserted: [entry('a')], entryIdsRemoved: ['b', 'a'] }),
      delta({ entryIdsRemoved: ['c'], entriesUpserted: [entry('b')] }, 'c2'),
    )
    expect(changes[0]).toBeUndefined()
    expect(changes[1]).toMatchObject({ snapshot: false, removals: ['c'], cursor: 'c2' })
    expect(changes[1]!.upserts.map(({ id }) => id)).toEqual(['a', 'b'])
  })

  test('a later part may take back what an earlier one brought', () => {
    const [, change] = feed(
      delta({ entriesUpserted: [entry('a')], bundlesUpserted: [bundle('other.org')] }),
      delta({ entryIdsRemoved: ['a'], trustDomainsRemoved: ['other.org'] }, 'c2'),
    )
    expect(change).toMatchObject({
      upserts: [],
      removals: ['a'],
      bundles: [],
      trustDomainsRemoved: ['other.org'],
    })
  })

  test('a new snapshot replaces one that was cut short', () => {
    const changes = feed(begin, pageOf('a'), begin, pageOf('b'), end(1, 1))
    expect(changes[4]!.upserts.map(({ id }) => id)).toEqual(['b'])
  })

  test.each<[string, SyncResponse[]]>([
    ['a page outside of a snapshot', [pageOf('a')]],
    ['an end without a beginning', [end(0, 0)]],
    ['a delta inside of a snapshot', [begin, delta({})]],
    ['a missing entry', [begin, pageOf('a'), end(2, 1)]],
    ['a missing bundle', [begin, pageOf('a'), end(1, 2)]],
    ['an end after it ended', [begin, end(0, 0), end(0, 0)]],
  ])('refuses %s', (_what, messages) => {
    expect(() => feed(...messages)).toThrow(
      expect.objectContaining({ code: 'push_protocol_broken' }),
    )
  })

  test('refuses more entries than an agent takes, before it reads them', () => {
    const many = (count: number) => {
      const entries = new Array<Entry>(count).fill(entry('a'))
      return message({ snapshotPage: { entries, bundles: [] } })
    }
    const half = ENTRIES_PER_AGENT_MAX / 2
    expect(() => feed(begin, pageOf('a'), many(ENTRIES_PER_AGENT_MAX))).toThrow('too many entries')
    expect(() => feed(begin, many(half + 1), many(half))).toThrow('too many entries')
  })
})
