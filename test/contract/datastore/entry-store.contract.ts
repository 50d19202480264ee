/** What every EntryStore keeps (server/ports.ts). */
import { describe, expect, test } from 'vitest'
import type { Outcome } from '../../../src/base/error.ts'
import type { BundleStore, EntryStore, PageRequest } from '../../../src/server/ports.ts'
import type { RegistrationEntry } from '../../../src/spiffe/registration-entry.ts'
import { parseSelector } from '../../../src/spiffe/selector.ts'
import { ACTOR, draft, id, NOW } from '../../rigs/datastore.ts'

export interface EntryStoreSubject extends AsyncDisposable {
  readonly entries: EntryStore
  readonly bundles: BundleStore
}

type Wrap = (run: (subject: EntryStoreSubject) => Promise<void>) => () => Promise<void>

const ALL: PageRequest = { size: 0, token: '' }
const selectors = (...texts: string[]) => texts.map(parseSelector)

function value<T>(outcome: Outcome<T> | undefined): T {
  if (outcome?.ok !== true) throw outcome?.error ?? new Error('no outcome')
  return outcome.value
}

function code(outcome: Outcome<unknown> | undefined): string {
  return outcome === undefined ? 'none' : outcome.ok ? 'ok' : outcome.error.code
}

/** `makeSubject` gives a store without entries whose clock stands at `NOW`. */
export function entryStoreContract(makeSubject: () => Promise<EntryStoreSubject>): void {
  const withSubject: Wrap = (run) => async () => {
    await using subject = await makeSubject()
    await run(subject)
  }
  describe('creating entries', () => creating(withSubject))
  describe('similar entries', () => similar(withSubject))
  describe('updating entries', () => updating(withSubject))
  describe('deleting entries', () => deleting(withSubject))
  describe('listing entries', () => listing(withSubject))
}

function creating(withSubject: Wrap): void {
  test(
    'an entry comes back as it was given, with revision 0 and the time of creation',
    withSubject(async ({ entries, bundles }) => {
      await bundles.createBundle(emptyBundle('other.org'), ACTOR)
      const given = draft({
        id: 'given.id-1',
        selectors: selectors('z:last', 'a:first', 'k8s:pod-label:a:b'),
        x509SvidTtlSeconds: 60,
        jwtSvidTtlSeconds: 30,
        federatesWith: ['other.org'],
        admin: true,
        downstream: true,
        expiresAt: NOW + 5,
        dnsNames: ['b.example.org', 'a.example.org'],
        storeSvid: true,
        hint: 'quote " and \\ and {brace}',
        disableX509SvidPrefetch: true,
        jwtSvidIncludeJti: true,
      })
      const stored = { ...given, revisionNumber: 0n, createdAt: NOW }
      const [outcome] = await entries.createEntries([given], ACTOR)
      expect(value(outcome)).toEqual(stored)
      expect(await entries.getEntry('given.id-1')).toEqual(stored)
    }),
  )

  test(
    'an empty id becomes a UUID',
    withSubject(async ({ entries }) => {
      const [outcome] = await entries.createEntries([draft()], ACTOR)
      expect(value(outcome).id).toMatch(
        /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/,
      )
    }),
  )

  test(
    'one bad item leaves its neighbours alone, outcomes keep the order',
    withSubject(async ({ entries }) => {
      const outcomes = await entries.createEntries(
        [
          draft({ id: 'a' }),
          draft({ id: 'a', spiffeId: id('/other') }),
          draft({ id: 'b', spiffeId: id('/b'), federatesWith: ['unknown.org'] }),
          draft({ id: 'c', spiffeId: id('/c'), hint: 'nul \0' }),
          draft({ id: 'd', spiffeId: id('/d') }),
          draft({ id: 'e', spiffeId: id('/d') }),
          draft({ id: 'f', spiffeId: id('/f'), selectors: selectors('a:1', 'b:2', 'a:1') }),
          draft({ id: 'g', spiffeId: id('/g'), dnsNames: ['a.org', 'b.org', 'a.org'] }),
        ],
        ACTOR,
      )
      expect(outcomes.map(code)).toEqual([
        'ok',
        'entry_id_taken',
        'federated_bundle_missing',
        'bad_text',
        'ok',
        'similar_entry',
        'entry_repetitive',
        'entry_repetitive',
      ])
      expect(await entries.countEntries({})).toBe(2)
    }),
  )

  test(
    'no drafts, no outcomes',
    withSubject(async ({ entries }) => {
      expect(await entries.createEntries([], ACTOR)).toEqual([])
    }),
  )

  test(
    'the missing bundle is named',
    withSubject(async ({ entries }) => {
      const [outcome] = await entries.createEntries([draft({ federatesWith: ['x.org'] })], ACTOR)
      expect(outcome).toMatchObject({
        ok: false,
        error: { kind: 'internal', message: 'unable to find federated bundle "spiffe://x.org"' },
      })
    }),
  )

  test(
    'a similar entry is named before a missing bundle, also one of the same batch',
    withSubject(async ({ entries }) => {
      await entries.createEntries([draft({ id: 'a' })], ACTOR)
      const missing = { federatesWith: ['x.org'] }
      const outcomes = await entries.createEntries(
        [
          draft({ id: 'again', ...missing }),
          draft({ id: 'b', spiffeId: id('/b') }),
          draft({ id: 'b2', spiffeId: id('/b'), ...missing }),
          draft({ id: 'a', spiffeId: id('/c'), ...missing }),
        ],
        ACTOR,
      )
      expect(outcomes.map((outcome) => (outcome.ok ? 'made' : outcome.error.code))).toEqual([
        'similar_entry',
        'made',
        'similar_entry',
        'entry_id_taken',
      ])
      expect(outcomes[0]).toMatchObject({ value: { id: 'a' } })
      expect(outcomes[2]).toMatchObject({ value: { id: 'b' } })
    }),
  )
}

