/** Selectors and match filters on the wire (api.md §5.4). */
import { SignetError } from '../../base/error.ts'
import {
  checkSelector,
  type MatchBehavior,
  type Selector,
  selectorKey,
} from '../../spiffe/selector.ts'
import { TrustDomain } from '../../spiffe/trust-domain.ts'
import type { Selector as SelectorProto } from '../gen/spire/api/types/selector.ts'

/** By number of SelectorMatch.MatchBehavior and FederatesWithMatch.MatchBehavior alike. */
const MATCH_BEHAVIORS: readonly MatchBehavior[] = ['exact', 'subset', 'superset', 'any']

export function selectorsFromProto(protos: readonly SelectorProto[]): Selector[] {
  return protos.map(({ type, value }) => checkSelector({ type, value }))
}

export function selectorsToProto(selectors: readonly Selector[]): SelectorProto[] {
  return selectors.map(({ type, value }) => ({ type, value }))
}

/** Each once; an empty set is the caller's to judge. */
export function selectorKeysFromProto(protos: readonly SelectorProto[]): readonly string[] {
  return [...new Set(selectorsFromProto(protos).map(selectorKey))]
}

/** Bare names, each once. */
export function trustDomainNamesFromProto(names: readonly string[]): readonly string[] {
  return [...new Set(names.map((name) => TrustDomain.parse(name).name))]
}

/**
 * `of` names the set in the text. An unknown behaviour is internal: SPIRE leaves it to its store to
 * find.
 */
export function matchBehaviorFromProto(number: number, of = ''): MatchBehavior {
  const behavior = MATCH_BEHAVIORS[number]
  if (behavior !== undefined) return behavior
  const text = `datastore-sql: unhandled ${of}match behavior ${number}`
  throw new SignetError('internal', 'bad_match_behavior', text)
}
