/** Filters of CountAgents and ListAgents (api.md §7.1): all given ones must hold. */
import { SignetError } from '../../../../base/error.ts'
import { parseGoTime } from '../../../../wire/convert/go-time.ts'
import { prefixed } from '../../../../wire/convert/prefixed.ts'
import { matchBehaviorFromProto, selectorKeysFromProto } from '../../../../wire/convert/selector.ts'
import type { ListAgentsRequest_Filter } from '../../../../wire/gen/spire/api/server/agent/v1/agent.ts'
import type { AgentFilter } from '../../../ports.ts'

/** The first second of the year 1 stands for no time at all. */
const GO_ZERO_TIME = -62_135_596_800

/**
 * A time that can't be read filters nothing, as in SPIRE, whose store refuses an empty selector set
 * and an unknown match behaviour: internal errors, which come with the call's own words.
 */
export function agentFilterFromProto(filter: ListAgentsRequest_Filter | undefined): AgentFilter {
  if (filter === undefined) return {}
  const { bySelectorMatch, byBanned, byCanReattest } = filter
  const before = parseGoTime(filter.byExpiresBefore)
  const expiresBefore = before === GO_ZERO_TIME ? undefined : before
  return {
    ...(filter.byAttestationType !== '' && { attestationType: filter.byAttestationType }),
    ...(bySelectorMatch && {
      selectors: {
        keys: nonEmpty(
          prefixed('failed to parse selectors', () =>
            selectorKeysFromProto(bySelectorMatch.selectors),
          ),
        ),
        match: matchBehaviorFromProto(bySelectorMatch.match),
      },
    }),
    ...(byBanned !== undefined && { banned: byBanned }),
    ...(byCanReattest !== undefined && { canReattest: byCanReattest }),
    ...(expiresBefore !== undefined && { expiresBefore }),
  }
}

function nonEmpty(keys: readonly string[]): readonly string[] {
  if (keys.length > 0) return keys
  const text = 'cannot list by empty selectors set'
  throw new SignetError('internal', 'empty_selector_set', text)
}
