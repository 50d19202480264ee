/** Whether two versions of an entry say the same, so that a change read twice is pushed once. */
import type { RegistrationEntry } from '../../spiffe/registration-entry.ts'
import { isSubset, selectorKey } from '../../spiffe/selector.ts'

/**
 * Every field is compared, not just the revision: dissociating a deleted bundle changes
 * `federatesWith` alone, and a restored database counts revisions anew.
 */
export function sameEntry(a: RegistrationEntry, b: RegistrationEntry): boolean {
  return (
    a.revisionNumber === b.revisionNumber &&
    a.createdAt === b.createdAt &&
    a.spiffeId.equals(b.spiffeId) &&
    a.parentId.equals(b.parentId) &&
    a.x509SvidTtlSeconds === b.x509SvidTtlSeconds &&
    a.jwtSvidTtlSeconds === b.jwtSvidTtlSeconds &&
    a.admin === b.admin &&
    a.downstream === b.downstream &&
    a.expiresAt === b.expiresAt &&
    a.storeSvid === b.storeSvid &&
    a.hint === b.hint &&
    a.disableX509SvidPrefetch === b.disableX509SvidPrefetch &&
    a.jwtSvidIncludeJti === b.jwtSvidIncludeJti &&
    sameList(a.federatesWith, b.federatesWith) &&
    sameList(a.dnsNames, b.dnsNames) &&
    sameSelectors(a, b)
  )
}

/** As sets: neither order nor repetition means anything. */
export function sameSelectors(
  a: Pick<RegistrationEntry, 'selectors'>,
  b: Pick<RegistrationEntry, 'selectors'>,
): boolean {
  const keys = new Set(a.selectors.map(selectorKey))
  const others = new Set(b.selectors.map(selectorKey))
  return keys.size === others.size && isSubset(keys, others)
}

function sameList(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((item, index) => item === b[index])
}
