/** Filters of CountEntries and ListEntries (api.md §5.4, §7.3): all given ones must hold. */
import type { TrustDomain } from '../../../../spiffe/trust-domain.ts'
import { prefixed } from '../../../../wire/convert/prefixed.ts'
import {
  federatesWithMatchFromProto,
  type KeySetMatch,
  selectorMatchFromProto,
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
      selectors: prefixed('malformed selectors filter', () =>
        nonEmpty(selectorMatchFromProto(bySelectors), 'empty selector set'),
      ),
    }),
    ...(byFederatesWith && {
      federatesWith: prefixed('malformed federates with filter', () =>
        nonEmpty(federatesWithMatchFromProto(byFederatesWith), 'empty trust domain set'),
      ),
    }),
    // An empty hint filters nothing, as in SPIRE.
    ...(byHint !== undefined && byHint !== '' && { hint: byHint }),
    // False filters nothing, as in SPIRE: its CLI sends it whenever the flag is not given.
    ...(byDownstream === true && { downstream: true as const }),
  }
}

function nonEmpty(match: KeySetMatch, text: string): KeySetMatch {
  if (match.keys.length === 0) throw invalidArgument(text)
  return match
}
