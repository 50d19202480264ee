/** The Logger service (api.md §7.8): the log's level, looked at and changed while the server runs. */
import type { RootLog } from '../../../../base/log.ts'
import type { LogLevel as LevelName } from '../../../../base/log-text.ts'
import type { SetLogLevelRequest } from '../../../../wire/gen/spire/api/server/logger/v1/logger.ts'
import { type Logger, LogLevel } from '../../../../wire/gen/spire/api/types/logger.ts'
import type { CallContext } from '../../context.ts'
import { invalidArgument } from '../../failure.ts'

/** On the wire, by name. */
const LEVELS: Readonly<Record<LevelName, LogLevel>> = {
  panic: LogLevel.PANIC,
  fatal: LogLevel.FATAL,
  error: LogLevel.ERROR,
  warning: LogLevel.WARN,
  info: LogLevel.INFO,
  debug: LogLevel.DEBUG,
  trace: LogLevel.TRACE,
}

export type LevelControl = Pick<RootLog, 'launchLevel' | 'level' | 'setLevel'>

export function createLoggerHandlers({ logLevel }: { readonly logLevel: LevelControl }) {
  const state = (context: CallContext): Logger => {
    context.audit.success()
    return { currentLevel: LEVELS[logLevel.level()], launchLevel: LEVELS[logLevel.launchLevel] }
  }
  return {
    getLogger: async (_request: unknown, context: CallContext): Promise<Logger> => {
      context.log.info('GetLogger Called')
      return state(context)
    },
    setLogLevel: async (
      { newLevel }: SetLogLevelRequest,
      context: CallContext,
    ): Promise<Logger> => {
      context.audit.add(() => ({ new_log_level: levelName(newLevel) }))
      if (newLevel === LogLevel.UNSPECIFIED) {
        throw invalidArgument('newLevel value cannot be LogLevel_UNSPECIFIED')
      }
      const names = Object.keys(LEVELS) as LevelName[]
      const name = names.find((one) => LEVELS[one] === newLevel)
      if (name === undefined) throw invalidArgument('unsupported log level')
      context.log.info('SetLogLevel Called', { new_log_level: name })
      logLevel.setLevel(name)
      return state(context)
    },
    resetLogLevel: async (_request: unknown, context: CallContext): Promise<Logger> => {
      context.log.info('ResetLogLevel Called', { launch_log_level: logLevel.launchLevel })
      logLevel.setLevel(logLevel.launchLevel)
      return state(context)
    },
  }
}

/** The enumeration's own name, or its number for one from the future. */
function levelName(level: number): string {
  const known = Object.entries(LogLevel)
  return known.find(([, value]) => value === level)?.[0] ?? String(level)
}
