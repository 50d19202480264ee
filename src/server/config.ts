/**
 * The server's configuration: file and flags in, a checked `ServerConfig` out. SPIRE's
 * `server.conf` is read unchanged (features.md §1.1, §1.2, §2.1); what comes later is refused by
 * name, what has no meaning here is accepted and said once.
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
  unbracketed,
} from '../base/config/shared.ts'
import type { ConfigSources, Parsed } from '../base/config/types.ts'
import { SignetError } from '../base/error.ts'
import { SpiffeId } from '../spiffe/spiffe-id.ts'
import { TrustDomain } from '../spiffe/trust-domain.ts'
import { readExperimental, refuseLater } from './config/ahead.ts'
import { readAuthority, ttlNotices } from './config/authority.ts'
import { readServerPlugins } from './config/plugins.ts'
import { readPruning, readRateLimit } from './config/policies.ts'
import { type RawServer, SERVER_DOCUMENT } from './config/raw.ts'
import type { ServerConfig } from './config/types.ts'

export type * from './config/types.ts'

/** `run` and `validate` flags; an absent, empty, zero or false one leaves the file's word. */
export interface ServerFlags {
  readonly bindAddress?: string
  readonly serverPort?: number
  readonly dataDir?: string
  readonly logFile?: string
  readonly logFormat?: string
  readonly logLevel?: string
  readonly logSourceLocation?: boolean
  readonly socketPath?: string
  readonly trustDomain?: string
  /** Ours: start empty although SPIRE's data is found. */
  readonly fresh?: boolean
}

const DEFAULT_SERVER_SOCKET = '/tmp/spire-server/private/api.sock'
const DEFAULT_BIND_PORT = 8081

/** Throws invalid_argument or unimplemented (`not_supported_yet`) with SPIRE's text where it has one. */
export function parseServerConfig(
  text: string,
  flags: ServerFlags,
  sources: ConfigSources,
): Parsed<ServerConfig> {
  const { raw, document } = checkDocument(text, sources, SERVER_DOCUMENT)
  const server = withFlags(raw.server ?? {}, flags)
  checkRequired(server)
  refuseLater(server)
  refuseProfiling(server.profiling_enabled)

  const notices: string[] = []
  const deprecations: string[] = []
  const dataDir = absolutePath(server.data_dir!, sources.workingDir)
  const authority = readAuthority(server, notices)
  const config: ServerConfig = {
    trustDomain: readTrustDomain(server.trust_domain!),
    dataDir,
    bindAddress: unbracketed(server.bind_address || '0.0.0.0'),
    bindPort: readBindPort(server),
    socketPath: absolutePath(server.socket_path || DEFAULT_SERVER_SOCKET, sources.workingDir),
    adminIds: (server.admin_ids ?? []).map(readAdminId),
    ...authority,
    auditLogEnabled: server.audit_log_enabled ?? false,
    log: readLog(
      {
        file: server.log_file,
        level: server.log_level,
        format: server.log_format,
        sourceLocation: server.log_source_location,
      },
      sources.workingDir,
    ),
    rateLimit: readRateLimit(server),
    ...readPruning(server),
    ...readExperimental(server.experimental, notices, deprecations),
    ...readServerPlugins(
      raw.plugins,
      document,
      { dataDir, sources, fresh: flags.fresh ?? false },
      notices,
    ),
    healthChecks: readHealthChecks(raw.health_checks),
    telemetry: readTelemetry(raw.telemetry, notices),
    fresh: flags.fresh ?? false,
  }
  notices.push(...ttlNotices(config))
  return { config: Object.freeze(config), notices, deprecations }
}

/** Precedence: a flag that is not its type's zero, then the file, then the default. */
function withFlags(file: RawServer, flags: ServerFlags): RawServer {
  return {
    ...file,
    bind_address: flags.bindAddress || file.bind_address,
    bind_port: flags.serverPort || file.bind_port,
    data_dir: flags.dataDir || file.data_dir,
    log_file: flags.logFile || file.log_file,
    log_format: flags.logFormat || file.log_format,
    log_level: flags.logLevel || file.log_level,
    log_source_location: flags.logSourceLocation || file.log_source_location,
    socket_path: flags.socketPath || file.socket_path,
    trust_domain: flags.trustDomain || file.trust_domain,
  }
}

function checkRequired(server: RawServer): void {
  if (!server.trust_domain) throw refuse('trust_domain must be configured')
  if (!server.data_dir) throw refuse('data_dir must be configured')
}

function readBindPort(server: RawServer): number {
  const port = server.bind_port || DEFAULT_BIND_PORT
  if (port < 0 || port > 65_535) {
    throw refuse(
      `could not resolve bind address "${server.bind_address || '0.0.0.0'}:${port}": invalid port`,
    )
  }
  return port
}

function readTrustDomain(text: string): TrustDomain {
  return explained(
    () => TrustDomain.parse(text),
    `could not parse trust_domain ${JSON.stringify(text)}`,
  )
}

function readAdminId(text: string): SpiffeId {
  return explained(() => SpiffeId.parse(text), `could not parse admin ID ${JSON.stringify(text)}`)
}

function explained<T>(parse: () => T, what: string): T {
  try {
    return parse()
  } catch (thrown) {
    if (thrown instanceof SignetError) throw refuse(`${what}: ${thrown.message}`)
    throw thrown
  }
}
