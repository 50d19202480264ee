/** Key type, availability target and cache sizes of the SVIDs an agent keeps (features.md §1.3). */
import { refuse } from '../../base/config/document.ts'
import { readDurationSeconds } from '../../base/config/shared.ts'
import type { RawAgent } from './raw.ts'
import type { AgentConfig } from './types.ts'

const KEY_TYPES = ['rsa-2048', 'ec-p256', 'ec-p384'] as const
const AVAILABILITY_TARGET_SECONDS_MIN = 24 * 3600
const DEFAULT_CACHE_SIZE = 1000

type Issuance = Pick<
  AgentConfig,
  | 'workloadX509SvidKeyType'
  | 'availabilityTargetSeconds'
  | 'x509SvidCacheMaxSize'
  | 'jwtSvidCacheMaxSize'
>

export function readIssuance(agent: RawAgent): Issuance {
  return {
    workloadX509SvidKeyType: readKeyType(agent.workload_x509_svid_key_type),
    availabilityTargetSeconds: readAvailabilityTarget(agent.availability_target),
    x509SvidCacheMaxSize: readCacheSize('x509_svid_cache_max_size', agent.x509_svid_cache_max_size),
    jwtSvidCacheMaxSize: readCacheSize('jwt_svid_cache_max_size', agent.jwt_svid_cache_max_size),
  }
}

function readKeyType(text: string | undefined): Issuance['workloadX509SvidKeyType'] {
  if (!text) return 'ec-p256'
  const type = KEY_TYPES.find((known) => known === text.toLowerCase())
  if (type !== undefined) return type
  throw refuse(
    `key type ${JSON.stringify(text)} is unknown; must be one of [${KEY_TYPES.join(', ')}]`,
  )
}

function readAvailabilityTarget(text: string | undefined): number {
  if (!text) return 0
  const seconds = readDurationSeconds('unable to parse availability_target', text)
  if (seconds < AVAILABILITY_TARGET_SECONDS_MIN) {
    throw refuse('availability_target must be at least 24h0m0s')
  }
  return seconds
}

/** 0 means the default, as SPIRE's caches take it. */
function readCacheSize(key: string, size: number | undefined): number {
  if (size !== undefined && size < 0) throw refuse(`${key} should not be negative`)
  return size || DEFAULT_CACHE_SIZE
}
