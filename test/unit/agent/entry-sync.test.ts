import { describe, expect, test } from 'vitest'
import type { AuthorizedEntry } from '../../../src/agent/entry.ts'
import { entryFromProto } from '../../../src/agent/sync/convert.ts'
import { syncEntries } from '../../../src/agent/sync/entry-sync.ts'
import type {
  SyncAuthorizedEntriesRequest,
  SyncAuthorizedEntriesResponse,
} from '../../../src/wire/gen/spire/api/server/entry/v1/entry.ts'
import { Entry as EntryProto } from '../../../src/wire/gen/spire/api/types/entry.ts'
import { createMemoryLog } from '../../fakes/memory-log.ts'
import { createScriptedCall } from '../../fakes/scripted-call.ts'

type Response = SyncAuthorizedEntriesResponse

function proto(id: string, fields: Partial<EntryProto> = {}): EntryProto {
  return {
    ...EntryProto.decode(new Uint8Array()),
    id,
    spiffeId: { trustDomain: 'example.org', path: `/w/${id}` },
    selectors: [{ type: 'unix', value: 'uid:1' }],
    createdAt: 100n,
    ...fields,
  }
}

const page = (fields: Partial<Response>): Response => ({
  entries: [],
  entryRevisions: [],
  more: false,
  ...fields,
})

function knownOf(...protos: EntryProto[]): Map<string, AuthorizedEntry> {
  return new Map(protos.map((one) => [one.id, entryFromProto(one)]))
}

const revisionOf = (one: EntryProto) => ({
  id: one.id,
  revisionNumber: one.revisionNumber,
  createdAt: one.createdAt,
})

/** A server with these entries, paging as SPIRE's does with this page size. */
function serve(entries: readonly EntryProto[], pageSize: number) {
  let first = true
  return createScriptedCall<SyncAuthorizedEntriesRequest, Response>((request, call) => {
    if (first) {
      first = false
      if (entries.length <= pageSize) return call.reply(page({ entries: [...entries] }))
      for (let i = 0; i < entries.length; i += pageSize) {
        const entryRevisions = entries.slice(i, i + pageSize).map(revisionOf)
        call.reply(page({ entryRevisions, more: i + pageSize < entries.length }))
      }
      return
    }
    const found = entries.filter((one) => request.ids.includes(one.id))
    call.reply(page({ entries: found }))
  })
}

const N = 7
const entries = Array.from({ length: N }, (_, i) => proto(`e${i}`))

describe('SyncAuthorizedEntries', () => {
  test.each([
    ['whole, at the page size', N],
    ['by revisions, one above it', N - 1],
    ['by revisions of many pages', 2],
  ])('takes a set %s', async (_how, pageSize) => {
    const call = serve(entries, pageSize)
    const delta = await syncEntries(call, new Map(), createMemoryLog())
    expect(delta.upserts.map(({ id }) => id)).toEqual(entries.map(({ id }) => id))
    expect(delta.removals).toEqual([])
    expect(call.cancelled).toBe(true)
    for (const request of call.sent) expect(request.ids.length).toBeLessThanOrEqual(pageSize)
  })

  test('sends the mask once and asks for what is new or differs alone', async () => {
    const call = serve(entries, 3)
    const known = knownOf(
      ...entries.slice(0, 4),
      proto('e4', { revisionNumber: 5n }),
      proto('e5', { createdAt: 99n }),
      proto('gone'),
    )
    const delta = await syncEntries(call, known, createMemoryLog())
    expect(delta.upserts.map(({ id }) => id)).toEqual(['e4', 'e5', 'e6'])
    expect(delta.removals).toEqual(['gone'])
    expect(call.sent[0]!.outputMask?.revisionNumber).toBe(true)
    expect(call.sent[1]!.outputMask).toBeUndefined()
  })

  test('of a small set keeps only what differs in anything', async () => {
    const call = serve([proto('e0'), proto('e1', { hint: 'x' })], 500)
    const delta = await syncEntries(call, knownOf(proto('e0'), proto('e1')), createMemoryLog())
    expect(delta.upserts.map(({ id }) => id)).toEqual(['e1'])
  })

  test('an empty set removes everything', async () => {
    const delta = await syncEntries(serve([], 500), knownOf(proto('e0')), createMemoryLog())
    expect(delta).toEqual({ upserts: [], removals: ['e0'] })
  })

  test('a server that sends no creation time is believed by revision alone', async () => {
    const old = entries.map((one) => ({ ...one, createdAt: 0n }))
    const delta = await syncEntries(serve(old, 3), knownOf(...entries), createMemoryLog())
    expect(delta).toEqual({ upserts: [], removals: [] })
  })

  test.each([
    ['an empty ID', proto('')],
    ['a bad SPIFFE ID', proto('bad', { spiffeId: { trustDomain: 'example.org', path: '/../x' } })],
    ['no SPIFFE ID', proto('bad', { spiffeId: undefined })],
    ['no selectors', proto('bad', { selectors: [] })],
    ['a bad selector', proto('bad', { selectors: [{ type: '', value: 'x' }] })],
    ['a bad trust domain', proto('bad', { federatesWith: ['UPPER'] })],
  ])('skips an entry with %s and keeps its neighbours', async (_what, bad) => {
    const log = createMemoryLog()
    const delta = await syncEntries(serve([proto('e0'), bad], 500), new Map(), log)
    expect(delta.upserts.map(({ id }) => id)).toEqual(['e0'])
    expect(log.lines.map(({ message }) => message)).toEqual([
      'Received malformed entry from SPIRE server; are the server and agent versions compatible?',
    ])
  })

  test('skips malformed revisions', async () => {
    const call = createScriptedCall<SyncAuthorizedEntriesRequest, Response>()
    call.reply(
      page({
        entryRevisions: [
          { id: '', revisionNumber: 0n, createdAt: 0n },
          { id: 'x', revisionNumber: -1n, createdAt: 0n },
        ],
      }),
    )
    const log = createMemoryLog()
    expect((await syncEntries(call, new Map(), log)).upserts).toEqual([])
    expect(log.lines).toHaveLength(2)
  })

  test.each<[string, Response[]]>([
    ['nothing at all', []],
    [
      'entries among revisions',
      [
        page({ entryRevisions: [revisionOf(entries[0]!)], more: true }),
        page({ entries: [entries[1]!] }),
      ],
    ],
    [
      'revisions among entries',
      [
        page({ entryRevisions: [revisionOf(entries[0]!)] }),
        page({ entryRevisions: [revisionOf(entries[1]!)] }),
      ],
    ],
    ['half an answer', [page({ entryRevisions: [revisionOf(entries[0]!)], more: true })]],
  ])('fails on %s', async (_what, responses) => {
    const call = createScriptedCall<SyncAuthorizedEntriesRequest, Response>()
    call.reply(...responses)
    call.finish()
    await expect(syncEntries(call, new Map(), createMemoryLog())).rejects.toMatchObject({
      code: 'sync_protocol_broken',
    })
    expect(call.cancelled).toBe(true)
  })
})
