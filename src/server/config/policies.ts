/** Rate limits, pruning and how old a cached node record may be (features.md §1.2, §5.3). */
import { refuse } from '../../base/config/document.ts'
import { readDurationMs, readDurationSeconds } from '../../base/config/shared.ts'
import type { RawServer } from './raw.ts'
import type { ServerConfig, ServerRateLimit } from './types.ts'

const DEFAULT_PRUNE_BATCH_SIZE = 1000
const DEFAULT_ATTESTATION_PER_SECOND = 1

export function readRateLimit(server: RawServer): ServerRateLimit {
  const perSecond = server.ratelimit?.attestation_per_second ?? DEFAULT_ATTESTATION_PER_SECOND
  if (perSecond < 1) {
    throw refuse(
      'ratelimit.attestation_per_second must be at least 1; attestation = false lifts it',
    )
  }
  return {
    attestation: server.ratelimit?.attestation ?? true,
    attestationPerSecond: perSecond,
    signing: server.ratelimit?.signing ?? true,
  }
}

export function readPruning(
  server: RawServer,
): Pick<ServerConfig, 'pruning' | 'maxAttestedNodeInfoStalenessMs'> {
  const expiredFor = server.prune_attested_nodes_expired_for
  const staleness = server.max_attested_node_info_staleness
  const batchSize = server.prune_attested_nodes_batch_size || DEFAULT_PRUNE_BATCH_SIZE
  if (batchSize < 0) throw refuse('prune_attested_nodes_batch_size must not be negative')
  return {
    pruning: {
      nodesExpiredForSeconds: expiredFor
        ? readDurationSeconds('could not parse prune_attested_nodes_expired_for', expiredFor)
        : 0,
      nodesBatchSize: batchSize,
      includeTofuNodes: server.prune_tofu_nodes ?? false,
    },
    maxAttestedNodeInfoStalenessMs:
      staleness === undefined
        ? 0
        : readDurationMs(
            `could not parse max attested node staleness ${JSON.stringify(staleness)}`,
            staleness,
          ),
  }
}
