import { beforeEach, describe, expect, test } from 'vitest'
import type { Authority, AuthorityStore } from '../../../../src/ca/authority/authority.ts'
import { FakeClock } from '../../../fakes/fake-clock.ts'
import {
  createMemoryAuthorityStore,
  type MemoryAuthorityStore,
} from '../../../fakes/memory-authority-store.ts'
import { createTestServer } from '../../../rigs/test-authorities.ts'

const NOW = 1_800_000_000
const DAY = 24 * 3600

let store: MemoryAuthorityStore
let clock: FakeClock
beforeEach(() => {
  store = createMemoryAuthorityStore()
  clock = new FakeClock(NOW)
})

async function started() {
  const server = createTestServer({ store, clock })
  await server.rotator.step()
  return server
}

/** The same store, its rows seen through a change. */
function tampered(change: (row: Authority) => Authority): AuthorityStore {
  return { ...store, listAuthorities: async () => (await store.listAuthorities()).map(change) }
}

describe('issuers', () => {
  test('there are none before the first activation', async () => {
    const { authorities } = createTestServer({ store, clock })
    for (const ask of [() => authorities.x509Issuer(2), () => authorities.jwtIssuer(2)]) {
      expect(ask).toThrowError(
        expect.objectContaining({
          kind: 'unavailable',
          code: 'server_initializing',
          message: 'server is initializing',
        }),
      )
    }
    await authorities.reload()
    expect(() => authorities.jwtIssuer(2)).toThrow('server is initializing')
  })

  test('are those of the cluster asked for; control has no JWT key', async () => {
    const { authorities } = await started()
    expect(authorities.x509Issuer(1).authority.clusterId).toBe(1)
    expect(authorities.x509Issuer(2).authority.clusterId).toBe(2)
    expect(authorities.x509Issuer(2).chain).toEqual([
      authorities.x509Issuer(2).authority.certificate,
    ])
    expect(() => authorities.jwtIssuer(1)).toThrow('server is initializing')
    expect(() => authorities.x509Issuer(99)).toThrow('server is initializing')
  })

  test('one that ran out issues nothing, to the second', async () => {
    const { authorities } = await started()
    clock.advanceSeconds(DAY - 1)
    expect(authorities.jwtIssuer(2)).toBeDefined()
    clock.advanceSeconds(1)
    expect(() => authorities.x509Issuer(2)).toThrowError(
      expect.objectContaining({ kind: 'unavailable', code: 'x509_authority_expired' }),
    )
    expect(() => authorities.jwtIssuer(2)).toThrowError(
      expect.objectContaining({ kind: 'unavailable', code: 'jwt_authority_expired' }),
    )
  })

  test('a change that another server made is seen after a reload', async () => {
    const one = await started()
    const two = createTestServer({ store, clock, name: 'two' })
    await two.authorities.reload()
    clock.advanceSeconds(DAY / 2)
    await one.rotator.step()
    clock.advanceSeconds(DAY / 3)
    await one.rotator.step()
    const before = two.authorities.jwtIssuer(2).authority.id
    await two.authorities.reload()
    expect(two.authorities.jwtIssuer(2).authority.id).not.toBe(before)
    expect(two.authorities.jwtIssuer(2).authority).toEqual(one.authorities.jwtIssuer(2).authority)
  })

  test('reloads that come together share one read, and later ones win', async () => {
    await started()
    let reads = 0
    const counting = {
      ...store,
      listAuthorities: () => {
        reads++
        return store.listAuthorities()
      },
    }
    const { authorities, engine } = createTestServer({ store: counting, clock, name: 'two' })
    await Promise.all(Array.from({ length: 20 }, () => authorities.reload()))
    expect(reads).toBeLessThanOrEqual(2)
    expect(engine.keys.size).toBe(3)
  })
})