function similar(withSubject: Wrap): void {
  test(
    'the entry in the way is returned; order and repeats of selectors do not matter',
    withSubject(async ({ entries }) => {
      const [first] = await entries.createEntries(
        [draft({ id: 'first', selectors: selectors('a:1', 'b:2') })],
        ACTOR,
      )
      const [again] = await entries.createEntries(
        [draft({ selectors: selectors('b:2', 'a:1', 'b:2') })],
        ACTOR,
      )
      expect(again).toMatchObject({ ok: false, error: { code: 'similar_entry' } })
      expect(again!.value).toEqual(value(first))
    }),
  )

  test(
    'another parent, SPIFFE ID or set is not similar',
    withSubject(async ({ entries }) => {
      const outcomes = await entries.createEntries(
        [
          draft({ selectors: selectors('a:1') }),
          draft({ selectors: selectors('a:1', 'b:2') }),
          draft({ selectors: selectors('a:1,b:2') }),
          draft({ selectors: selectors('a:1'), spiffeId: id('/other') }),
          draft({ selectors: selectors('a:1'), parentId: id('/spire/server') }),
        ],
        ACTOR,
      )
      expect(outcomes.map(code)).toEqual(Array(5).fill('ok'))
    }),
  )

  test(
    'similar wins over a taken id',
    withSubject(async ({ entries }) => {
      await entries.createEntries([draft({ id: 'a' })], ACTOR)
      const [outcome] = await entries.createEntries([draft({ id: 'a' })], ACTOR)
      expect(code(outcome)).toBe('similar_entry')
    }),
  )

  test(
    'of racing creations one wins',
    withSubject(async ({ entries }) => {
      const outcomes = await Promise.all(
        Array.from({ length: 8 }, () => entries.createEntries([draft()], ACTOR)),
      )
      const codes = outcomes.map(([outcome]) => code(outcome)).sort()
      expect(codes).toEqual(['ok', ...Array(7).fill('similar_entry')])
      const ids = new Set(outcomes.map(([outcome]) => outcome?.value?.id))
      expect(ids.size).toBe(1)
    }),
  )

  test(
    'an update may make twins, and creation still sees each of them',
    withSubject(async ({ entries }) => {
      await entries.createEntries(
        [draft({ id: 'a' }), draft({ id: 'b', hint: 'b', spiffeId: id('/b') })],
        ACTOR,
      )
      const [moved] = await entries.updateEntries([{ id: 'b', spiffeId: id('/workload') }], ACTOR)
      expect(code(moved)).toBe('ok')
      await entries.deleteEntries(['a'], ACTOR)
      const [outcome] = await entries.createEntries([draft({ id: 'c' })], ACTOR)
      expect(outcome).toMatchObject({ error: { code: 'similar_entry' }, value: { id: 'b' } })
    }),
  )
}

