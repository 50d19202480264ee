/**
 * The bundles an agent hands out: its own trust domain's and the federated ones, each with the byte
 * forms that answers carry, made once per bundle and shared by all streams. The own bundle is never
 * removed: without it the server itself could not be authenticated.
 */
import { bytesEqual, concatBytes } from '../../base/bytes.ts'
import type { Bundle } from '../../spiffe/bundle.ts'

export interface TrustBundle extends Bundle {
  /** Concatenated DER of the X.509 authorities. */
  readonly x509: Uint8Array
}

function trustBundle(bundle: Bundle): TrustBundle {
  return { ...bundle, x509: concatBytes(bundle.x509Authorities.map((a) => a.certificate)) }
}

/** Does anything that a workload sees differ? Sequence numbers alone do not count. */
function sameTrust(a: Bundle, b: Bundle): boolean {
  return (
    a.x509Authorities.length === b.x509Authorities.length &&
    a.jwtAuthorities.length === b.jwtAuthorities.length &&
    a.x509Authorities.every((authority, i) => {
      const other = b.x509Authorities[i]!
      return (
        authority.tainted === other.tainted && bytesEqual(authority.certificate, other.certificate)
      )
    }) &&
    a.jwtAuthorities.every((authority, i) => {
      const other = b.jwtAuthorities[i]!
      return (
        authority.keyId === other.keyId &&
        authority.tainted === other.tainted &&
        authority.expiresAt === other.expiresAt &&
        bytesEqual(authority.publicKey, other.publicKey)
      )
    })
  )
}

export class TrustBundles {
  readonly #own: string
  readonly #bundles = new Map<string, TrustBundle>()

  constructor(own: Bundle) {
    this.#own = own.trustDomain
    this.#bundles.set(own.trustDomain, trustBundle(own))
  }

  get own(): TrustBundle {
    return this.#bundles.get(this.#own)!
  }

  get(trustDomain: string): TrustBundle | undefined {
    return this.#bundles.get(trustDomain)
  }

  all(): TrustBundle[] {
    return [...this.#bundles.values()]
  }

  /** Adds or replaces bundles; the trust domains for which trust changed. */
  put(bundles: Iterable<Bundle>): Set<string> {
    const changed = new Set<string>()
    for (const bundle of bundles) {
      const known = this.#bundles.get(bundle.trustDomain)
      if (known !== undefined && sameTrust(known, bundle)) continue
      this.#bundles.set(bundle.trustDomain, trustBundle(bundle))
      changed.add(bundle.trustDomain)
    }
    return changed
  }

  /** Removes every federated bundle that is not in `keep`; those removed. */
  retain(keep: ReadonlySet<string>): Set<string> {
    const removed = new Set<string>()
    for (const trustDomain of this.#bundles.keys()) {
      if (trustDomain === this.#own || keep.has(trustDomain)) continue
      this.#bundles.delete(trustDomain)
      removed.add(trustDomain)
    }
    return removed
  }
}