describe('keys', () => {
  test.each<[string, (row: Authority) => Authority]>([
    [
      'a JWT key under another kid',
      (row) => (row.kind === 'jwt' ? { ...row, authorityId: 'x' } : row),
    ],
    [
      'a JWT key under another generation',
      (row) => (row.kind === 'jwt' ? { ...row, generation: 'x' } : row),
    ],
    [
      'an intermediate moved to the other cluster',
      (row) => (row.kind === 'x509_intermediate' ? { ...row, clusterId: 3 - row.clusterId } : row),
    ],
    [
      'an intermediate under another key identifier',
      (row) =>
        row.clusterId === 2 && row.certificate ? { ...row, authorityId: '00'.repeat(20) } : row,
    ],
  ])('a changed row does not open: %s', async (_name, change) => {
    await started()
    const server = createTestServer({ store: tampered(change), clock, name: 'two' })
    await expect(server.authorities.reload()).rejects.toMatchObject({ code: 'key_unsealable' })
  })

  test('one that can’t be opened leaves the others in use', async () => {
    await started()
    const damage = (row: Authority) =>
      row.kind === 'jwt' ? { ...row, sealed: { ...row.sealed!, blob: new Uint8Array(80) } } : row
    const { authorities } = createTestServer({ store: tampered(damage), clock, name: 'two' })
    await expect(authorities.reload()).rejects.toMatchObject({ code: 'key_unsealable' })
    expect(authorities.x509Issuer(2)).toBeDefined()
    expect(() => authorities.jwtIssuer(2)).toThrow('server is initializing')
  })

  test('a failure is not remembered', async () => {
    await started()
    let damaged = true
    const damage = (row: Authority) =>
      damaged ? { ...row, sealed: { ...row.sealed!, blob: new Uint8Array(80) } } : row
    const { authorities } = createTestServer({ store: tampered(damage), clock, name: 'two' })
    await expect(authorities.reload()).rejects.toMatchObject({ code: 'key_unsealable' })
    damaged = false
    await authorities.reload()
    expect(authorities.jwtIssuer(2)).toBeDefined()
  })

  test('a key held in another process’s memory is not ours', async () => {
    await createTestServer({ store, clock, name: 'one', holder: 'one' }).rotator.step()
    const again = createTestServer({ store, clock, name: 'again', holder: 'one' })
    await expect(again.authorities.reload()).rejects.toMatchObject({ code: 'key_missing' })
  })
})

describe('who may stand at the door', () => {
  test('leaves of live intermediates, by class', async () => {
    const { authorities } = await started()
    const id = (cluster: number) => authorities.x509Issuer(cluster).authority.authorityId
    expect(authorities.isLiveIssuer(id(1))).toEqual({
      clusterId: 1,
      kind: 'x509_intermediate',
      state: 'active',
      leafIdClass: 'reserved',
    })
    expect(authorities.isLiveIssuer(id(2))).toMatchObject({ leafIdClass: 'workload' })
    expect(authorities.isLiveIssuer('00'.repeat(20))).toBeUndefined()
    expect(authorities.isLiveIssuer('')).toBeUndefined()
  })

  test('a root signs no leaves, and a JWT key no certificates', async () => {
    const { authorities } = await started()
    const rows = authorities.rows()
    const root = rows.find((row) => row.kind === 'x509_root')!
    expect(authorities.isLiveIssuer(root.authorityId)).toBeUndefined()
    expect(authorities.isLiveIssuer(authorities.jwtIssuer(2).authority.authorityId)).toBeUndefined()
  })

  test.each([
    ['prepared', true],
    ['active', true],
    ['old', true],
    ['tainted', true],
    ['revoked', false],
  ] as const)('%s: %s', async (state, alive) => {
    const { authorities } = await started()
    const { id, authorityId } = authorities.x509Issuer(1).authority
    store.setState(id, state)
    await authorities.reload()
    expect(authorities.isLiveIssuer(authorityId)?.state).toBe(alive ? state : undefined)
  })

  test('not after it expired, whether pruned or not', async () => {
    const { authorities } = await started()
    const { authorityId } = authorities.x509Issuer(1).authority
    clock.advanceSeconds(DAY - 1)
    expect(authorities.isLiveIssuer(authorityId)).toBeDefined()
    clock.advanceSeconds(1)
    expect(authorities.isLiveIssuer(authorityId)).toBeUndefined()
  })

  test('own roots leave out revoked and expired ones', async () => {
    const { authorities } = await started()
    expect(authorities.ownRoots()).toHaveLength(1)
    store.setState(authorities.rows().find((row) => row.kind === 'x509_root')!.id, 'revoked')
    await authorities.reload()
    expect(authorities.ownRoots()).toEqual([])
  })
})