function updating(withSubject: Wrap): void {
  test(
    'only the fields given change; the revision grows every time',
    withSubject(async ({ entries }) => {
      const [made] = await entries.createEntries(
        [draft({ id: 'a', hint: 'x', admin: true })],
        ACTOR,
      )
      const [changed] = await entries.updateEntries([{ id: 'a', hint: '' }], ACTOR)
      expect(value(changed)).toEqual({ ...value(made), hint: '', revisionNumber: 1n })
      const [same] = await entries.updateEntries([{ id: 'a' }], ACTOR)
      expect(value(same)).toEqual({ ...value(made), hint: '', revisionNumber: 2n })
      expect(await entries.getEntry('a')).toEqual(value(same))
    }),
  )

  test(
    'every field can change',
    withSubject(async ({ entries }) => {
      await entries.createEntries([draft({ id: 'a' })], ACTOR)
      const patch = draft({
        id: 'a',
        spiffeId: id('/new'),
        parentId: id('/spire/agent/x509pop/two'),
        selectors: selectors('b:2', 'b:1'),
        x509SvidTtlSeconds: 1,
        jwtSvidTtlSeconds: 2,
        admin: true,
        downstream: true,
        expiresAt: NOW + 1,
        dnsNames: ['x.org'],
        storeSvid: true,
        hint: 'h',
        disableX509SvidPrefetch: true,
        jwtSvidIncludeJti: true,
      })
      const [outcome] = await entries.updateEntries([patch], ACTOR)
      expect(value(outcome)).toEqual({ ...patch, revisionNumber: 1n, createdAt: NOW })
    }),
  )

  test(
    'patches of one entry in one batch apply in order; unknown and bad ones fail alone',
    withSubject(async ({ entries }) => {
      await entries.createEntries([draft({ id: 'a' })], ACTOR)
      const outcomes = await entries.updateEntries(
        [
          { id: 'a', hint: 'one' },
          { id: 'none', hint: 'x' },
          { id: 'a', hint: 'two' },
          { id: 'a', federatesWith: ['unknown.org'] },
          { id: 'a', hint: '\0' },
        ],
        ACTOR,
      )
      expect(outcomes.map(code)).toEqual([
        'ok',
        'entry_not_found',
        'ok',
        'federated_bundle_missing',
        'bad_text',
      ])
      expect(await entries.getEntry('a')).toMatchObject({ hint: 'two', revisionNumber: 2n })
    }),
  )

  test.each([
    ['other selectors of a stored SVID', true, ['a:1'], { selectors: selectors('a:1', 'b:2') }],
    ['storing with two types', false, ['a:1', 'b:2'], { storeSvid: true }],
    ['both at once', false, ['a:1'], { storeSvid: true, selectors: selectors('a:1', 'b:2') }],
  ])('the merged entry is checked: %s', (_name, storeSvid, before, patch) =>
    withSubject(async ({ entries }) => {
      const made = draft({ id: 'a', storeSvid, selectors: selectors(...before) })
      await entries.createEntries([made, draft({ id: 'b', spiffeId: id('/b') })], ACTOR)
      const outcomes = await entries.updateEntries(
        [
          { id: 'a', ...patch },
          { id: 'b', hint: 'neighbour' },
        ],
        ACTOR,
      )
      expect(outcomes.map(code)).toEqual(['bad_entry', 'ok'])
      expect(outcomes[0]).toMatchObject({
        error: {
          kind: 'invalid_argument',
          message:
            'datastore-validation: invalid registration entry: ' +
            'selector types must be the same when store SVID is enabled',
        },
      })
      expect(await entries.getEntry('a')).toMatchObject({ storeSvid, revisionNumber: 0n })
    })(),
  )

  test.each([
    [
      'mixed selectors of an SVID that is not stored',
      false,
      { selectors: selectors('a:1', 'b:2') },
    ],
    ['one other type', true, { selectors: selectors('b:1', 'b:2') }],
    ['no longer stored', true, { storeSvid: false, selectors: selectors('a:1', 'b:2') }],
    ['types with colons in the value', true, { selectors: selectors('a:b:1', 'a:c:1') }],
  ])('the merged entry may be: %s', (_name, storeSvid, patch) =>
    withSubject(async ({ entries }) => {
      await entries.createEntries(
        [draft({ id: 'a', storeSvid, selectors: selectors('a:1') })],
        ACTOR,
      )
      expect((await entries.updateEntries([{ id: 'a', ...patch }], ACTOR)).map(code)).toEqual([
        'ok',
      ])
    })(),
  )

  test(
    'a batch may make twins of its own items',
    withSubject(async ({ entries }) => {
      await entries.createEntries(
        [draft({ id: 'a', spiffeId: id('/a') }), draft({ id: 'b', spiffeId: id('/b') })],
        ACTOR,
      )
      const outcomes = await entries.updateEntries(
        [
          { id: 'a', spiffeId: id('/same') },
          { id: 'b', spiffeId: id('/same') },
        ],
        ACTOR,
      )
      expect(outcomes.map(code)).toEqual(['ok', 'ok'])
      expect(await entries.countEntries({ spiffeId: id('/same') })).toBe(2)
    }),
  )

  test(
    'the same selector or DNS name twice is refused, as in SPIRE, and changes nothing',
    withSubject(async ({ entries }) => {
      await entries.createEntries([draft({ id: 'a', selectors: selectors('a:1') })], ACTOR)
      const twice = { selectors: selectors('b:2', 'b:2') }
      const [known, unknown, name] = await entries.updateEntries(
        [
          { id: 'a', ...twice },
          { id: 'b', ...twice },
          { id: 'a', dnsNames: ['a.org', 'a.org'] },
        ],
        ACTOR,
      )
      for (const outcome of [known, name]) {
        expect(outcome).toMatchObject({ ok: false, error: { kind: 'already_exists' } })
      }
      expect(unknown).toMatchObject({ ok: false, error: { kind: 'not_found' } })
      expect(await entries.getEntry('a')).toMatchObject({
        selectors: selectors('a:1'),
        dnsNames: [],
        revisionNumber: 0n,
      })
    }),
  )

  test(
    'no update is lost among many at once',
    withSubject(async ({ entries }) => {
      await entries.createEntries([draft({ id: 'a' })], ACTOR)
      await Promise.all(
        Array.from({ length: 10 }, (_, i) =>
          entries.updateEntries([{ id: 'a', hint: String(i) }], ACTOR),
        ),
      )
      expect((await entries.getEntry('a'))?.revisionNumber).toBe(10n)
    }),
  )
}

