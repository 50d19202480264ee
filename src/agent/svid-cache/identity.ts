/**
 * An entry's X509-SVID as it is served, and what of it stays when the entry changes: a workload
 * never loses an identity for just as long as the signing of its successor takes. Pure.
 */
import type { EpochSeconds } from '../../base/ports.ts'
import type { AuthorizedEntry } from '../entry.ts'

export interface CachedX509Svid {
  /** DER, leaf first. */
  readonly chain: readonly Uint8Array[]
  /** PKCS#8 DER. */
  readonly privateKey: Uint8Array
  readonly notBefore: EpochSeconds
  readonly notAfter: EpochSeconds
  /** Fractional; drawn once when the SVID arrived. */
  readonly renewAt: number
  /** The entry's revision when it was asked for: another one asks again. */
  readonly revisionNumber: bigint
}

export interface Identity {
  /** As it was when the SVID was asked for: what is shown of it changes with the SVID. */
  readonly entry: AuthorizedEntry
  readonly svid: CachedX509Svid
}

export function isAlive(identity: Identity | undefined, now: EpochSeconds): identity is Identity {
  return identity !== undefined && identity.svid.notAfter > now
}

/** To be renewed at the next look, and served until then. */
export function madeDue({ entry, svid }: Identity): Identity {
  return { entry, svid: { ...svid, renewAt: 0 } }
}

/**
 * What may still be served of an entry that changed. As in SPIRE, a change is shown when the SVID
 * of the new revision is there; a SPIFFE ID that the entry no longer has is not served to anybody
 * who does not have it already.
 */
export function identityAfter(
  identity: Identity,
  before: AuthorizedEntry,
  entry: AuthorizedEntry,
): Identity | undefined {
  if (!sameSpiffeId(before, entry)) return undefined
  // No new SVID is on its way that the change could wait for.
  const isSigned = identity.svid.revisionNumber === entry.revisionNumber
  const kept = isSigned ? { entry, svid: identity.svid } : identity
  // Deleted and made anew under one ID: revisions of the two say nothing about each other.
  return before.createdAt === entry.createdAt ? kept : madeDue(kept)
}

/** Of what listeners have: what an entry that waits for its SVID will give in another form. */
export function replacedSoon(
  shown: readonly Identity[],
  current: readonly Identity[],
  waiting: readonly AuthorizedEntry[],
): Identity[] {
  if (waiting.length === 0) return []
  const present = new Set(current.map(({ entry }) => entry.spiffeId.toString()))
  const awaited = new Set(waiting.flatMap((entry) => [entry.id, entry.spiffeId.toString()]))
  return shown.filter(({ entry }) => {
    const spiffeId = entry.spiffeId.toString()
    return !present.has(spiffeId) && (awaited.has(entry.id) || awaited.has(spiffeId))
  })
}

export function sameSpiffeId(a: AuthorizedEntry, b: AuthorizedEntry): boolean {
  return a.spiffeId.equals(b.spiffeId)
}
