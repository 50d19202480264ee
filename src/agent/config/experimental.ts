/** The agent's `experimental` block: used, refused as not there yet, or said to be meaningless. */
import { notYet, refuse } from '../../base/config/document.ts'
import { readDurationMs } from '../../base/config/shared.ts'
import { formatGoDuration } from '../../base/duration.ts'
import type { RawAgent, RawExperimental } from './raw.ts'
import type { AgentConfig, WorkloadRateLimit } from './types.ts'

const DEFAULT_SYNC_INTERVAL_MS = 5_000
const CACHE_HIT_TIMEOUT_MS_MIN = 5_000
/** Also the default, which only the absence of the key gives. */
const CACHE_HIT_TIMEOUT_MS_MAX = 30_000
const FEATURE_FLAGS = ['wit-svid']
const KNOWN = new Set([
  'sync_interval',
  'jwt_svid_cache_hit_timeout',
  'named_pipe_name',
  'admin_named_pipe_name',
  'use_sync_authorized_entries',
  'require_pq_kem',
  'ratelimit',
  'broker',
  'feature_flags',
])

export function refuseLater(agent: RawAgent): void {
  const experimental = agent.experimental
  if (experimental?.named_pipe_name) {
    throw refuse(
      'invalid configuration: named_pipe_name is not supported in this platform; please use socket_path instead',
    )
  }
  if (experimental?.admin_named_pipe_name) {
    throw refuse(
      'invalid configuration: admin_named_pipe_name is not supported in this platform; please use admin_socket_path instead',
    )
  }
  const flags = experimental?.feature_flags ?? []
  const unknown = flags.filter((flag) => !FEATURE_FLAGS.includes(flag)).sort()
  if (unknown.length > 0) {
    throw refuse(`error loading feature flags: unknown feature flag(s): [${unknown.join(' ')}]`)
  }
  if (flags.length > 0) throw notYet(`feature flag "${flags[0]}"`)
  if (experimental?.broker !== undefined) throw notYet('agent.experimental.broker')
  if (experimental?.require_pq_kem) throw notYet('agent.experimental.require_pq_kem')
}

type Experimental = Pick<
  AgentConfig,
  'syncIntervalMs' | 'useSyncAuthorizedEntries' | 'jwtSvidCacheHitTimeoutMs' | 'rateLimit'
>

export function readExperimental(
  raw: RawExperimental,
  notices: string[],
  deprecations: string[],
): Experimental {
  if (raw?.use_sync_authorized_entries !== undefined) {
    deprecations.push("The 'use_sync_authorized_entries' configuration is deprecated.")
  }
  for (const key of Object.keys(raw ?? {})) {
    if (!KNOWN.has(key)) notices.push(`unknown key experimental.${key} is ignored`)
  }
  return {
    syncIntervalMs: raw?.sync_interval
      ? readDurationMs('could not parse synchronization interval', raw.sync_interval)
      : DEFAULT_SYNC_INTERVAL_MS,
    useSyncAuthorizedEntries: raw?.use_sync_authorized_entries ?? true,
    jwtSvidCacheHitTimeoutMs: readCacheHitTimeout(raw?.jwt_svid_cache_hit_timeout),
    rateLimit: readRateLimit(raw),
  }
}

function readCacheHitTimeout(text: string | undefined): number {
  if (!text) return CACHE_HIT_TIMEOUT_MS_MAX
  const ms = readDurationMs('could not parse jwt_svid_cache_hit_timeout', text)
  const shown = formatGoDuration(ms)
  if (ms < CACHE_HIT_TIMEOUT_MS_MIN) {
    throw refuse(`jwt_svid_cache_hit_timeout (${shown}) must be greater than 5s`)
  }
  if (ms >= CACHE_HIT_TIMEOUT_MS_MAX) {
    throw refuse(`jwt_svid_cache_hit_timeout (${shown}) must be less than 30s`)
  }
  return ms
}

function readRateLimit(raw: RawExperimental): WorkloadRateLimit {
  const limits = raw?.ratelimit ?? {}
  for (const [key, value] of Object.entries(limits)) {
    if (value !== undefined && value < 0) {
      throw refuse(`experimental.ratelimit.${key} must not be negative`)
    }
  }
  return {
    fetchX509Svid: limits.fetch_x509_svid ?? 0,
    fetchJwtSvid: limits.fetch_jwt_svid ?? 0,
    fetchX509Bundles: limits.fetch_x509_bundles ?? 0,
    fetchJwtBundles: limits.fetch_jwt_bundles ?? 0,
    streamSecrets: limits.stream_secrets ?? 0,
    fetchSecrets: limits.fetch_secrets ?? 0,
  }
}
