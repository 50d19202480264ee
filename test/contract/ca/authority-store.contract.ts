/**
 * What every AuthorityStore keeps (src/ca/authority/authority.ts). Run on the in-memory fake and on
 * PostgreSQL, so that the fake cannot drift.
 */
import { describe, expect, test } from 'vitest'
import { toHex } from '../../../src/base/bytes.ts'
import {
  type Authority,
  type AuthorityStore,
  CLUSTER_NONE_ID,
} from '../../../src/ca/authority/authority.ts'

/** A store on an empty database, and a look at the own bundle it publishes to. */
export interface AuthorityStoreSubject {
  readonly store: AuthorityStore
  /** Hex of the DER of each root certificate in the own bundle, in any order. */
  bundleRoots(): Promise<readonly string[]>
  /** Key ids of the JWT keys in the own bundle, in any order. */
  bundleKeyIds(): Promise<readonly string[]>
  close?(): Promise<void>
}

type Draft = Omit<Authority, 'id' | 'state'>

const NOW = 1_800_000_000
let made = 0

/** Bytes that only have to be distinct; stores never parse keys or certificates of authorities. */
function blob(size: number, tag: number): Uint8Array {
  const bytes = new Uint8Array(size).fill(0x30)
  new DataView(bytes.buffer).setUint32(size - 4, tag)
  return bytes
}

export function rootDraft(changes: Partial<Draft> = {}): Draft {
  const n = ++made
  return {
    clusterId: CLUSTER_NONE_ID,
    kind: 'x509_root',
    holder: '',
    authorityId: n.toString(16).padStart(40, '0'),
    keyType: 'ec-p256',
    publicKey: blob(91, n),
    certificate: blob(300, n),
    issuerId: undefined,
    notBefore: NOW - 10,
    notAfter: NOW + 1000,
    generation: `generation-${n}`,
    sealed: { kekId: '0123456789abcdef', blob: blob(60, n) },
    ...changes,
  }
}

export function jwtDraft(changes: Partial<Draft> = {}): Draft {
  const n = ++made
  return rootDraft({
    clusterId: 2,
    kind: 'jwt',
    authorityId: `kid${n}`,
    certificate: undefined,
    generation: `kid${n}`,
    ...changes,
  })
}

export function authorityStoreContract(makeSubject: () => Promise<AuthorityStoreSubject>): void {
  const withSubject = (run: (subject: AuthorityStoreSubject) => Promise<void>) => async () => {
    const subject = await makeSubject()
    try {
      await run(subject)
    } finally {
      await subject.close?.()
    }
  }
  describe('authority store', () => {
    preparing(withSubject)
    activating(withSubject)
    pruning(withSubject)
  })
}

type Wrap = (run: (subject: AuthorityStoreSubject) => Promise<void>) => () => Promise<void>

function preparing(withSubject: Wrap): void {
  test(
    'starts empty',
    withSubject(async ({ store }) => {
      expect(await store.listAuthorities()).toEqual([])
    }),
  )

  test(
    'a prepared row comes back as it was given',
    withSubject(async ({ store }) => {
      const draft = rootDraft()
      const row = await store.insertPrepared(draft)
      expect(row).toEqual({ ...draft, id: row.id, state: 'prepared' })
      expect(await store.listAuthorities()).toEqual([row])
    }),
  )

  test(
    'an intermediate keeps its issuer, a key in memory has nothing sealed',
    withSubject(async ({ store }) => {
      const root = await store.insertPrepared(rootDraft({ holder: 'server-1', sealed: undefined }))
      const row = await store.insertPrepared(
        rootDraft({
          clusterId: 2,
          kind: 'x509_intermediate',
          issuerId: root.id,
          holder: 'server-1',
          sealed: undefined,
        }),
      )
      const listed = (await store.listAuthorities()).find((other) => other.id === row.id)
      expect(listed?.issuerId).toBe(root.id)
      expect(listed?.sealed).toBeUndefined()
      expect(listed?.holder).toBe('server-1')
    }),
  )

  test(
    'roots and JWT keys are published with the insert, intermediates are not',
    withSubject(async ({ store, bundleRoots, bundleKeyIds }) => {
      const root = rootDraft()
      const key = jwtDraft()
      const { id } = await store.insertPrepared(root)
      await store.insertPrepared(key)
      await store.insertPrepared(
        rootDraft({ clusterId: 1, kind: 'x509_intermediate', issuerId: id }),
      )
      expect(await bundleRoots()).toEqual([toHex(root.certificate!)])
      expect(await bundleKeyIds()).toEqual([key.authorityId])
    }),
  )

  test(
    'one prepared per cluster, kind and holder',
    withSubject(async ({ store, bundleKeyIds }) => {
      const first = await store.insertPrepared(jwtDraft())
      await expect(store.insertPrepared(jwtDraft())).rejects.toMatchObject({ kind: 'aborted' })
      await store.insertPrepared(jwtDraft({ holder: 'server-1', sealed: undefined }))
      await store.insertPrepared(jwtDraft({ clusterId: 1 }))
      expect(await store.listAuthorities()).toHaveLength(3)
      expect(await bundleKeyIds()).toContain(first.authorityId)
      expect(await bundleKeyIds()).toHaveLength(3)
    }),
  )

  test(
    'a generation is used once: a server that planned on older rows is refused',
    withSubject(async ({ store, bundleKeyIds }) => {
      const first = await store.insertPrepared(jwtDraft({ generation: 'jwt/2//1' }))
      await store.activate(first.id)
      const late = store.insertPrepared(jwtDraft({ generation: 'jwt/2//1' }))
      await expect(late).rejects.toMatchObject({ kind: 'aborted' })
      expect(await store.listAuthorities()).toHaveLength(1)
      expect(await bundleKeyIds()).toEqual([first.authorityId])
      await store.insertPrepared(jwtDraft({ generation: 'jwt/2//2' }))
    }),
  )

  test(
    'of racing servers one prepares and one activates',
    withSubject(async ({ store }) => {
      const inserts = await Promise.allSettled(
        Array.from({ length: 5 }, () => store.insertPrepared(jwtDraft())),
      )
      expect(inserts.filter((insert) => insert.status === 'fulfilled')).toHaveLength(1)
      for (const insert of inserts) {
        if (insert.status === 'rejected') expect(insert.reason).toMatchObject({ kind: 'aborted' })
      }
      const [row] = await store.listAuthorities()
      const activations = await Promise.allSettled(
        Array.from({ length: 5 }, () => store.activate(row!.id)),
      )
      expect(activations.filter((activation) => activation.status === 'fulfilled')).toHaveLength(1)
    }),
  )
}