function deleting(withSubject: Wrap): void {
  test(
    'each id once, unknown ones are not found',
    withSubject(async ({ entries }) => {
      await entries.createEntries([draft({ id: 'a' })], ACTOR)
      const outcomes = await entries.deleteEntries(['none', 'a', 'a'], ACTOR)
      expect(outcomes.map(code)).toEqual(['entry_not_found', 'ok', 'entry_not_found'])
      expect(await entries.getEntry('a')).toBeUndefined()
    }),
  )

  test(
    'pruning takes what has expired before now',
    withSubject(async ({ entries }) => {
      const expiries = [0, NOW - 1, NOW, NOW + 1]
      await entries.createEntries(
        expiries.map((expiresAt) =>
          draft({ id: `e${expiresAt}`, expiresAt, spiffeId: id(`/${expiresAt}`) }),
        ),
        ACTOR,
      )
      expect(await entries.pruneEntries(NOW, ACTOR)).toBe(1)
      expect(await entries.getEntry(`e${NOW - 1}`)).toBeUndefined()
      expect(await entries.countEntries({})).toBe(3)
    }),
  )
}

/** Every behaviour against every stored set, as api.md §5.4 says. */
const SETS: Readonly<Record<string, readonly string[]>> = {
  one: ['a:1'],
  two: ['a:1', 'b:2'],
  three: ['a:1', 'b:2', 'c:3'],
  other: ['d:4'],
}
const MATCHES = [
  ['exact', ['b:2', 'a:1'], ['two']],
  ['exact', ['a:1', 'a:1'], ['one']],
  ['subset', ['a:1', 'b:2'], ['one', 'two']],
  ['subset', ['z:9'], []],
  ['superset', ['b:2'], ['two', 'three']],
  ['superset', ['a:1', 'd:4'], []],
  ['any', ['b:2', 'd:4'], ['two', 'three', 'other']],
] as const

