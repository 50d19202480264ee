import { expect, test } from 'vitest'
import { MESSAGE_BYTES_MAX, SYNC_MESSAGE_BYTES } from '../../../src/base/limits.ts'
import { deltaMessages, snapshotMessages } from '../../../src/server/sync/pages.ts'
import { SyncResponse } from '../../../src/wire/gen/signet/sync/v1/sync.ts'
import { makeEntry } from '../../fakes/make-entry.ts'
import { makeBundle } from '../../rigs/sync-rig.ts'

const sizeOf = (message: SyncResponse) => SyncResponse.encode(message).finish().length
const nothing = { upserted: [], removed: [], bundles: [], domainsRemoved: [] }

/** As large as an entry gets by its limits on selectors. */
const selectors = Array.from({ length: 1_000 }, (_, n) => `k8s:pod-label:${n}:${'x'.repeat(60)}`)

test('heavy entries and bundles make more messages, not larger ones', () => {
  const entries = Array.from({ length: 100 }, (_, n) => makeEntry({ id: `e${n}`, selectors }))
  const bundles = Array.from({ length: 10 }, (_, n) => makeBundle(`td${n}.test`, 1n, 300_000))
  const messages = [...snapshotMessages(entries, bundles, 'c')]
  for (const message of messages) expect(sizeOf(message)).toBeLessThan(MESSAGE_BYTES_MAX / 2)
  expect(messages.at(-1)).toEqual({
    cursor: 'c',
    snapshotEnd: { entryCount: 100, bundleCount: 10 },
  })
  const pages = messages.flatMap((message) => message.snapshotPage ?? [])
  expect(pages.flatMap((page) => page.entries)).toHaveLength(100)
  expect(pages.flatMap((page) => page.bundles)).toHaveLength(10)
  expect(pages.length).toBeGreaterThan(10)
})

test('what is larger than a message travels alone', () => {
  const bundles = [makeBundle('a.test'), makeBundle('b.test', 1n, SYNC_MESSAGE_BYTES + 1)]
  const messages = [...deltaMessages({ ...nothing, bundles: [...bundles, ...bundles] }, 'c')]
  expect(messages.map((m) => m.delta?.bundlesUpserted.length)).toEqual([1, 1, 1, 1])
  expect(messages.map((m) => m.cursor)).toEqual(['', '', '', 'c'])
})

test('a small change is one message, with removals beside additions', () => {
  const parts = {
    upserted: [makeEntry({ id: 'one' })],
    removed: ['two'],
    bundles: [makeBundle('a.test')],
    domainsRemoved: ['b.test'],
  }
  expect([...deltaMessages(parts, 'c')]).toMatchObject([
    {
      cursor: 'c',
      delta: {
        entriesUpserted: [{ id: 'one' }],
        entryIdsRemoved: ['two'],
        bundlesUpserted: [{ trustDomain: 'a.test' }],
        trustDomainsRemoved: ['b.test'],
      },
    },
  ])
})

test('removals come before additions, over all messages', () => {
  const removed = Array.from({ length: 40_000 }, (_, n) => `${n}`.padStart(36, '0'))
  const parts = { ...nothing, removed, upserted: [makeEntry({ id: 'one' })] }
  const messages = [...deltaMessages(parts, 'c')]
  expect(messages.flatMap((m) => m.delta?.entryIdsRemoved ?? [])).toEqual(removed)
  expect(messages.at(-1)?.delta?.entriesUpserted).toHaveLength(1)
})

test('nothing to say is one message with the cursor', () => {
  expect([...deltaMessages(nothing, 'c')]).toMatchObject([{ cursor: 'c', delta: {} }])
})
