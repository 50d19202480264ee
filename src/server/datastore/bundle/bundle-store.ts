/** `BundleStore` on PostgreSQL (server/ports.ts). */
import type { Bundle } from '../../../spiffe/bundle.ts'
import type { BundleStore, Page, PageRequest } from '../../ports.ts'
import type { StoreContext } from '../context.ts'
import { Conditions, pageClause, queryCount } from '../paging.ts'
import { deleteBundle, pruneBundle } from './remove-bundle.ts'
import { type StoredBundle, selectBundles } from './row.ts'
import { appendBundle, createBundle, setBundle, updateBundle } from './write-bundle.ts'

export function createBundleStore({ db }: StoreContext): BundleStore {
  return {
    getBundle: async (trustDomain) => {
      const [bundle] = await selectBundles(db, 'where b.trust_domain = $1', [trustDomain])
      return bundle && withoutRowId(bundle)
    },
    listBundles: (page) => listBundles({ db }, page),
    countBundles: () => queryCount(db, 'signet.bundle', new Conditions()),
    appendBundle: (bundle, actor) => db.transaction((tx) => appendBundle(tx, bundle, actor)),
    createBundle: (bundle, actor) => db.transaction((tx) => createBundle(tx, bundle, actor)),
    updateBundle: (bundle, actor) => db.transaction((tx) => updateBundle(tx, bundle, actor)),
    setBundle: (bundle, actor) => db.transaction((tx) => setBundle(tx, bundle, actor)),
    deleteBundle: (trustDomain, mode, actor) =>
      db.transaction((tx) => deleteBundle(tx, trustDomain, mode, actor)),
    pruneBundle: (trustDomain, expiredBefore, actor) =>
      db.transaction((tx) => pruneBundle(tx, trustDomain, expiredBefore, actor)),
  }
}

async function listBundles(
  { db }: Pick<StoreContext, 'db'>,
  page: PageRequest,
): Promise<Page<Bundle>> {
  const conditions = new Conditions()
  const clause = pageClause(conditions, page)
  const bundles = await selectBundles(db, clause, conditions.values)
  const last = bundles.at(-1)
  const nextToken = page.size > 0 && last !== undefined ? String(last.rowId) : ''
  return { rows: bundles.map(withoutRowId), nextToken }
}

function withoutRowId({ rowId: _, ...bundle }: StoredBundle): Bundle {
  return bundle
}
