/**
 * Selectors and the four ways to match sets of them (api.md §5.4). The text form is `type:value`;
 * the type has no colon, the value may.
 */
import { SignetError } from '../base/error.ts'

export interface Selector {
  readonly type: string
  readonly value: string
}

export type MatchBehavior = 'exact' | 'subset' | 'superset' | 'any'

/** Throws invalid_argument with SPIRE's text. */
export function checkSelector(selector: Selector): Selector {
  if (selector.type === '') throw invalid('missing selector type')
  if (selector.type.includes(':')) throw invalid("selector type contains ':'")
  if (selector.value === '') throw invalid('missing selector value')
  return selector
}

export function parseSelector(text: string): Selector {
  const colon = text.indexOf(':')
  if (colon <= 0) {
    throw invalid(`selector ${JSON.stringify(text)} must be formatted as type:value`)
  }
  return checkSelector({ type: text.slice(0, colon), value: text.slice(colon + 1) })
}

/** Also the set key: equal selectors have equal keys. */
export function selectorKey(selector: Selector): string {
  return `${selector.type}:${selector.value}`
}

export function dedupeSelectors(selectors: readonly Selector[]): Selector[] {
  return [...new Map(selectors.map((s) => [selectorKey(s), s])).values()]
}

export function isSubset(small: ReadonlySet<string>, large: ReadonlySet<string>): boolean {
  if (small.size > large.size) return false
  for (const key of small) if (!large.has(key)) return false
  return true
}

function invalid(text: string): SignetError {
  return new SignetError('invalid_argument', 'bad_selector', text)
}
