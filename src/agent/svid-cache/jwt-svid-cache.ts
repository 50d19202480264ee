/**
 * Cached JWT-SVIDs: a hard-capped LRU keyed by SPIFFE ID and audience (api.md §11.5). Tokens are
 * secrets of the workload: they are never logged and never written to disk.
 */
import { createHash } from 'node:crypto'
import type { EpochSeconds } from '../../base/ports.ts'

export interface CachedJwtSvid {
  readonly token: string
  readonly spiffeId: string
  readonly issuedAt: EpochSeconds
  readonly expiresAt: EpochSeconds
  /** Of the header, to drop tokens of a tainted key. */
  readonly keyId: string
  /** Fractional; drawn once when the token arrived. */
  readonly renewAt: number
}

/** Order of audiences does not matter to who may use the token, so it does not to the key. */
export function jwtSvidKey(spiffeId: string, audience: readonly string[]): string {
  const hash = createHash('sha256').update(`${spiffeId}\0`)
  for (const one of [...audience].sort()) hash.update(`${one}\0`)
  return hash.digest('base64')
}

export class JwtSvidCache {
  readonly #sizeMax: number
  /** Insertion order is use order: the first is the least recently used. */
  readonly #svids = new Map<string, CachedJwtSvid>()

  constructor(sizeMax: number) {
    this.#sizeMax = sizeMax
  }

  get size(): number {
    return this.#svids.size
  }

  get(key: string): CachedJwtSvid | undefined {
    const svid = this.#svids.get(key)
    if (svid === undefined) return undefined
    this.#svids.delete(key)
    this.#svids.set(key, svid)
    return svid
  }

  set(key: string, svid: CachedJwtSvid): void {
    this.#svids.delete(key)
    if (this.#svids.size >= this.#sizeMax) {
      const oldest = this.#svids.keys().next()
      if (!oldest.done) this.#svids.delete(oldest.value)
    }
    this.#svids.set(key, svid)
  }

  /** Drops tokens signed by these keys; how many per key. */
  dropKeys(keyIds: ReadonlySet<string>): Map<string, number> {
    const dropped = new Map<string, number>()
    for (const [key, svid] of this.#svids) {
      if (!keyIds.has(svid.keyId)) continue
      this.#svids.delete(key)
      dropped.set(svid.keyId, (dropped.get(svid.keyId) ?? 0) + 1)
    }
    return dropped
  }
}
