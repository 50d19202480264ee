/** Flags of `server run` and `server validate` (features.md §3.2). */
import type { ServerFlags } from '../../server/config.ts'
import { bool, type FlagValues, int64, text } from '../flags.ts'

export const SERVER_DEFAULT_CONFIG = 'conf/server/server.conf'

export const SERVER_CONFIG_FLAGS = {
  bindAddress: text('IP address or DNS name to listen on'),
  serverPort: int64('Port to listen on'),
  config: text('Configuration file'),
  dataDir: text('Directory for data'),
  logFile: text('File to log to'),
  logFormat: text("'text' or 'json'"),
  logSourceLocation: bool('Log lines name the source file and line'),
  logLevel: text("'debug', 'info', 'warn' or 'error'"),
  trustDomain: text('Trust domain of this server'),
  expandEnv: bool('Expand environment variables in the configuration file'),
  socketPath: text('Path to bind the API socket to'),
  fresh: bool('Start empty although data of a SPIRE server is found'),
}

export function serverFlagsOf(values: FlagValues<typeof SERVER_CONFIG_FLAGS>): ServerFlags {
  return {
    bindAddress: values.bindAddress,
    serverPort: Number(values.serverPort),
    dataDir: values.dataDir,
    logFile: values.logFile,
    logFormat: values.logFormat,
    logLevel: values.logLevel,
    logSourceLocation: values.logSourceLocation,
    socketPath: values.socketPath,
    trustDomain: values.trustDomain,
    fresh: values.fresh,
  }
}
