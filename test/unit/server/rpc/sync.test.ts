import { describe, expect, test } from 'vitest'
import { MESSAGE_BYTES_MAX, SYNC_PAGE_SIZE } from '../../../../src/base/limits.ts'
import { syncAuthorizedEntries } from '../../../../src/server/rpc/entry/v1/sync.ts'
import type { RegistrationEntry } from '../../../../src/spiffe/registration-entry.ts'
import { entryToProto } from '../../../../src/wire/convert/entry.ts'
import {
  SyncAuthorizedEntriesRequest,
  SyncAuthorizedEntriesResponse,
} from '../../../../src/wire/gen/spire/api/server/entry/v1/entry.ts'
import { EntryMask } from '../../../../src/wire/gen/spire/api/types/entry.ts'
import { AGENT_CALLER, contextOf, entryOf, NOW, portsWith, streamOf } from './rig.ts'

const start = SyncAuthorizedEntriesRequest.create()
const ask = (ids: string[]) => SyncAuthorizedEntriesRequest.create({ ids })

async function sync(
  entries: readonly RegistrationEntry[],
  requests: readonly SyncAuthorizedEntriesRequest[],
): Promise<SyncAuthorizedEntriesResponse[]> {
  const stream = streamOf<SyncAuthorizedEntriesRequest, SyncAuthorizedEntriesResponse>(requests)
  const ports = portsWith({ entries: { authorizedEntries: () => entries } })
  await syncAuthorizedEntries(ports, stream, contextOf(AGENT_CALLER))
  return stream.sent
}

function manyEntries(count: number, change: Partial<RegistrationEntry> = {}): RegistrationEntry[] {
  const name = (i: number) => `e${`${i}`.padStart(5, '0')}`
  return Array.from({ length: count }, (_, i) =>
    entryOf(name(i), { revisionNumber: BigInt(i), ...change }),
  )
}

describe('a small set', () => {
  test.each([0, 1, SYNC_PAGE_SIZE])('of %i goes whole in one message', async (count) => {
    const entries = manyEntries(count)
    expect(await sync(entries, [start])).toEqual([
      { entries: entries.map((entry) => entryToProto(entry)), entryRevisions: [], more: false },
    ])
  })

  test('is masked by the first request', async () => {
    const outputMask = EntryMask.create({ revisionNumber: true, hint: true })
    const request = SyncAuthorizedEntriesRequest.create({ outputMask })
    const [message] = await sync(manyEntries(2, { hint: 'h' }), [request])
    expect(message?.entries[1]).toEqual(entryToProto(manyEntries(2, { hint: 'h' })[1]!, outputMask))
    expect(message?.entries[1]?.spiffeId).toBeUndefined()
  })
})

describe('a large set', () => {
  const entries = manyEntries(2 * SYNC_PAGE_SIZE + 1)

  test('goes as revisions first', async () => {
    const sent = await sync(entries, [start])
    expect(sent.map((message) => message.entryRevisions.length)).toEqual([500, 500, 1])
    expect(sent.map((message) => message.more)).toEqual([true, true, false])
    expect(sent.every((message) => message.entries.length === 0)).toBe(true)
    expect(sent[1]?.entryRevisions[0]).toEqual({
      id: 'e00500',
      revisionNumber: 500n,
      createdAt: BigInt(NOW),
    })
  })

  test('then as the entries asked for, sorted, unknown ones left out', async () => {
    const sent = await sync(entries, [start, ask(['e00007', 'nobody', 'e00003', 'e00007'])])
    const answer = sent.at(-1)
    expect(answer?.entries.map((entry) => entry.id)).toEqual(['e00003', 'e00007'])
    expect(answer).toMatchObject({ entryRevisions: [], more: false })
  })

  test('each request is answered, an empty one as well', async () => {
    const sent = await sync(entries, [start, ask(['nobody']), ask([]), ask(['e00001'])])
    expect(sent.slice(3).map((message) => [message.entries.length, message.more])).toEqual([
      [0, false],
      [0, false],
      [1, false],
    ])
  })

  test('a request for more than a page is answered in pages', async () => {
    const ids = entries.map((entry) => entry.id).reverse()
    const sent = (await sync(entries, [start, ask(ids)])).slice(3)
    expect(sent.map((message) => [message.entries.length, message.more])).toEqual([
      [500, true],
      [500, true],
      [1, false],
    ])
    expect(sent[0]?.entries[0]?.id).toBe('e00000')
  })

  test('the mask of later requests is ignored', async () => {
    const later = SyncAuthorizedEntriesRequest.create({
      ids: ['e00001'],
      outputMask: EntryMask.create(),
    })
    const sent = await sync(entries, [start, later])
    expect(sent.at(-1)?.entries[0]?.spiffeId).toBeDefined()
  })
})

describe('large entries', () => {
  const selectors = Array.from({ length: 300 }, (_, i) => ({
    type: 'k8s',
    value: `pod-label:name-${i}:${'x'.repeat(60)}`,
  }))
  const entries = manyEntries(300, { selectors })

  test('no message exceeds what gRPC clients take', async () => {
    const ids = entries.map((entry) => entry.id)
    const sent = await sync(entries, [start, ask(ids)])
    for (const message of sent) {
      const size = SyncAuthorizedEntriesResponse.encode(message).finish().length
      expect(size).toBeLessThan(MESSAGE_BYTES_MAX)
    }
    expect(sent[0]?.entryRevisions).toHaveLength(300)
    expect(sent[0]?.more).toBe(false)
    expect(sent.slice(1).flatMap((message) => message.entries)).toHaveLength(300)
    expect(
      sent
        .slice(1)
        .map((message) => message.more)
        .indexOf(false),
    ).toBe(sent.length - 2)
  })
})

describe('a bad start', () => {
  test.each([
    [[], 'missing request'],
    [[ask(['x'])], 'specifying IDs on initial request is not supported'],
    [
      [SyncAuthorizedEntriesRequest.create({ outputMask: { hint: true } })],
      'revision number cannot be masked',
    ],
  ])('%#', async (requests, message) => {
    await expect(sync([], requests)).rejects.toMatchObject({ kind: 'invalid_argument', message })
  })
})

describe('an agent that cancels when it has what it needs', () => {
  test('ends well', async () => {
    const controller = new AbortController()
    const requests = [start]
    const stream = {
      sent: [] as SyncAuthorizedEntriesResponse[],
      receive: async () => {
        const next = requests.shift()
        if (next !== undefined) return next
        controller.abort(new Error('canceled'))
        throw controller.signal.reason
      },
      send: async (message: SyncAuthorizedEntriesResponse) => void stream.sent.push(message),
    }
    const entries = manyEntries(SYNC_PAGE_SIZE + 1)
    const ports = portsWith({ entries: { authorizedEntries: () => entries } })
    const context = contextOf(AGENT_CALLER, controller.signal)
    await syncAuthorizedEntries(ports, stream, context)
    expect(context.records).toEqual([{ error: undefined, fields: {} }])
  })

  test('a stream that breaks otherwise does not', async () => {
    const broken = new Error('broken')
    const requests = [start]
    const stream = {
      receive: async () => {
        const next = requests.shift()
        if (next === undefined) throw broken
        return next
      },
      send: async () => {},
    }
    const entries = manyEntries(SYNC_PAGE_SIZE + 1)
    const ports = portsWith({ entries: { authorizedEntries: () => entries } })
    const syncing = syncAuthorizedEntries(ports, stream, contextOf(AGENT_CALLER))
    await expect(syncing).rejects.toBe(broken)
  })
})
