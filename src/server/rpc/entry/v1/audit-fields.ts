/** What the audit log tells of an entry (features.md §4.6), as given by the caller. */
import type { LogFields } from '../../../../base/ports.ts'
import type { Entry, EntryMask } from '../../../../wire/gen/spire/api/types/entry.ts'
import type { Selector } from '../../../../wire/gen/spire/api/types/selector.ts'
import type { SPIFFEID } from '../../../../wire/gen/spire/api/types/spiffeid.ts'

export function entryAuditFields(entry: Entry, mask?: EntryMask): LogFields {
  const keep = (bit: keyof EntryMask): boolean => mask === undefined || mask[bit]
  const texts: Record<string, string> = {
    entry_id: entry.id,
    spiffe_id: keep('spiffeId') ? idText(entry.spiffeId) : '',
    parent_id: keep('parentId') ? idText(entry.parentId) : '',
    selectors: keep('selectors') ? selectorsText(entry.selectors) : '',
    federates_with: keep('federatesWith') ? entry.federatesWith.join(',') : '',
    dns_name: keep('dnsNames') ? entry.dnsNames.join(',') : '',
  }
  return {
    ...Object.fromEntries(Object.entries(texts).filter(([, text]) => text !== '')),
    ...(keep('x509SvidTtl') && { x509_svid_ttl: entry.x509SvidTtl }),
    ...(keep('jwtSvidTtl') && { jwt_svid_ttl: entry.jwtSvidTtl }),
    ...(keep('admin') && { admin: entry.admin }),
    ...(keep('downstream') && { downstream: entry.downstream }),
    ...(keep('expiresAt') && { expires_at: entry.expiresAt.toString() }),
    ...(keep('storeSvid') && { store_svid: entry.storeSvid }),
    ...(keep('hint') && { hint: entry.hint }),
  }
}

function selectorsText(selectors: readonly Selector[]): string {
  return selectors.map(({ type, value }) => `${type}:${value}`).join(',')
}

function idText(id: SPIFFEID | undefined): string {
  return id === undefined ? '' : `spiffe://${id.trustDomain}${id.path}`
}
