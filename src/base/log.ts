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
  const { format } = options
  const writeLine = format === 'json' ? jsonWriter(clock, out) : textWriter(format, clock, out)
  const write: WriteLine = (level, message, fields) => {
    if (LOG_LEVELS.indexOf(level) > threshold) return
    const located = options.sourceLocation ? { ...fields, ...callerOf() } : fields
    writeLine(level, boundText(message), plainFields(located, format))
  }
  const log = new BoundLog(write, {})
  return {
    debug: (message, fields) => log.debug(message, fields),
    info: (message, fields) => log.info(message, fields),
    warn: (message, fields) => log.warn(message, fields),
    error: (message, fields) => log.error(message, fields),
    with: (fields) => log.with(fields),
    launchLevel: options.level,
    level: () => LOG_LEVELS[threshold]!,
    setLevel: (level) => {
      threshold = LOG_LEVELS.indexOf(level)
    },
    ...file,
  }
}

/** A class, because one is made per call: methods on the prototype cost nothing. */
class BoundLog implements Log {
  readonly #write: WriteLine
  readonly #fields: LogFields

  constructor(write: WriteLine, fields: LogFields) {
    this.#write = write
    this.#fields = fields
  }

  debug(message: string, fields?: LogFields): void {
    this.#write('debug', message, { ...this.#fields, ...fields })
  }

  info(message: string, fields?: LogFields): void {
    this.#write('info', message, { ...this.#fields, ...fields })
  }

  warn(message: string, fields?: LogFields): void {
    this.#write('warning', message, { ...this.#fields, ...fields })
  }

  error(message: string, fields?: LogFields): void {
    this.#write('error', message, { ...this.#fields, ...fields })
  }

  with(fields: LogFields): Log {
    return new BoundLog(this.#write, { ...this.#fields, ...fields })
  }
}

function textWriter(format: '' | 'text', clock: Clock, out: DestinationStream): WriteLine {
  const precision = format === 'text' ? 'milliseconds' : 'seconds'
  return (level, message, fields) => {
    out.write(textLine(localRfc3339(clock.nowMs(), precision), level, message, fields))
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
