/**
 * The shape of the server's checked configuration: every default filled in, nothing optional left.
 */
import type { HealthChecksConfig, LogConfig, TelemetryConfig } from '../../base/config/types.ts'
import type { SigningKeyType } from '../../ca/signer/port.ts'
import type { SpiffeId } from '../../spiffe/spiffe-id.ts'
import type { TrustDomain } from '../../spiffe/trust-domain.ts'

export interface ServerConfig {
  readonly trustDomain: TrustDomain
  /** Absolute. Holds the embedded PostgreSQL and the default key-encryption key. */
  readonly dataDir: string
  readonly bindAddress: string
  readonly bindPort: number
  /** Absolute path of the private Unix socket (admin API). */
  readonly socketPath: string
  /** Static admins, own or federated trust domain, without an entry. */
  readonly adminIds: readonly SpiffeId[]
  readonly agentTtlSeconds: number
  readonly defaultX509SvidTtlSeconds: number
  readonly defaultJwtSvidTtlSeconds: number
  /** Life of intermediates and JWT keys. */
  readonly caTtlSeconds: number
  /** Life of the root (`root_ttl`, ours); with KeyManager `memory` the root lives `caTtlSeconds`. */
  readonly rootTtlSeconds: number
  readonly caKeyType: SigningKeyType
  readonly jwtKeyType: SigningKeyType
  readonly caSubject: CaSubject
  /** The `iss` claim; empty means no such claim. */
  readonly jwtIssuer: string
  readonly disableJwtSvids: boolean
  readonly auditLogEnabled: boolean
  readonly log: LogConfig
  readonly rateLimit: ServerRateLimit
  readonly pruning: PruningConfig
  /** 0: agent authorisation never trusts a cached node record. */
  readonly maxAttestedNodeInfoStalenessMs: number
  readonly agentSpiffeIdAsSelector: boolean
  readonly dataStore: DataStoreConfig
  readonly keyManager: KeyManagerConfig
  /** Enabled ones in the file's order; `join_token` is always there. */
  readonly nodeAttestors: readonly NodeAttestorConfig[]
  readonly healthChecks: HealthChecksConfig
  readonly telemetry: TelemetryConfig
  /** `-fresh`: start empty although SPIRE's data lies at the configured place. */
  readonly fresh: boolean
}

export interface CaSubject {
  readonly country: readonly string[]
  readonly organization: readonly string[]
  readonly commonName: string
}

export interface ServerRateLimit {
  readonly attestation: boolean
  /** AttestAgent calls a second and peer address (`ratelimit.attestation_per_second`, ours). */
  readonly attestationPerSecond: number
  readonly signing: boolean
}

interface PruningConfig {
  /** Attested nodes expired longer than this are deleted; 0 keeps them. */
  readonly nodesExpiredForSeconds: number
  readonly nodesBatchSize: number
  /** Also those that cannot re-attest. */
  readonly includeTofuNodes: boolean
}

export type DataStoreConfig =
  | { readonly kind: 'embedded' }
  | {
      readonly kind: 'postgres'
      readonly connectionString: string
      readonly maxOpenConns: number
    }

export type KeyManagerConfig =
  | {
      readonly kind: 'sealed'
      /** The first seals, all open; empty: the default one in `dataDir`. */
      readonly keyFiles: readonly string[]
    }
  | { readonly kind: 'memory' }

export interface NodeAttestorConfig {
  readonly type: string
  /** `plugin_data` as plain values, without `cluster`; the attestor checks it. */
  readonly data: Readonly<Record<string, unknown>>
  /** `plugin_data_file`, or empty. */
  readonly dataFile: string
  /** Cluster of the agents that attest through it (`cluster`, ours); empty: `default`. */
  readonly cluster: string
}
