/**
 * The agent's checked configuration: what `signet agent run` was told by its file and flags, with
 * every default filled in. SPIRE's `agent.conf` is read unchanged (features.md §1.1, §1.3).
 *
 * This file owns the shape and the one entry point. `config/` holds the raw shapes and the rules.
 */
import type { SpiffeId } from '../spiffe/spiffe-id.ts'
import type { TrustDomain } from '../spiffe/trust-domain.ts'

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
  readonly log: AgentLogConfig
  readonly keyManager: { readonly kind: 'disk' } | { readonly kind: 'memory' }
  readonly nodeAttestor: AgentPluginConfig
  readonly workloadAttestors: readonly AgentPluginConfig[]
  readonly healthChecks: AgentHealthChecksConfig
  readonly telemetry: AgentTelemetryConfig
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

export interface AgentLogConfig {
  /** Absolute path, or empty for standard output. */
  readonly file: string
  readonly level: 'panic' | 'fatal' | 'error' | 'warn' | 'info' | 'debug' | 'trace'
  readonly format: 'text' | 'json'
  readonly sourceLocation: boolean
}

export interface AgentPluginConfig {
  readonly type: string
  /** `plugin_data` as plain values; the attestor checks it. */
  readonly data: Readonly<Record<string, unknown>>
}

export interface AgentHealthChecksConfig {
  readonly listenerEnabled: boolean
  readonly bindAddress: string
  readonly bindPort: number
  readonly livePath: string
  readonly readyPath: string
}

export interface AgentTelemetryConfig {
  readonly prometheus: { readonly host: string; readonly port: number } | undefined
  /** Empty: `spire_agent`. */
  readonly metricPrefix: string
  readonly enableTrustDomainLabel: boolean
  readonly enableHostnameLabel: boolean
  readonly allowedPrefixes: readonly string[]
  readonly blockedPrefixes: readonly string[]
  readonly allowedLabels: readonly string[]
  readonly blockedLabels: readonly string[]
}
