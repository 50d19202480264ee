/** What every BundleStore keeps (server/ports.ts, api.md §9.1). */
import { describe, expect, test } from 'vitest'
import type { BundleStore, EntryStore } from '../../../src/server/ports.ts'
import type { Bundle } from '../../../src/spiffe/bundle.ts'
import { ACTOR, draft, id, NOW } from '../../rigs/datastore.ts'

export interface BundleStoreSubject extends AsyncDisposable {
  readonly bundles: BundleStore
  readonly entries: EntryStore
}

export interface BundleCertificates {
  /** DER of CA certificates: two that live beyond NOW, one that ended before. */
  readonly alive: readonly [Uint8Array, Uint8Array]
  readonly expired: Uint8Array
}

type Wrap = (run: (subject: BundleStoreSubject) => Promise<void>) => () => Promise<void>

const key = (keyId: string, expiresAt = NOW + 60) => ({
  keyId,
  publicKey: new Uint8Array([0x30, 1, keyId.length]),
  expiresAt,
  tainted: false,
})
const x509 = (certificate: Uint8Array, tainted = false) => ({ certificate, tainted })

export function bundleStoreContract(
  certificates: BundleCertificates,
  makeSubject: () => Promise<BundleStoreSubject>,
): void {
  const withSubject: Wrap = (run) => async () => {
    await using subject = await makeSubject()
    await run(subject)
  }
  const [one, two] = certificates.alive
  const full: Bundle = {
    trustDomain: 'other.org',
    x509Authorities: [x509(one), x509(two, true)],
    jwtAuthorities: [key('b'), { ...key('a', 0), tainted: true }],
    refreshHintSeconds: 300,
    sequenceNumber: 18_446_744_073_709_551_615n,
  }
  describe('writing bundles', () => writing(withSubject, full))
  describe('appending to bundles', () => appending(withSubject, full, one))
  describe('deleting bundles', () => deleting(withSubject, full))
  describe('pruning bundles', () => pruning(withSubject, certificates))
}

