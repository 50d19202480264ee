/**
 * The agent's configuration: file and flags in, a checked `AgentConfig` out. SPIRE's `agent.conf`
 * is read unchanged (features.md §1.1, §1.3); what comes later is refused by name, what has no
 * meaning here is accepted and said once.
 *
 * Nothing here touches the environment, the clock or the network; files come in as a port.
 */
import { checkDocument, refuse } from '../base/config/document.ts'
import {
  absolutePath,
  readHealthChecks,
  readLog,
  readTelemetry,
  refuseProfiling,
} from '../base/config/shared.ts'
import type { ConfigSources, Parsed } from '../base/config/types.ts'
import { SignetError } from '../base/error.ts'
import { isMember, SpiffeId } from '../spiffe/spiffe-id.ts'
import { TrustDomain } from '../spiffe/trust-domain.ts'
import { readBootstrap } from './config/bootstrap.ts'
import { readExperimental, refuseLater } from './config/experimental.ts'
import { readIssuance } from './config/issuance.ts'
import { readJoinToken } from './config/join-token.ts'
import { readAgentPlugins } from './config/plugins.ts'
import { AGENT_DOCUMENT, type RawAgent } from './config/raw.ts'
import { readSockets } from './config/sockets.ts'
import type { AgentConfig, SdsConfig } from './config/types.ts'

export type * from './config/types.ts'

/** SPIRE ignores others in silence; we say them. */
const SDS_KEYS: ReadonlySet<string> = new Set([
  'default_svid_name',
  'default_bundle_name',
  'default_all_bundles_name',
  'disable_spiffe_cert_validation',
])

/** `run` and `validate` flags; an absent, empty, zero or false one leaves the file's word. */
export interface AgentFlags {
  readonly dataDir?: string
  readonly joinToken?: string
  readonly joinTokenFile?: string
  readonly logFile?: string
  readonly logFormat?: string
  readonly logLevel?: string
  readonly logSourceLocation?: boolean
  readonly serverAddress?: string
  readonly serverPort?: number
  readonly socketPath?: string
  readonly trustBundle?: string
  readonly trustBundleUrl?: string
  readonly trustBundleFormat?: string
  readonly trustDomain?: string
  readonly allowUnauthenticatedVerifiers?: boolean
  readonly insecureBootstrap?: boolean
  readonly rebootstrapMode?: string
  readonly rebootstrapDelay?: string
  readonly disableWorkloadAPI?: boolean
  readonly disableSDSAPI?: boolean
}

/** Throws invalid_argument or unimplemented (`not_supported_yet`) with SPIRE's text where it has one. */
export function parseAgentConfig(
  text: string,
  flags: AgentFlags,
  sources: ConfigSources,
): Parsed<AgentConfig> {
  const { raw, document } = checkDocument(text, sources, AGENT_DOCUMENT)
  const agent = withFlags(raw.agent ?? {}, flags)
  checkRequired(agent)
  const bootstrap = readBootstrap(agent, sources.workingDir)
  refuseLater(agent)
  refuseProfiling(agent.profiling_enabled)

  const notices: string[] = []
  const deprecations: string[] = []
  const trustDomain = readTrustDomain(agent.trust_domain!)
  const dataDir = absolutePath(agent.data_dir || '.', sources.workingDir)
  const config: AgentConfig = {
    trustDomain,
    serverAddress: agent.server_address!,
    serverPort: agent.server_port!,
    dataDir,
    ...readSockets(agent, sources.workingDir),
    authorizedDelegates: (agent.authorized_delegates ?? []).map((id) =>
      readDelegate(id, trustDomain),
    ),
    ...bootstrap,
    joinToken: readJoinToken(agent, sources.files),
    allowUnauthenticatedVerifiers: agent.allow_unauthenticated_verifiers ?? false,
    allowedForeignJwtClaims: agent.allowed_foreign_jwt_claims ?? [],
    ...readIssuance(agent),
    ...readExperimental(agent.experimental, notices, deprecations),
    logSelectors: agent.log_selectors ?? [],
    sds: readSds(agent, notices),
    log: readLog(
      {
        file: agent.log_file,
        level: agent.log_level,
        format: agent.log_format,
        sourceLocation: agent.log_source_location,
      },
      sources.workingDir,
    ),
    ...readAgentPlugins(raw.plugins, document, { sources, dataDir }),
    healthChecks: readHealthChecks(raw.health_checks),
    telemetry: readTelemetry(raw.telemetry, notices),
  }
  return { config: Object.freeze(config), notices, deprecations }
}

