/**
 * Keys of SPIRE's server file that Signet does not act on: those that come later are refused by
 * name, those without meaning here are checked for form, accepted and said once.
 */
import { notYet, refuse } from '../../base/config/document.ts'
import { readDurationMs } from '../../base/config/shared.ts'
import type { RawExperimental, RawServer } from './raw.ts'

/** SPIRE's only feature flag at this version (features.md §1.1). */
const FEATURE_FLAGS = ['wit-svid']
const KNOWN_EXPERIMENTAL = new Set([
  'agent_spiffe_id_as_selector',
  'auth_opa_policy_engine',
  'cache_reload_interval',
  'full_cache_reload_interval',
  'events_based_cache',
  'prune_events_older_than',
  'event_timeout',
  'sql_transaction_timeout',
  'require_pq_kem',
  'wit_key_type',
  'wit_issuer',
  'feature_flags',
  'named_pipe_name',
])
/** Tuning of SPIRE's polling caches; ours follows the change log. */
const CACHE_INTERVALS = [
  ['cache_reload_interval', 'cache reload interval'],
  ['full_cache_reload_interval', 'full cache reload interval'],
  ['prune_events_older_than', 'prune events interval'],
  ['sql_transaction_timeout', 'SQL transaction timeout interval'],
  ['event_timeout', 'event timeout interval'],
] as const

const DEPRECATED_TIMEOUT = meaningless('experimental.sql_transaction_timeout is deprecated; it')

export function refuseLater(server: RawServer): void {
  if (server.federation !== undefined) throw notYet('server.federation')
  if ((server.proxy_protocol_trusted_cidrs ?? []).length > 0) {
    throw notYet('server.proxy_protocol_trusted_cidrs')
  }
  const experimental = server.experimental
  if (experimental?.named_pipe_name) {
    throw refuse(
      'invalid configuration: named_pipe_name is not supported in this platform; please use socket_path instead',
    )
  }
  if (experimental?.auth_opa_policy_engine !== undefined) {
    throw notYet('server.experimental.auth_opa_policy_engine')
  }
  if (experimental?.require_pq_kem) throw notYet('server.experimental.require_pq_kem')
  for (const key of ['wit_key_type', 'wit_issuer'] as const) {
    if (experimental?.[key]) throw notYet(`server.experimental.${key}`)
  }
  refuseFeatureFlags(experimental?.feature_flags ?? [])
}

function refuseFeatureFlags(flags: readonly string[]): void {
  const unknown = flags.filter((flag) => !FEATURE_FLAGS.includes(flag)).sort()
  if (unknown.length > 0) {
    throw refuse(`error loading feature flags: unknown feature flag(s): [${unknown.join(' ')}]`)
  }
  if (flags.length > 0) throw notYet(`feature flag "${flags[0]}"`)
}

export function readExperimental(
  raw: RawExperimental,
  notices: string[],
  deprecations: string[],
): { readonly agentSpiffeIdAsSelector: boolean } {
  if (raw?.event_timeout && raw.sql_transaction_timeout) {
    throw refuse(
      'both experimental sql_transaction_timeout and event_timeout set, only set event_timeout',
    )
  }
  for (const [key, what] of CACHE_INTERVALS) {
    const value = raw?.[key]
    if (!value) continue
    readDurationMs(`could not parse ${what}`, value)
    if (key === 'sql_transaction_timeout') deprecations.push(DEPRECATED_TIMEOUT)
    else notices.push(meaningless(`experimental.${key}`))
  }
  if (raw?.events_based_cache !== undefined)
    notices.push(meaningless('experimental.events_based_cache'))
  for (const key of Object.keys(raw ?? {})) {
    if (!KNOWN_EXPERIMENTAL.has(key)) notices.push(`unknown key experimental.${key} is ignored`)
  }
  return { agentSpiffeIdAsSelector: raw?.agent_spiffe_id_as_selector ?? false }
}

function meaningless(key: string): string {
  return `${key} has no meaning here and is ignored: the entry cache follows every change at once`
}
