/**
 * All stored bundles in memory, own and federated, kept in step by the change log like the entry
 * cache. There are a few per trust domain federated with; answers go on while the database is away.
 */
import { PAGE_SIZE_MAX } from '../../base/limits.ts'
import type { Bundle } from '../../spiffe/bundle.ts'
import type { TrustDomain } from '../../spiffe/trust-domain.ts'
import type { BundleLookup } from '../lookups.ts'
import type { BundleStore, Change } from '../ports.ts'

/** Also a consumer of the change feed. */
export interface BundleCache extends BundleLookup {
  readonly name: string
  /** By bare name. The same object until the bundle changes. */
  get(trustDomain: string): Bundle | undefined
  load(): Promise<void>
  /** Rejects when the database can't be read; the same changes may then be given again. */
  handleChanges(changes: readonly Change[]): Promise<void>
  /** Called with the names that changed or went, after the cache has them. */
  onChange(listener: (trustDomains: readonly string[]) => void): Disposable
}

export function createBundleCache(deps: {
  readonly trustDomain: TrustDomain
  readonly source: Pick<BundleStore, 'getBundle' | 'listBundles'>
}): BundleCache {
  const { source } = deps
  const bundles = new Map<string, Bundle>()
  const listeners = new Set<(trustDomains: readonly string[]) => void>()
  let last: Promise<unknown> = Promise.resolve()

  const take = (name: string, next: Bundle | undefined): boolean => {
    const before = bundles.get(name)
    if (before === undefined && next === undefined) return false
    if (before !== undefined && next !== undefined && sameBundle(before, next)) return false
    if (next === undefined) bundles.delete(name)
    else bundles.set(name, next)
    return true
  }
  const inTurn = (work: () => Promise<string[]>) => {
    const turn = last.then(async () => {
      const changed = await work()
      if (changed.length > 0) for (const listener of listeners) listener(changed)
    })
    last = turn.catch(() => undefined)
    return turn
  }

  return {
    name: 'bundle_cache',
    get: (name) => bundles.get(name),
    ownBundle: async () => bundles.get(deps.trustDomain.name),
    load: () =>
      inTurn(async () => {
        const read = await readAll(source)
        const names = new Set([...bundles.keys(), ...read.keys()])
        return [...names].filter((name) => take(name, read.get(name)))
      }),
    handleChanges: (changes) =>
      inTurn(async () => {
        const ids = changes.filter((change) => change.kind === 'bundle').map(({ id }) => id)
        const changed: string[] = []
        for (const id of new Set(ids)) {
          if (take(id, await source.getBundle(id))) changed.push(id)
        }
        return changed
      }),
    onChange(listener) {
      listeners.add(listener)
      return { [Symbol.dispose]: () => void listeners.delete(listener) }
    },
  }
}

async function readAll(source: Pick<BundleStore, 'listBundles'>): Promise<Map<string, Bundle>> {
  const read = new Map<string, Bundle>()
  let token = ''
  do {
    const page = await source.listBundles({ size: PAGE_SIZE_MAX, token })
    for (const bundle of page.rows) read.set(bundle.trustDomain, bundle)
    token = page.nextToken
  } while (token !== '')
  return read
}

/** In full, not by the sequence number alone: a restored database counts anew. */
function sameBundle(a: Bundle, b: Bundle): boolean {
  return (
    a.sequenceNumber === b.sequenceNumber &&
    a.refreshHintSeconds === b.refreshHintSeconds &&
    a.x509Authorities.length === b.x509Authorities.length &&
    a.jwtAuthorities.length === b.jwtAuthorities.length &&
    a.x509Authorities.every((x, n) => {
      const y = b.x509Authorities[n]!
      return x.tainted === y.tainted && Buffer.compare(x.certificate, y.certificate) === 0
    }) &&
    a.jwtAuthorities.every((x, n) => {
      const y = b.jwtAuthorities[n]!
      return (
        x.keyId === y.keyId &&
        x.expiresAt === y.expiresAt &&
        x.tainted === y.tainted &&
        Buffer.compare(x.publicKey, y.publicKey) === 0
      )
    })
  )
}