function listing(withSubject: Wrap): void {
  test(
    'pages by row id; a last full page is followed by an empty one',
    withSubject(async ({ entries }) => {
      const drafts = Array.from({ length: 5 }, (_, i) =>
        draft({ id: `e${i}`, spiffeId: id(`/${i}`) }),
      )
      await entries.createEntries(drafts, ACTOR)
      const seen: string[][] = []
      let token = ''
      do {
        const page = await entries.listEntries({}, { size: 2, token })
        seen.push(page.rows.map((entry) => entry.id))
        token = page.nextToken
      } while (token !== '')
      expect(seen).toEqual([['e0', 'e1'], ['e2', 'e3'], ['e4'], []])
      const all = await entries.listEntries({}, ALL)
      expect(all).toMatchObject({ rows: { length: 5 }, nextToken: '' })
    }),
  )

  test(
    'a token is the decimal id of the last row of its page',
    withSubject(async ({ entries }) => {
      const drafts = ['a', 'b', 'c'].map((name) => draft({ id: name, spiffeId: id(`/${name}`) }))
      await entries.createEntries(drafts, ACTOR)
      const { nextToken } = await entries.listEntries({}, { size: 2, token: '' })
      expect(nextToken).toMatch(/^[1-9][0-9]*$/)
      const behind = async (row: bigint) =>
        (await entries.listEntries({}, { size: 9, token: String(row) })).rows.map((e) => e.id)
      expect(await behind(BigInt(nextToken))).toEqual(['c'])
      expect(await behind(BigInt(nextToken) - 1n)).toEqual(['b', 'c'])
    }),
  )

  test.each([['x'], ['-1'], ['1.5'], ['9223372036854775808'], ['18446744073709551616'], [' 1']])(
    'token %j is refused',
    (token) =>
      withSubject(async ({ entries }) => {
        const text = `could not parse token '${token}'`
        await expect(entries.listEntries({}, { size: 1, token })).rejects.toMatchObject({
          kind: 'internal',
          message: `datastore-sql: rpc error: code = InvalidArgument desc = ${text}`,
        })
      })(),
  )

  test(
    'a token is any number that a row may have, however it is written',
    withSubject(async ({ entries }) => {
      await entries.createEntries([draft()], ACTOR)
      const last = await entries.listEntries({}, { size: 1, token: '9223372036854775807' })
      expect(last).toEqual({ rows: [], nextToken: '' })
      const first = await entries.listEntries({}, { size: 1, token: '0'.repeat(30) })
      expect(first.rows).toHaveLength(1)
    }),
  )

  test(
    'selectors and federated trust domains match in four ways',
    withSubject(async ({ entries, bundles }) => {
      const td = (key: string) => `${key.replace(':', '')}.org`
      for (const key of ['a:1', 'b:2', 'c:3', 'd:4']) {
        await bundles.createBundle(emptyBundle(td(key)), ACTOR)
      }
      const drafts = Object.entries(SETS).map(([name, keys]) =>
        draft({ id: name, selectors: selectors(...keys), federatesWith: keys.map(td) }),
      )
      const bare = draft({ id: 'bare', selectors: selectors('e:5') })
      for (const outcome of await entries.createEntries([...drafts, bare], ACTOR)) value(outcome)
      for (const [match, keys, names] of MATCHES) {
        const bySelectors = await entries.listEntries({ selectors: { keys, match } }, ALL)
        expect(namesOf(bySelectors), `${match} ${keys}`).toEqual(names)
        const federatesWith = { keys: keys.map(td), match }
        const byDomains = await entries.listEntries({ federatesWith }, ALL)
        expect(namesOf(byDomains), `${match} ${keys}`).toEqual(names)
        expect(await entries.countEntries({ federatesWith })).toBe(names.length)
      }
    }),
  )

  test(
    'filters combine',
    withSubject(async ({ entries }) => {
      await entries.createEntries(
        [
          draft({ id: 'a', hint: 'x', downstream: true }),
          draft({ id: 'b', hint: 'x', spiffeId: id('/b') }),
          draft({ id: 'c', parentId: id('/spire/server') }),
        ],
        ACTOR,
      )
      const list = async (filter: Parameters<EntryStore['listEntries']>[0]) =>
        namesOf(await entries.listEntries(filter, ALL))
      expect(await list({ hint: 'x' })).toEqual(['a', 'b'])
      expect(await list({ hint: 'x', downstream: true })).toEqual(['a'])
      expect(await list({ spiffeId: id('/workload') })).toEqual(['a', 'c'])
      expect(await list({ parentId: id('/spire/server') })).toEqual(['c'])
      expect(await list({ parentId: id('/spire/server'), hint: 'x' })).toEqual([])
    }),
  )
}

function namesOf(page: { readonly rows: readonly RegistrationEntry[] }): string[] {
  return page.rows.map((entry) => entry.id)
}

function emptyBundle(trustDomain: string) {
  return {
    trustDomain,
    x509Authorities: [],
    jwtAuthorities: [],
    refreshHintSeconds: 0,
    sequenceNumber: 0n,
  }
}
