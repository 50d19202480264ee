/**
 * The shape of the agent's checked configuration: every default filled in, nothing optional left.
 */
import type { HealthChecksConfig, LogConfig, TelemetryConfig } from '../../base/config/types.ts'
import type { SpiffeId } from '../../spiffe/spiffe-id.ts'
import type { TrustDomain } from '../../spiffe/trust-domain.ts'

export interface AgentConfig {
  readonly trustDomain: TrustDomain
  readonly serverAddress: string
  readonly serverPort: number
  /** Absolute. */
  readonly dataDir: string
  /** Absolute path of the Workload API and SDS socket. */
  readonly socketPath: string
  /** Absolute path of the admin socket, or empty for none. */
  readonly adminSocketPath: string
  readonly disableWorkloadApi: boolean
  readonly disableSdsApi: boolean
  readonly authorizedDelegates: readonly SpiffeId[]
  readonly bootstrap: BootstrapConfig
  readonly rebootstrapMode: 'never' | 'auto' | 'always'
  readonly rebootstrapDelayMs: number
  /** From `join_token` or the trimmed `join_token_file`; empty for none. A secret: never logged. */
  readonly joinToken: string
  readonly allowUnauthenticatedVerifiers: boolean
  readonly allowedForeignJwtClaims: readonly string[]
  readonly workloadX509SvidKeyType: 'ec-p256' | 'ec-p384' | 'rsa-2048'
  /** 0: SVIDs are renewed at half-life. */
  readonly availabilityTargetSeconds: number
  readonly x509SvidCacheMaxSize: number
  readonly jwtSvidCacheMaxSize: number
  readonly syncIntervalMs: number
  readonly useSyncAuthorizedEntries: boolean
  readonly jwtSvidCacheHitTimeoutMs: number
  /** Calls a second and selector set; 0 is no limit. */
  readonly rateLimit: WorkloadRateLimit
  /** Selector prefixes allowed into diagnostics. */
  readonly logSelectors: readonly string[]
  readonly sds: SdsConfig
  readonly log: LogConfig
  /** `directory` is absolute; the default is `dataDir`. */
  readonly keyManager:
    | { readonly kind: 'disk'; readonly directory: string }
    | { readonly kind: 'memory' }
  readonly nodeAttestor: AgentPluginConfig
  readonly workloadAttestors: readonly AgentPluginConfig[]
  readonly healthChecks: HealthChecksConfig
  readonly telemetry: TelemetryConfig
}

export type BootstrapConfig =
  | { readonly kind: 'insecure' }
  | { readonly kind: 'path'; readonly path: string; readonly format: 'pem' | 'spiffe' }
  | {
      readonly kind: 'url'
      readonly url: string
      /** Absolute path of the Unix socket to fetch through, or empty. */
      readonly unixSocket: string
      readonly format: 'pem' | 'spiffe'
    }
  | { readonly kind: 'workload_api'; readonly address: string }

export interface WorkloadRateLimit {
  readonly fetchX509Svid: number
  readonly fetchJwtSvid: number
  readonly fetchX509Bundles: number
  readonly fetchJwtBundles: number
  readonly streamSecrets: number
  readonly fetchSecrets: number
}

export interface SdsConfig {
  readonly defaultSvidName: string
  readonly defaultBundleName: string
  readonly defaultAllBundlesName: string
  readonly disableSpiffeCertValidation: boolean
}

export interface AgentPluginConfig {
  readonly type: string
  /** `plugin_data` as plain values; the attestor checks it. */
  readonly data: Readonly<Record<string, unknown>>
  /** `plugin_data_file`, or empty. */
  readonly dataFile: string
}
