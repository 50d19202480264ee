import { describe, expect, test } from 'vitest'
import { type Outcome, SignetError } from '../../../../src/base/error.ts'
import { BATCH_ITEMS_MAX, PAGE_SIZE_MAX } from '../../../../src/base/limits.ts'
import type { EntryFilter, EntryPatch, PageRequest } from '../../../../src/server/ports.ts'
import { createEntryHandlers } from '../../../../src/server/rpc/entry/v1/handlers.ts'
import { entryToProto } from '../../../../src/wire/convert/entry.ts'
import { ListEntriesRequest } from '../../../../src/wire/gen/spire/api/server/entry/v1/entry.ts'
import { Entry, EntryMask } from '../../../../src/wire/gen/spire/api/types/entry.ts'
import { ADMIN, AGENT, AGENT_CALLER, contextOf, entryOf, portsWith } from './rig.ts'

const away = new SignetError('unavailable', 'database', 'database is unavailable', {
  retryAfterSeconds: 1,
})
const id = (path: string) => ({ trustDomain: 'example.org', path })

describe('BatchCreateEntry', () => {
  test('one result per item in order, and one store call for those that are well formed', async () => {
    const calls: number[] = []
    const handlers = handlersWith({
      createEntries: async (drafts) => {
        calls.push(drafts.length)
        return drafts.map((draft) => ({
          ok: true,
          value: { ...entryOf('x'), ...draft, id: 'made' },
        }))
      },
    })
    const good = entryToProto(entryOf('web'))
    const entries = [good, { ...good, selectors: [] }, { ...good, x509SvidTtl: -1 }, good]
    const context = contextOf(ADMIN)
    const { results } = await handlers.batchCreateEntry({ entries, outputMask: undefined }, context)
    expect(results.map((result) => result.status)).toEqual([
      { code: 0, message: 'OK' },
      { code: 3, message: 'failed to convert entry: selector list is empty' },
      {
        code: 3,
        message:
          'failed to create entry: datastore-validation: invalid registration entry: X509SvidTtl is not set',
      },
      { code: 0, message: 'OK' },
    ])
    expect(results.map((result) => result.entry?.id)).toEqual([
      'made',
      undefined,
      undefined,
      'made',
    ])
    expect(calls).toEqual([2])
    expect(context.records.map(({ error }) => error?.code)).toEqual([
      undefined,
      'bad_entry',
      'bad_entry',
      undefined,
    ])
    expect(context.records[0]?.fields).toMatchObject({
      spiffe_id: 'spiffe://example.org/web',
      parent_id: AGENT.id.toString(),
      selectors: 'unix:uid:1',
    })
  })

  test('a similar entry comes back with AlreadyExists, masked', async () => {
    const similar = new SignetError('already_exists', 'similar_entry', 'x')
    const handlers = handlersWith({
      createEntries: async () => [{ ok: false, error: similar, value: entryOf('stored') }],
    })
    const context = contextOf(ADMIN)
    const outputMask = EntryMask.create({ hint: true })
    const { results } = await handlers.batchCreateEntry(
      { entries: [entryToProto(entryOf('web'))], outputMask },
      context,
    )
    expect(results).toEqual([
      {
        status: { code: 6, message: 'similar entry already exists' },
        entry: Entry.create({ id: 'stored' }),
      },
    ])
    expect(context.records[0]?.error?.kind).toBe('already_exists')
    expect(context.log.lines).toEqual([])
  })

  test.each([
    ['a taken id', 'already_exists', 6, 'failed to create entry: entry id is taken'],
    ['a missing bundle', 'internal', 13, 'failed to create entry: unable to find federated bundle'],
  ] as const)('%s has no entry', async (_name, kind, code, message) => {
    const error = new SignetError(kind, 'code', message.split(': ')[1]!)
    const handlers = handlersWith({ createEntries: async () => [{ ok: false, error }] })
    const { results } = await handlers.batchCreateEntry(
      { entries: [entryToProto(entryOf('web'))], outputMask: undefined },
      contextOf(ADMIN),
    )
    expect(results).toEqual([{ status: { code, message }, entry: undefined }])
  })

  test('a store that is away fails the items, not the call', async () => {
    const handlers = handlersWith({ createEntries: () => Promise.reject(away) })
    const good = entryToProto(entryOf('web'))
    const entries = [good, { ...good, spiffeId: undefined }]
    const { results } = await handlers.batchCreateEntry(
      { entries, outputMask: undefined },
      contextOf(ADMIN),
    )
    expect(results.map((result) => result.status)).toEqual([
      { code: 14, message: 'failed to create entry: database is unavailable' },
      {
        code: 3,
        message: 'failed to convert entry: invalid spiffe ID: request must specify SPIFFE ID',
      },
    ])
  })

  test('a foreign error hides its text behind the request id', async () => {
    const handlers = handlersWith({ createEntries: () => Promise.reject(new Error('secret')) })
    const context = contextOf(ADMIN)
    const { results } = await handlers.batchCreateEntry(
      { entries: [entryToProto(entryOf('web'))], outputMask: undefined },
      context,
    )
    expect(results[0]?.status).toEqual({
      code: 13,
      message: 'failed to create entry: internal error (request id request-1)',
    })
    expect(context.log.lines[0]).toMatchObject({ level: 'error' })
  })

  test('nothing in, nothing out; too much is refused as a whole', async () => {
    const handlers = handlersWith({})
    const empty = { entries: [], outputMask: undefined }
    expect(await handlers.batchCreateEntry(empty, contextOf(ADMIN))).toEqual({ results: [] })
    const entries = new Array(BATCH_ITEMS_MAX + 1).fill(Entry.create())
    await expect(
      handlers.batchCreateEntry({ entries, outputMask: undefined }, contextOf(ADMIN)),
    ).rejects.toMatchObject({ kind: 'resource_exhausted', code: 'batch_too_large' })
  })
})