function writing(withSubject: Wrap, full: Bundle): void {
  test(
    'a bundle comes back as it was created, in the order given',
    withSubject(async ({ bundles }) => {
      expect(await bundles.createBundle(full, ACTOR)).toEqual(full)
      expect(await bundles.getBundle('other.org')).toEqual(full)
      expect(await bundles.getBundle('none.org')).toBeUndefined()
      await expect(bundles.createBundle(full, ACTOR)).rejects.toMatchObject({
        kind: 'already_exists',
        message: 'bundle already exists',
      })
    }),
  )

  test(
    'an update changes the parts given alone',
    withSubject(async ({ bundles }) => {
      await bundles.createBundle(full, ACTOR)
      const patch = { trustDomain: 'other.org', jwtAuthorities: [key('c')] }
      expect(await bundles.updateBundle(patch, ACTOR)).toEqual({ ...full, ...patch })
      const hint = { trustDomain: 'other.org', refreshHintSeconds: 0, sequenceNumber: 7n }
      expect(await bundles.updateBundle(hint, ACTOR)).toEqual({ ...full, ...patch, ...hint })
      await expect(bundles.updateBundle({ trustDomain: 'none.org' }, ACTOR)).rejects.toMatchObject({
        kind: 'not_found',
        message: 'bundle not found',
      })
    }),
  )

  test(
    'setting creates or replaces everything',
    withSubject(async ({ bundles }) => {
      expect(await bundles.setBundle(full, ACTOR)).toEqual(full)
      const other = { ...full, x509Authorities: [], jwtAuthorities: [], sequenceNumber: 1n }
      expect(await bundles.setBundle(other, ACTOR)).toEqual(other)
      expect(await bundles.countBundles()).toBe(1)
    }),
  )

  test(
    'a certificate that is none is refused and nothing is stored',
    withSubject(async ({ bundles }) => {
      const bad = { ...full, x509Authorities: [x509(new Uint8Array([1, 2, 3]))] }
      for (const write of [bundles.createBundle, bundles.setBundle, bundles.appendBundle]) {
        await expect(write(bad, ACTOR)).rejects.toMatchObject({ kind: 'invalid_argument' })
      }
      expect(await bundles.countBundles()).toBe(0)
    }),
  )

  test.each([[''], ['x'.repeat(1025)]])('key id of wrong length %#', (keyId) =>
    withSubject(async ({ bundles }) => {
      const bad = { ...full, jwtAuthorities: [key(keyId)] }
      await expect(bundles.createBundle(bad, ACTOR)).rejects.toMatchObject({ code: 'bad_key_id' })
      const good = { ...full, jwtAuthorities: [key('x'.repeat(1024))] }
      await bundles.createBundle(good, ACTOR)
    })(),
  )

  test(
    'another key under an ID that is taken is refused and nothing is stored, the same one is not',
    withSubject(async ({ bundles }) => {
      const other = { ...key('b'), publicKey: new Uint8Array([0x30, 0]) }
      const twice = { ...full, jwtAuthorities: [key('b'), other] }
      for (const write of [bundles.createBundle, bundles.setBundle, bundles.appendBundle]) {
        await expect(write(twice, ACTOR)).rejects.toMatchObject({
          kind: 'invalid_argument',
          message: 'another JWT authority has the key ID "b"',
        })
      }
      expect(await bundles.countBundles()).toBe(0)
      await bundles.createBundle(full, ACTOR)
      const more = { ...full, jwtAuthorities: [key('c'), other] }
      await expect(bundles.appendBundle(more, ACTOR)).rejects.toMatchObject({
        code: 'key_id_taken',
      })
      expect(await bundles.getBundle('other.org')).toEqual(full)
      const same = { ...full, jwtAuthorities: [key('b'), key('b')] }
      expect((await bundles.setBundle(same, ACTOR)).jwtAuthorities).toEqual([key('b')])
    }),
  )

  test(
    'pages',
    withSubject(async ({ bundles }) => {
      for (const trustDomain of ['a.org', 'b.org', 'c.org']) {
        await bundles.createBundle({ ...full, trustDomain }, ACTOR)
      }
      const first = await bundles.listBundles({ size: 2, token: '' })
      const rest = await bundles.listBundles({ size: 2, token: first.nextToken })
      const end = await bundles.listBundles({ size: 2, token: rest.nextToken })
      const names = [first, rest, end].map((page) => page.rows.map((row) => row.trustDomain))
      expect(names).toEqual([['a.org', 'b.org'], ['c.org'], []])
      expect(end.nextToken).toBe('')
      expect((await bundles.listBundles({ size: 0, token: '' })).nextToken).toBe('')
    }),
  )
}

function appending(withSubject: Wrap, full: Bundle, one: Uint8Array): void {
  test(
    'adds what is missing; the sequence grows only then',
    withSubject(async ({ bundles }) => {
      const part = { trustDomain: 'own.org', x509Authorities: [x509(one)], jwtAuthorities: [] }
      expect(await bundles.appendBundle(part, ACTOR)).toMatchObject({ sequenceNumber: 1n })
      expect(await bundles.appendBundle(part, ACTOR)).toMatchObject({ sequenceNumber: 1n })
      const more = { ...part, jwtAuthorities: [key('a'), key('b')] }
      expect(await bundles.appendBundle(more, ACTOR)).toEqual({
        ...more,
        refreshHintSeconds: 0,
        sequenceNumber: 2n,
      })
    }),
  )

  test(
    'a tainted twin counts as present',
    withSubject(async ({ bundles }) => {
      const tainted = { ...full, sequenceNumber: 1n }
      await bundles.createBundle(tainted, ACTOR)
      const again = {
        trustDomain: full.trustDomain,
        x509Authorities: full.x509Authorities.map((authority) => ({
          ...authority,
          tainted: false,
        })),
        jwtAuthorities: full.jwtAuthorities.map((authority) => ({ ...authority, tainted: false })),
      }
      expect(await bundles.appendBundle(again, ACTOR)).toEqual(tainted)
    }),
  )

  test(
    'appends at once are all kept, each with its own number',
    withSubject(async ({ bundles }) => {
      const results = await Promise.all(
        Array.from({ length: 8 }, (_, i) =>
          bundles.appendBundle(
            { trustDomain: 'own.org', x509Authorities: [], jwtAuthorities: [key(`k${i}`)] },
            ACTOR,
          ),
        ),
      )
      const numbers = results.map((bundle) => Number(bundle.sequenceNumber)).sort()
      expect(numbers).toEqual([1, 2, 3, 4, 5, 6, 7, 8])
      expect((await bundles.getBundle('own.org'))?.jwtAuthorities).toHaveLength(8)
    }),
  )
}

