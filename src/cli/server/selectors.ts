/** `-selector` and the match flags of commands that filter. */
import type { Selector } from '../../wire/gen/spire/api/types/selector.ts'
import { SelectorMatch_MatchBehavior } from '../../wire/gen/spire/api/types/selector.ts'
import { CliError } from '../error.ts'
import { text } from '../flags.ts'

/** Everything after the first colon is the value; both may be empty, the server judges. */
export function selectorFromText(selector: string): Selector {
  const colon = selector.indexOf(':')
  if (colon === -1) {
    throw new CliError(`selector "${selector}" must be formatted as type:value`)
  }
  return { type: selector.slice(0, colon), value: selector.slice(colon + 1) }
}

export function matchFlag(what: string) {
  return text(`How to match ${what}: exact, any, superset or subset`, 'superset')
}

/** Selector and trust domain matches share their numbers on the wire (api.md §5.4). */
export function matchFromText(match: string, complaint: string): SelectorMatch_MatchBehavior {
  switch (match) {
    case 'exact':
      return SelectorMatch_MatchBehavior.MATCH_EXACT
    case 'any':
      return SelectorMatch_MatchBehavior.MATCH_ANY
    case 'superset':
      return SelectorMatch_MatchBehavior.MATCH_SUPERSET
    case 'subset':
      return SelectorMatch_MatchBehavior.MATCH_SUBSET
    default:
      throw new CliError(complaint)
  }
}
