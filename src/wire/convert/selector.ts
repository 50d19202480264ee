/** Selectors and match filters on the wire (api.md §5.4). */
import { SignetError } from '../../base/error.ts'
import {
  checkSelector,
  type MatchBehavior,
  type Selector,
  selectorKey,
} from '../../spiffe/selector.ts'
import { TrustDomain } from '../../spiffe/trust-domain.ts'
import type { FederatesWithMatch } from '../gen/spire/api/types/federateswith.ts'
import type { SelectorMatch, Selector as SelectorProto } from '../gen/spire/api/types/selector.ts'

/** By number of SelectorMatch.MatchBehavior and FederatesWithMatch.MatchBehavior alike. */
const MATCH_BEHAVIORS: readonly MatchBehavior[] = ['exact', 'subset', 'superset', 'any']

export interface KeySetMatch {
  /** Selector keys or bare trust domain names. */
  readonly keys: readonly string[]
  readonly match: MatchBehavior
}

export function selectorsFromProto(protos: readonly SelectorProto[]): Selector[] {
  return protos.map(({ type, value }) => checkSelector({ type, value }))
}

export function selectorsToProto(selectors: readonly Selector[]): SelectorProto[] {
  return selectors.map(({ type, value }) => ({ type, value }))
}

/** Throws for bad selectors or an unknown behaviour; an empty set is the caller's to judge. */
export function selectorMatchFromProto(proto: SelectorMatch): KeySetMatch {
  const keys = selectorsFromProto(proto.selectors).map(selectorKey)
  return { keys: [...new Set(keys)], match: behaviorFromProto(proto.match) }
}

export function federatesWithMatchFromProto(proto: FederatesWithMatch): KeySetMatch {
  const keys = proto.trustDomains.map((name) => TrustDomain.parse(name).name)
  return { keys: [...new Set(keys)], match: behaviorFromProto(proto.match) }
}

function behaviorFromProto(number: number): MatchBehavior {
  const behavior = MATCH_BEHAVIORS[number]
  if (behavior !== undefined) return behavior
  throw new SignetError(
    'invalid_argument',
    'bad_match_behavior',
    `unsupported match behavior ${number}`,
  )
}
