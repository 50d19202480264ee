/**
 * The log: pino behind the `Log` port, writing SPIRE's two forms (features.md §4.4). Owns the
 * output file. Writes are synchronous: a line that was logged before a crash is there after it,
 * and nothing is left to flush at exit.
 */
import { type DestinationStream, pino } from 'pino'
import { LOG_FILE_MODE } from './limits.ts'
import {
  boundText,
  LOG_LEVELS,
  type LogFormat,
  type LogLevel,
  localRfc3339,
  plainFields,
  textLine,
} from './log-text.ts'
import type { Clock, Log, LogFields } from './ports.ts'

export interface LogOptions {
  readonly format: LogFormat
  readonly level: LogLevel
  /** Absent: standard output. */
  readonly file?: string
  /** Adds `file` and `func` of the caller to each line (`log_source_location`). */
  readonly sourceLocation?: boolean
}

/** What only the composition root and the Logger service may do with the log. */
export interface RootLog extends Log {
  readonly launchLevel: LogLevel
  level(): LogLevel
  setLevel(level: LogLevel): void
  /** After log rotation moved the file away (SIGUSR2). */
  reopen(): void
  /** Writes what the kernel would not take yet; for the last line before exit. */
  flush(): void
}

/** Throws when the file can't be opened: a server whose log is lost must not start. */
export function createLog(options: LogOptions, clock: Clock): RootLog {
  const out = pino.destination({
    dest: options.file ?? 1,
    append: true,
    sync: true,
    mode: LOG_FILE_MODE,
  })
  // A full disk or a closed pipe costs lines, never the service.
  out.on('error', () => {})
  return rootLog(options, clock, out, {
    reopen: () => {
      if (options.file !== undefined) out.reopen(options.file)
    },
    flush: () => out.flushSync(),
  })
}

/** The same log on any stream: what tests read. */
export function createStreamLog(
  options: LogOptions,
  clock: Clock,
  out: DestinationStream,
): RootLog {
  return rootLog(options, clock, out, { reopen: () => {}, flush: () => {} })
}

type WriteLine = (level: LogLevel, message: string, fields: LogFields) => void

function rootLog(
  options: LogOptions,
  clock: Clock,
  out: DestinationStream,
  file: Pick<RootLog, 'reopen' | 'flush'>,
): RootLog {
  let threshold = LOG_LEVELS.indexOf(options.level)
  const writeLine = options.format === 'json' ? jsonWriter(clock, out) : textWriter(clock, out)
  const write: WriteLine = (level, message, fields) => {
    if (LOG_LEVELS.indexOf(level) > threshold) return
    const located = options.sourceLocation ? { ...fields, ...callerOf() } : fields
    writeLine(level, boundText(message), plainFields(located))
  }
  return {
    ...boundLog(write, {}),
    launchLevel: options.level,
    level: () => LOG_LEVELS[threshold]!,
    setLevel: (level) => {
      threshold = LOG_LEVELS.indexOf(level)
    },
    ...file,
  }
}

function boundLog(write: WriteLine, bound: LogFields): Log {
  return {
    debug: (message, fields) => write('debug', message, { ...bound, ...fields }),
    info: (message, fields) => write('info', message, { ...bound, ...fields }),
    warn: (message, fields) => write('warning', message, { ...bound, ...fields }),
    error: (message, fields) => write('error', message, { ...bound, ...fields }),
    with: (fields) => boundLog(write, { ...bound, ...fields }),
  }
}

function textWriter(clock: Clock, out: DestinationStream): WriteLine {
  return (level, message, fields) => {
    out.write(textLine(localRfc3339(clock.nowMs(), 'seconds'), level, message, fields))
  }
}

/** pino's own level names and numbers are replaced by logrus' names. */
function jsonWriter(clock: Clock, out: DestinationStream): WriteLine {
  const logger = pino(
    {
      base: null,
      level: 'trace',
      messageKey: 'msg',
      customLevels: { panic: 70, warning: 40 },
      formatters: { level: (label) => ({ level: label }) },
      timestamp: () => `,"time":"${localRfc3339(clock.nowMs(), 'milliseconds')}"`,
    },
    out,
  )
  return (level, message, fields) => logger[level](fields, message)
}

/** The first stack frame outside the log: `func`, and `file` as `name.ts:line`. */
function callerOf(): LogFields {
  const frames = (new Error().stack ?? '').split('\n').slice(1)
  const frame = frames.find((line) => !/\/base\/log(-text)?\.[tj]s:/.test(line))
  const match = frame && /at (?:(.+?) \()?(?:.*\/)?([^/]+:\d+):\d+\)?$/.exec(frame)
  return match ? { func: match[1] ?? '', file: match[2] } : {}
}
