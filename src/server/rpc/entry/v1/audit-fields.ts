/** What the audit log tells of an entry (features.md §4.6), as given by the caller. */
import type { LogFields } from '../../../../base/ports.ts'
import type { SpiffeId } from '../../../../spiffe/spiffe-id.ts'
import type { TrustDomain } from '../../../../spiffe/trust-domain.ts'
import {
  memberIdFromProto,
  spiffeIdFromProto,
  workloadIdFromProto,
} from '../../../../wire/convert/spiffe-id.ts'
import type { ListEntriesRequest_Filter } from '../../../../wire/gen/spire/api/server/entry/v1/entry.ts'
import type { Entry, EntryMask } from '../../../../wire/gen/spire/api/types/entry.ts'
import type { Selector } from '../../../../wire/gen/spire/api/types/selector.ts'
import { integerField, matchField } from '../../audit.ts'

export function entryAuditFields(entry: Entry, mask?: EntryMask): LogFields {
  const keep = (bit: keyof EntryMask): boolean => mask === undefined || mask[bit]
  const texts: Record<string, string> = {
    entry_id: entry.id,
    selectors: keep('selectors') ? selectorsText(entry.selectors) : '',
    federates_with: keep('federatesWith') ? entry.federatesWith.join(',') : '',
    dns_name: keep('dnsNames') ? entry.dnsNames.join(',') : '',
  }
  return {
    ...(keep('spiffeId') && idField('spiffe_id', () => spiffeIdFromProto(entry.spiffeId))),
    ...(keep('parentId') && idField('parent_id', () => spiffeIdFromProto(entry.parentId))),
    ...Object.fromEntries(Object.entries(texts).filter(([, text]) => text !== '')),
    ...(keep('x509SvidTtl') && { x509_svid_ttl: entry.x509SvidTtl }),
    ...(keep('jwtSvidTtl') && { jwt_svid_ttl: entry.jwtSvidTtl }),
    ...(keep('admin') && { admin: entry.admin }),
    ...(keep('downstream') && { downstream: entry.downstream }),
    ...(keep('expiresAt') && { expires_at: integerField(entry.expiresAt) }),
    ...(keep('revisionNumber') && { revision_number: integerField(entry.revisionNumber) }),
    ...(keep('storeSvid') && { store_svid: entry.storeSvid }),
    ...(keep('hint') && { hint: entry.hint }),
    ...(keep('createdAt') && { created_at: integerField(entry.createdAt) }),
  }
}

/** What CountEntries and ListEntries were asked to filter by. */
export function entryFilterFields(
  filter: ListEntriesRequest_Filter | undefined,
  trustDomain: TrustDomain,
): LogFields {
  if (filter === undefined) return {}
  const { bySpiffeId, byParentId, bySelectors, byFederatesWith, byHint, byDownstream } = filter
  return {
    ...(byHint !== undefined && { hint: byHint }),
    ...idField('parent_id', () => memberIdFromProto(byParentId, trustDomain)),
    ...idField('spiffe_id', () => workloadIdFromProto(bySpiffeId, trustDomain)),
    ...(bySelectors && {
      by_selector_match: matchField(bySelectors.match),
      by_selectors: selectorsText(bySelectors.selectors),
    }),
    ...(byFederatesWith && {
      federates_with_match: matchField(byFederatesWith.match),
      federates_with: byFederatesWith.trustDomains.join(','),
    }),
    ...(byDownstream !== undefined && { downstream: byDownstream }),
  }
}

function selectorsText(selectors: readonly Selector[]): string {
  return selectors.map(({ type, value }) => `${type}:${value}`).join(',')
}

/** What is absent or no such ID leaves no field. */
function idField(name: string, read: () => SpiffeId): LogFields {
  try {
    return { [name]: read().toString() }
  } catch {
    return {}
  }
}