function deleting(withSubject: Wrap, full: Bundle): void {
  const withEntries: Wrap = (run) =>
    withSubject(async (subject) => {
      for (const trustDomain of ['other.org', 'third.org']) {
        await subject.bundles.createBundle({ ...full, trustDomain }, ACTOR)
      }
      await subject.entries.createEntries(
        [
          draft({ id: 'both', spiffeId: id('/both'), federatesWith: ['third.org', 'other.org'] }),
          draft({ id: 'third', spiffeId: id('/third'), federatesWith: ['third.org'] }),
        ],
        ACTOR,
      )
      await run(subject)
    })

  test(
    'restrict refuses while entries federate with it',
    withEntries(async ({ bundles, entries }) => {
      await expect(bundles.deleteBundle('other.org', 'restrict', ACTOR)).rejects.toMatchObject({
        kind: 'failed_precondition',
        message: 'datastore-sql: cannot delete bundle; federated with 1 registration entries',
      })
      await entries.deleteEntries(['both'], ACTOR)
      await bundles.deleteBundle('other.org', 'restrict', ACTOR)
      expect(await bundles.getBundle('other.org')).toBeUndefined()
    }),
  )

  test(
    'delete takes the entries along',
    withEntries(async ({ bundles, entries }) => {
      await bundles.deleteBundle('other.org', 'delete', ACTOR)
      expect(await entries.getEntry('both')).toBeUndefined()
      expect(await entries.getEntry('third')).toBeDefined()
    }),
  )

  test(
    'dissociate unlinks them',
    withEntries(async ({ bundles, entries }) => {
      await bundles.deleteBundle('other.org', 'dissociate', ACTOR)
      expect(await entries.getEntry('both')).toMatchObject({
        federatesWith: ['third.org'],
        revisionNumber: 1n,
      })
      await expect(bundles.deleteBundle('other.org', 'dissociate', ACTOR)).rejects.toMatchObject({
        code: 'bundle_not_found',
      })
    }),
  )

  test(
    'no entry is left federating with a bundle deleted at the same moment',
    withEntries(async ({ bundles, entries }) => {
      const drafts = Array.from({ length: 20 }, (_, i) =>
        draft({ spiffeId: id(`/race/${i}`), federatesWith: ['third.org'] }),
      )
      const creations = drafts.map((one) => entries.createEntries([one], ACTOR))
      await Promise.all([...creations, bundles.deleteBundle('third.org', 'delete', ACTOR)])
      const filter = { federatesWith: { keys: ['third.org'], match: 'any' } } as const
      expect(await entries.countEntries(filter)).toBe(0)
    }),
  )
}

function pruning(withSubject: Wrap, { alive, expired }: BundleCertificates): void {
  const bundle = {
    trustDomain: 'own.org',
    x509Authorities: [x509(expired), x509(alive[0])],
    jwtAuthorities: [key('gone', NOW - 1), key('edge', NOW), key('timeless', 0)],
    refreshHintSeconds: 0,
    sequenceNumber: 4n,
  }

  test(
    'takes what has expired',
    withSubject(async ({ bundles }) => {
      await bundles.createBundle(bundle, ACTOR)
      expect(await bundles.pruneBundle('own.org', NOW, ACTOR)).toBe(true)
      const pruned = await bundles.getBundle('own.org')
      expect(pruned?.x509Authorities).toEqual([x509(alive[0])])
      expect(pruned?.jwtAuthorities.map((authority) => authority.keyId)).toEqual([
        'edge',
        'timeless',
      ])
      expect(pruned?.sequenceNumber).toBe(5n)
      expect(await bundles.pruneBundle('own.org', NOW, ACTOR)).toBe(false)
      expect(await bundles.pruneBundle('none.org', NOW, ACTOR)).toBe(false)
    }),
  )

  test(
    'never empties a kind',
    withSubject(async ({ bundles }) => {
      const last = { ...bundle, x509Authorities: [x509(expired)], jwtAuthorities: [key('a', 1)] }
      await bundles.createBundle(last, ACTOR)
      expect(await bundles.pruneBundle('own.org', NOW, ACTOR)).toBe(false)
      expect(await bundles.getBundle('own.org')).toEqual(last)
    }),
  )
}