describe('BatchUpdateEntry', () => {
  test('takes the masked fields alone', async () => {
    const patches: EntryPatch[] = []
    const handlers = handlersWith({
      updateEntries: async (given) => {
        patches.push(...given)
        return given.map(() => ({ ok: true, value: entryOf('web', { revisionNumber: 3n }) }))
      },
    })
    const entry = Entry.create({ id: 'web', hint: 'new', admin: true })
    const request = {
      entries: [entry],
      inputMask: EntryMask.create({ hint: true }),
      outputMask: undefined,
    }
    const { results } = await handlers.batchUpdateEntry(request, contextOf(ADMIN))
    expect(patches).toEqual([{ id: 'web', hint: 'new' }])
    expect(results[0]?.entry?.revisionNumber).toBe(3n)
  })

  test.each([
    ['not_found', 5, 'failed to update entry'],
    ['internal', 13, 'failed to update entry: why'],
    ['invalid_argument', 3, 'failed to update entry: why'],
  ] as const)('%s', async (kind, code, message) => {
    const error = new SignetError(kind, 'code', 'why')
    const handlers = handlersWith({ updateEntries: async () => [{ ok: false, error }] })
    const request = {
      entries: [entryToProto(entryOf('web'))],
      inputMask: undefined,
      outputMask: undefined,
    }
    const { results } = await handlers.batchUpdateEntry(request, contextOf(ADMIN))
    expect(results).toEqual([{ status: { code, message }, entry: undefined }])
  })
})

describe('BatchDeleteEntry', () => {
  test('echoes the ids', async () => {
    const outcomes: Record<string, Outcome<string>> = {
      there: { ok: true, value: 'there' },
      gone: { ok: false, error: new SignetError('not_found', 'x', 'hidden') },
      stuck: { ok: false, error: new SignetError('internal', 'x', 'why') },
    }
    const handlers = handlersWith({ deleteEntries: async (ids) => ids.map((i) => outcomes[i]!) })
    const ids = ['there', '', 'gone', 'stuck']
    const context = contextOf(ADMIN)
    expect((await handlers.batchDeleteEntry({ ids }, context)).results).toEqual([
      { status: { code: 0, message: 'OK' }, id: 'there' },
      { status: { code: 3, message: 'missing entry ID' }, id: '' },
      { status: { code: 5, message: 'entry not found' }, id: 'gone' },
      { status: { code: 13, message: 'failed to delete entry: why' }, id: 'stuck' },
    ])
    expect(context.records.map(({ fields }) => fields.entry_id)).toEqual(ids)
  })
})

