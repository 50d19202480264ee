import { expect, test } from 'vitest'
import type { PageRequest } from '../../../src/server/ports.ts'
import { createBundleCache } from '../../../src/server/sync/bundle-cache.ts'
import type { Bundle } from '../../../src/spiffe/bundle.ts'
import { TrustDomain } from '../../../src/spiffe/trust-domain.ts'
import { makeBundle, OWN } from '../../rigs/sync-rig.ts'

function create() {
  const rows = new Map<string, Bundle>([
    [OWN, makeBundle(OWN)],
    ['a.test', makeBundle('a.test')],
  ])
  let failure: Error | undefined
  const cache = createBundleCache({
    trustDomain: TrustDomain.parse(OWN),
    source: {
      async getBundle(name) {
        if (failure) throw failure
        const bundle = rows.get(name)
        // Read anew each time, as from a database.
        return bundle && structuredClone(bundle)
      },
      /** One row a page; the last page is empty. */
      async listBundles({ token }: PageRequest) {
        const at = Number(token || 0)
        const row = [...rows.values()][at]
        return row ? { rows: [row], nextToken: String(at + 1) } : { rows: [], nextToken: '' }
      },
    },
  })
  const heard: (readonly string[])[] = []
  cache.onChange((names) => void heard.push(names))
  const fail = (error: Error | undefined) => {
    failure = error
  }
  return { rows, cache, heard, fail }
}

const change = (id: string) => ({ kind: 'bundle', id }) as const

test('all pages are loaded; the own bundle is a lookup', async () => {
  const { cache } = create()
  expect(await cache.ownBundle()).toBeUndefined()
  await cache.load()
  expect(await cache.ownBundle()).toBe(cache.get(OWN))
  expect(cache.get('a.test')?.sequenceNumber).toBe(1n)
})

test('only what really changed is told, and the object stays the same otherwise', async () => {
  const { cache, rows, heard } = create()
  await cache.load()
  const before = cache.get('a.test')
  await cache.handleChanges([change('a.test'), change('unknown.test'), { kind: 'entry', id: 'x' }])
  expect(cache.get('a.test')).toBe(before)
  expect(heard).toEqual([[OWN, 'a.test']])
  rows.set('a.test', {
    ...makeBundle('a.test'),
    x509Authorities: [{ certificate: new Uint8Array(8), tainted: true }],
  })
  rows.delete(OWN)
  await cache.handleChanges([change('a.test'), change(OWN), change('a.test')])
  expect(heard.at(-1)).toEqual(['a.test', OWN])
  expect(cache.get(OWN)).toBeUndefined()
})

test.each([
  ['refresh hint', { refreshHintSeconds: 5 }],
  ['sequence number', { sequenceNumber: 2n }],
  ['fewer authorities', { x509Authorities: [] }],
  ['another certificate', { x509Authorities: [{ certificate: Uint8Array.of(1), tainted: false }] }],
  ['a JWT key', { jwtAuthorities: [jwtKey({})] }],
])('a change of the %s is seen', async (_name, fields) => {
  const { cache, rows, heard } = create()
  await cache.load()
  rows.set(OWN, { ...makeBundle(OWN), ...fields })
  await cache.handleChanges([change(OWN)])
  expect(heard.at(-1)).toEqual([OWN])
})

test.each([
  [{ keyId: 'other' }],
  [{ expiresAt: 1 }],
  [{ tainted: true }],
  [{ publicKey: Uint8Array.of(9) }],
])('a change of a JWT key is seen: %o', async (fields) => {
  const { cache, rows, heard } = create()
  rows.set(OWN, { ...makeBundle(OWN), jwtAuthorities: [jwtKey({})] })
  await cache.load()
  rows.set(OWN, { ...makeBundle(OWN), jwtAuthorities: [jwtKey(fields)] })
  await cache.handleChanges([change(OWN)])
  expect(heard).toHaveLength(2)
})

test('a failed read changes nothing and may be repeated', async () => {
  const { cache, rows, fail } = create()
  await cache.load()
  rows.set(OWN, makeBundle(OWN, 2n))
  fail(new Error('away'))
  await expect(cache.handleChanges([change(OWN)])).rejects.toThrow('away')
  expect(cache.get(OWN)?.sequenceNumber).toBe(1n)
  fail(undefined)
  await cache.handleChanges([change(OWN)])
  expect(cache.get(OWN)?.sequenceNumber).toBe(2n)
})

function jwtKey(fields: Partial<Bundle['jwtAuthorities'][number]>) {
  return { keyId: 'k', publicKey: Uint8Array.of(1), expiresAt: 0, tainted: false, ...fields }
}