/** Precedence: a flag that is not its type's zero, then the file, then the default. */
function withFlags(file: RawAgent, flags: AgentFlags): RawAgent {
  return {
    ...file,
    data_dir: flags.dataDir || file.data_dir,
    join_token: flags.joinToken || file.join_token,
    join_token_file: flags.joinTokenFile || file.join_token_file,
    log_file: flags.logFile || file.log_file,
    log_format: flags.logFormat || file.log_format,
    log_level: flags.logLevel || file.log_level,
    log_source_location: flags.logSourceLocation || file.log_source_location,
    server_address: flags.serverAddress || file.server_address,
    server_port: flags.serverPort || file.server_port,
    socket_path: flags.socketPath || file.socket_path,
    trust_bundle_path: flags.trustBundle || file.trust_bundle_path,
    trust_bundle_url: flags.trustBundleUrl || file.trust_bundle_url,
    trust_bundle_format: flags.trustBundleFormat || file.trust_bundle_format,
    trust_domain: flags.trustDomain || file.trust_domain,
    allow_unauthenticated_verifiers:
      flags.allowUnauthenticatedVerifiers || file.allow_unauthenticated_verifiers,
    insecure_bootstrap: flags.insecureBootstrap || file.insecure_bootstrap,
    rebootstrap_mode: flags.rebootstrapMode || file.rebootstrap_mode,
    rebootstrap_delay: flags.rebootstrapDelay || file.rebootstrap_delay,
    disable_workload_api: flags.disableWorkloadAPI || file.disable_workload_api,
    disable_sds_api: flags.disableSDSAPI || file.disable_sds_api,
  }
}

function checkRequired(agent: RawAgent): void {
  if (agent.join_token && agent.join_token_file) {
    throw refuse('only one of join_token or join_token_file can be specified, not both')
  }
  if (!agent.server_address) throw refuse('server_address must be configured')
  if (!agent.server_port) throw refuse('server_port must be configured')
  if (agent.server_port < 0 || agent.server_port > 65_535) {
    throw refuse('agent.server_port: must be between 1 and 65535')
  }
  if (!agent.trust_domain) throw refuse('trust_domain must be configured')
}

function readTrustDomain(text: string): TrustDomain {
  try {
    return TrustDomain.parse(text)
  } catch (thrown) {
    if (!(thrown instanceof SignetError)) throw thrown
    throw refuse(`could not parse trust_domain ${JSON.stringify(text)}: ${thrown.message}`)
  }
}

function readDelegate(text: string, trustDomain: TrustDomain): SpiffeId {
  let id: SpiffeId
  try {
    id = SpiffeId.parse(text)
  } catch (thrown) {
    if (!(thrown instanceof SignetError)) throw thrown
    throw refuse(`error validating authorized delegate: ${thrown.message}`)
  }
  if (isMember(id, trustDomain)) return id
  const why = id.trustDomain.equals(trustDomain)
    ? 'path is empty'
    : `"${id}" is not a member of trust domain "${trustDomain}"`
  throw refuse(`error validating authorized delegate: ${why}`)
}

function readSds(agent: RawAgent, notices: string[]): SdsConfig {
  const sds: SdsConfig = {
    defaultSvidName: agent.sds?.default_svid_name || 'default',
    defaultBundleName: agent.sds?.default_bundle_name || 'ROOTCA',
    defaultAllBundlesName: agent.sds?.default_all_bundles_name || 'ALL',
    disableSpiffeCertValidation: agent.sds?.disable_spiffe_cert_validation ?? false,
  }
  for (const key of Object.keys(agent.sds ?? {})) {
    if (!SDS_KEYS.has(key)) notices.push(`unknown key sds.${key} is ignored`)
  }
  if (sds.defaultBundleName === sds.defaultAllBundlesName) {
    notices.push(
      'sds.default_bundle_name and sds.default_all_bundles_name are equal; default_all_bundles_name is ignored',
    )
  }
  return sds
}