describe('reading', () => {
  test('GetEntry', async () => {
    const handlers = handlersWith({
      getEntry: async (entryId) => (entryId === 'web' ? entryOf('web') : undefined),
    })
    const get = (entryId: string) =>
      handlers.getEntry({ id: entryId, outputMask: undefined }, contextOf(ADMIN))
    expect(await get('web')).toEqual(entryToProto(entryOf('web')))
    await expect(get('')).rejects.toMatchObject({ kind: 'invalid_argument', message: 'missing ID' })
    await expect(get('x')).rejects.toMatchObject({ kind: 'not_found', message: 'entry not found' })
  })

  test('a failing store keeps its kind and gets our words', async () => {
    const handlers = handlersWith({
      getEntry: () => Promise.reject(away),
      listEntries: () => Promise.reject(away),
      countEntries: () => Promise.reject(away),
    })
    const message = (what: string) => ({
      kind: 'unavailable',
      message: `failed to ${what}: database is unavailable`,
      retryAfterSeconds: 1,
    })
    const context = contextOf(ADMIN)
    const get = handlers.getEntry({ id: 'x', outputMask: undefined }, context)
    await expect(get).rejects.toMatchObject(message('fetch entry'))
    const list = handlers.listEntries(ListEntriesRequest.create(), context)
    await expect(list).rejects.toMatchObject(message('list entries'))
    const count = handlers.countEntries({ filter: undefined }, context)
    await expect(count).rejects.toMatchObject(message('count entries'))
  })

  test('ListEntries passes filter and page on, and masks what comes back', async () => {
    const asked: [EntryFilter, PageRequest][] = []
    const handlers = handlersWith({
      listEntries: async (filter, page) => {
        asked.push([filter, page])
        return { rows: [entryOf('web')], nextToken: '17' }
      },
    })
    const request = ListEntriesRequest.create({
      filter: {
        bySpiffeId: id('/web'),
        byParentId: id('/spire/server'),
        bySelectors: { selectors: [{ type: 'a', value: 'b:c' }], match: 2 },
        byFederatesWith: { trustDomains: ['spiffe://other.org'], match: 3 },
        byHint: 'h',
        byDownstream: true,
      },
      outputMask: { hint: true },
      pageSize: 5,
      pageToken: '12',
    })
    const response = await handlers.listEntries(request, contextOf(ADMIN))
    expect(response).toEqual({ entries: [Entry.create({ id: 'web' })], nextPageToken: '17' })
    const [filter, page] = asked[0]!
    expect(page).toEqual({ size: 5, token: '12' })
    expect(`${filter.spiffeId} ${filter.parentId}`).toBe(
      'spiffe://example.org/web spiffe://example.org/spire/server',
    )
    expect(filter).toMatchObject({
      selectors: { keys: ['a:b:c'], match: 'superset' },
      federatesWith: { keys: ['other.org'], match: 'any' },
      hint: 'h',
      downstream: true,
    })
  })

  test('by_downstream false filters nothing: the CLI sends it without its flag', async () => {
    const asked: EntryFilter[] = []
    const handlers = handlersWith({
      listEntries: async (filter) => {
        asked.push(filter)
        return { rows: [], nextToken: '' }
      },
    })
    const request = ListEntriesRequest.create({ filter: { byDownstream: false } })
    await handlers.listEntries(request, contextOf(ADMIN))
    expect(asked).toEqual([{}])
  })

  test.each([
    [-1, 0],
    [0, 0],
    [1, 1],
    [PAGE_SIZE_MAX, PAGE_SIZE_MAX],
    [PAGE_SIZE_MAX + 1, PAGE_SIZE_MAX],
  ])('a page of %i is asked as %i', async (pageSize, size) => {
    const pages: PageRequest[] = []
    const handlers = handlersWith({
      listEntries: async (_filter, page) => {
        pages.push(page)
        return { rows: [], nextToken: '' }
      },
    })
    const request = ListEntriesRequest.create({ pageSize, pageToken: '7' })
    await handlers.listEntries(request, contextOf(ADMIN))
    expect(pages).toEqual([{ size, token: size === 0 ? '' : '7' }])
  })

  test('an empty hint filters nothing', async () => {
    const filters: EntryFilter[] = []
    const handlers = handlersWith({
      countEntries: async (filter) => {
        filters.push(filter)
        return 3
      },
    })
    const filter = ListEntriesRequest.create({ filter: { byHint: '' } }).filter
    expect(await handlers.countEntries({ filter }, contextOf(ADMIN))).toEqual({ count: 3 })
    expect(filters).toEqual([{}])
  })

  test.each([
    [{ byParentId: id('') }, /^malformed parent ID filter: .*path is empty$/],
    [{ bySpiffeId: id('/spire/server') }, /^malformed SPIFFE ID filter: .*reserved namespace$/],
    [
      { bySelectors: { selectors: [], match: 0 as const } },
      'malformed selectors filter: empty selector set',
    ],
    [
      { bySelectors: { selectors: [{ type: '', value: 'x' }], match: 0 as const } },
      'malformed selectors filter: missing selector type',
    ],
    [
      { byFederatesWith: { trustDomains: [], match: 0 as const } },
      'malformed federates with filter: empty trust domain set',
    ],
    [
      { byFederatesWith: { trustDomains: ['A'], match: 0 as const } },
      /^malformed federates with filter: trust domain characters/,
    ],
  ])('bad filter %#', async (filter, message) => {
    const handlers = handlersWith({})
    const request = ListEntriesRequest.create({ filter })
    const context = contextOf(ADMIN)
    for (const call of [
      () => handlers.listEntries(request, context),
      () => handlers.countEntries({ filter: request.filter }, context),
    ]) {
      await expect(call()).rejects.toThrow(message)
      await expect(call()).rejects.toMatchObject({ kind: 'invalid_argument' })
    }
  })

  test.each([
    [{ bySelectors: { selectors: [{ type: 'a', value: 'b' }], match: 4 as 0 } }, 'selectors'],
    [{ byFederatesWith: { trustDomains: ['a.org'], match: 4 as 0 } }, 'federates with'],
  ])('an unknown match behaviour is internal %#', async (filter, of) => {
    const handlers = handlersWith({})
    const request = ListEntriesRequest.create({ filter })
    const context = contextOf(ADMIN)
    await expect(handlers.listEntries(request, context)).rejects.toMatchObject({
      kind: 'internal',
      message: `failed to list entries: datastore-sql: unhandled ${of} match behavior 4`,
    })
    await expect(handlers.countEntries({ filter: request.filter }, context)).rejects.toMatchObject({
      kind: 'internal',
      message: `failed to count entries: datastore-sql: unhandled ${of} match behavior 4`,
    })
  })

  test('GetAuthorizedEntries is what the cache says, masked', async () => {
    const authorizedEntries = (agentId: unknown) => (agentId === AGENT.id ? [entryOf('a')] : [])
    const handlers = createEntryHandlers(portsWith({ entries: { authorizedEntries } }))
    const { entries } = await handlers.getAuthorizedEntries(
      { outputMask: EntryMask.create() },
      contextOf(AGENT_CALLER),
    )
    expect(entries).toEqual([Entry.create({ id: 'a' })])
  })
})

type Store = Parameters<typeof createEntryHandlers>[0]['entryStore']

function handlersWith(entryStore: Partial<Store>) {
  return createEntryHandlers(portsWith({ entryStore }))
}
