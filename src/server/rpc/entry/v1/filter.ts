/** Filters of CountEntries and ListEntries (api.md §5.4, §7.3): all given ones must hold. */
import type { TrustDomain } from '../../../../spiffe/trust-domain.ts'
import { prefixed } from '../../../../wire/convert/prefixed.ts'
import {
  matchBehaviorFromProto,
  selectorKeysFromProto,
  trustDomainNamesFromProto,
} from '../../../../wire/convert/selector.ts'
import { memberIdFromProto, workloadIdFromProto } from '../../../../wire/convert/spiffe-id.ts'
import type { ListEntriesRequest_Filter } from '../../../../wire/gen/spire/api/server/entry/v1/entry.ts'
import type { EntryFilter } from '../../../ports.ts'
import { invalidArgument } from '../../failure.ts'

export function entryFilterFromProto(
  filter: ListEntriesRequest_Filter | undefined,
  trustDomain: TrustDomain,
): EntryFilter {
  if (filter === undefined) return {}
  const { bySpiffeId, byParentId, bySelectors, byFederatesWith, byHint, byDownstream } = filter
  return {
    ...(byParentId && {
      parentId: prefixed('malformed parent ID filter', () =>
        memberIdFromProto(byParentId, trustDomain),
      ),
    }),
    ...(bySpiffeId && {
      spiffeId: prefixed('malformed SPIFFE ID filter', () =>
        workloadIdFromProto(bySpiffeId, trustDomain),
      ),
    }),
    ...(bySelectors && {
      selectors: {
        keys: prefixed('malformed selectors filter', () =>
          nonEmpty(selectorKeysFromProto(bySelectors.selectors), 'empty selector set'),
        ),
        match: matchBehaviorFromProto(bySelectors.match, 'selectors '),
      },
    }),
    ...(byFederatesWith && {
      federatesWith: {
        keys: prefixed('malformed federates with filter', () =>
          nonEmpty(
            trustDomainNamesFromProto(byFederatesWith.trustDomains),
            'empty trust domain set',
          ),
        ),
        match: matchBehaviorFromProto(byFederatesWith.match, 'federates with '),
      },
    }),
    // An empty hint filters nothing, as in SPIRE.
    ...(byHint !== undefined && byHint !== '' && { hint: byHint }),
    // False filters nothing, as in SPIRE: its CLI sends it whenever the flag is not given.
    ...(byDownstream === true && { downstream: true as const }),
  }
}

function nonEmpty(keys: readonly string[], text: string): readonly string[] {
  if (keys.length === 0) throw invalidArgument(text)
  return keys
}
