/** Filters of CountAgents and ListAgents (api.md §7.1): all given ones must hold. */
import { parseGoTime } from '../../../../wire/convert/go-time.ts'
import { prefixed } from '../../../../wire/convert/prefixed.ts'
import { selectorMatchFromProto } from '../../../../wire/convert/selector.ts'
import type { ListAgentsRequest_Filter } from '../../../../wire/gen/spire/api/server/agent/v1/agent.ts'
import type { AgentFilter } from '../../../ports.ts'

/**
 * A time that can't be read filters nothing, as in SPIRE. An empty selector set is the store's to
 * refuse.
 */
export function agentFilterFromProto(filter: ListAgentsRequest_Filter | undefined): AgentFilter {
  if (filter === undefined) return {}
  const { bySelectorMatch, byBanned, byCanReattest } = filter
  const expiresBefore = parseGoTime(filter.byExpiresBefore)
  return {
    ...(filter.byAttestationType !== '' && { attestationType: filter.byAttestationType }),
    ...(bySelectorMatch && {
      selectors: prefixed('failed to parse selectors', () =>
        selectorMatchFromProto(bySelectorMatch),
      ),
    }),
    ...(byBanned !== undefined && { banned: byBanned }),
    ...(byCanReattest !== undefined && { canReattest: byCanReattest }),
    ...(expiresBefore !== undefined && { expiresBefore }),
  }
}