function activating(withSubject: Wrap): void {
  test(
    'activation makes the active one old, in its own slot only',
    withSubject(async ({ store }) => {
      const first = await store.insertPrepared(jwtDraft())
      await store.activate(first.id)
      const other = await store.insertPrepared(jwtDraft({ holder: 'server-1', sealed: undefined }))
      await store.activate(other.id)
      const second = await store.insertPrepared(jwtDraft())
      await store.activate(second.id)
      const states = new Map((await store.listAuthorities()).map((row) => [row.id, row.state]))
      expect(states.get(first.id)).toBe('old')
      expect(states.get(second.id)).toBe('active')
      expect(states.get(other.id)).toBe('active')
    }),
  )

  test(
    'only a prepared one can be activated',
    withSubject(async ({ store }) => {
      const row = await store.insertPrepared(rootDraft())
      await store.activate(row.id)
      await expect(store.activate(row.id)).rejects.toMatchObject({ kind: 'aborted' })
      await expect(store.activate(row.id + 1000)).rejects.toMatchObject({ kind: 'aborted' })
      expect((await store.listAuthorities()).map((other) => other.state)).toEqual(['active'])
    }),
  )

  test(
    'the old one stays in the bundle',
    withSubject(async ({ store, bundleRoots }) => {
      for (let i = 0; i < 2; i++) await store.activate((await store.insertPrepared(rootDraft())).id)
      expect(await bundleRoots()).toHaveLength(2)
    }),
  )
}

function pruning(withSubject: Wrap): void {
  test(
    'pruning takes expired old and prepared ones and their bundle elements',
    withSubject(async ({ store, bundleKeyIds }) => {
      const old = await store.insertPrepared(jwtDraft({ notAfter: NOW - 1 }))
      await store.activate(old.id)
      const active = await store.insertPrepared(jwtDraft({ notAfter: NOW - 1 }))
      await store.activate(active.id)
      const prepared = await store.insertPrepared(jwtDraft({ notAfter: NOW - 1 }))
      expect(await store.pruneAuthorities(NOW - 1)).toBe(0)
      expect(await store.pruneAuthorities(NOW)).toBe(2)
      expect((await store.listAuthorities()).map((row) => row.id)).toEqual([active.id])
      expect(await bundleKeyIds()).toEqual([active.authorityId])
      expect(prepared.id).not.toBe(active.id)
    }),
  )

  test(
    'pruning takes an old root together with its intermediates',
    withSubject(async ({ store, bundleRoots }) => {
      const root = await store.insertPrepared(rootDraft({ notAfter: NOW - 1 }))
      await store.activate(root.id)
      const child = await store.insertPrepared(
        rootDraft({
          clusterId: 1,
          kind: 'x509_intermediate',
          issuerId: root.id,
          notAfter: NOW - 1,
        }),
      )
      await store.activate(child.id)
      const next = await store.insertPrepared(rootDraft())
      await store.activate(next.id)
      const nextChild = await store.insertPrepared(
        rootDraft({ clusterId: 1, kind: 'x509_intermediate', issuerId: next.id }),
      )
      await store.activate(nextChild.id)
      expect(await store.pruneAuthorities(NOW)).toBe(2)
      expect((await store.listAuthorities()).map((row) => row.id).sort()).toEqual(
        [next.id, nextChild.id].sort(),
      )
      expect(await bundleRoots()).toEqual([toHex(next.certificate!)])
    }),
  )

  test(
    'a pruned slot can be prepared again',
    withSubject(async ({ store }) => {
      await store.insertPrepared(jwtDraft({ notAfter: NOW - 1 }))
      await store.pruneAuthorities(NOW)
      const row = await store.insertPrepared(jwtDraft())
      expect((await store.listAuthorities()).map((other) => other.id)).toEqual([row.id])
    }),
  )

  test(
    'dropping a holder takes its rows alone, whatever their state',
    withSubject(async ({ store, bundleKeyIds }) => {
      const shared = await store.insertPrepared(jwtDraft())
      const gone = await store.insertPrepared(jwtDraft({ holder: 'server-1', sealed: undefined }))
      await store.activate(gone.id)
      await store.insertPrepared(jwtDraft({ holder: 'server-1', sealed: undefined }))
      await store.dropHolder('server-1')
      expect((await store.listAuthorities()).map((row) => row.id)).toEqual([shared.id])
      expect(await bundleKeyIds()).toEqual([shared.authorityId])
    }),
  )
}
