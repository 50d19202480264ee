/** Flags of `agent run` and `agent validate` (features.md §3.3). */
import type { AgentFlags } from '../../agent/config.ts'
import { bool, type FlagValues, int64, text } from '../flags.ts'

export const AGENT_DEFAULT_CONFIG = 'conf/agent/agent.conf'

export const AGENT_CONFIG_FLAGS = {
  config: text('Configuration file', AGENT_DEFAULT_CONFIG),
  dataDir: text('Directory for data'),
  joinToken: text('Join token made by the server'),
  joinTokenFile: text('File with a join token made by the server'),
  logFile: text('File to log to'),
  logFormat: text("'text' or 'json'"),
  logLevel: text("'debug', 'info', 'warn' or 'error'"),
  logSourceLocation: bool('Log lines name the source file and line'),
  serverAddress: text('IP address or DNS name of the server'),
  serverPort: int64('Port of the server'),
  trustDomain: text('Trust domain of this agent'),
  disableWorkloadAPI: bool('Serve no Workload API'),
  disableSDSAPI: bool('Serve no Envoy SDS'),
  trustBundle: text("File with the server's bundle"),
  trustBundleUrl: text("URL of the server's bundle"),
  trustBundleFormat: text('Form of the bundle, "pem" or "spiffe"'),
  allowUnauthenticatedVerifiers: bool('Callers without an entry may fetch bundles'),
  insecureBootstrap: bool("Trust the server's first answer without verification"),
  rebootstrapMode: text("'never', 'auto' or 'always'"),
  rebootstrapDelay: text('How long to wait after an untrusted server before bootstrapping anew'),
  expandEnv: bool('Expand environment variables in the configuration file'),
  socketPath: text('Path to bind the API socket to'),
}

export function agentFlagsOf(values: FlagValues<typeof AGENT_CONFIG_FLAGS>): AgentFlags {
  const { config: _, expandEnv: __, serverPort, ...flags } = values
  return { ...flags, serverPort: Number(serverPort) }
}
