/**
 * Health of a program as SPIRE shows it (features.md §4.3): named checks, run every second until
 * all are live and ready for the first time, then at a steady pace, and `/live` and `/ready` that answer
 * from the last run: 200 or 500, with the details of each subsystem as JSON.
 */
import type { HealthChecksConfig } from './config/types.ts'
import { type HttpAnswer, type HttpListener, listenHttp } from './http-listener.ts'
import type { Clock, Log } from './ports.ts'

export interface HealthState {
  readonly live: boolean
  readonly ready: boolean
  /** False while the program still starts: failures are then no errors. */
  readonly started?: boolean
  readonly liveDetails?: unknown
  readonly readyDetails?: unknown
}

type HealthCheck = () => HealthState | Promise<HealthState>

export interface Health {
  add(name: string, check: HealthCheck): void
  /** Runs all checks once. */
  step(): Promise<void>
  /** Checks until the signal aborts; never rejects. */
  run(signal: AbortSignal): Promise<void>
  answer(path: string): HttpAnswer
}

const INTERVAL_STARTING_MS = 1_000

interface Subsystem {
  readonly check: HealthCheck
  state: HealthState
  error: string
  failures: number
  failedSinceMs: number
}

/** Not yet checked: neither live nor ready, as SPIRE's zero value. */
const UNKNOWN: HealthState = { live: false, ready: false }

export function createHealth(
  clock: Clock,
  parentLog: Log,
  config: Pick<HealthChecksConfig, 'livePath' | 'readyPath'>,
  steadyMs: number,
): Health {
  const log = parentLog.with({ subsystem_name: 'health' })
  const subsystems = new Map<string, Subsystem>()
  const all = (test: (state: HealthState) => boolean) =>
    [...subsystems.values()].every(({ state }) => test(state))

  const step = async () => {
    for (const [name, subsystem] of subsystems) {
      update(name, subsystem, await verdict(subsystem.check), log, clock)
    }
  }
  return {
    add(name, check) {
      subsystems.set(name, { check, state: UNKNOWN, error: '', failures: 0, failedSinceMs: 0 })
    },
    step,
    async run(signal) {
      let steady = false
      while (!signal.aborted) {
        await step()
        // Without a check yet the program has hardly begun.
        steady ||= subsystems.size > 0 && all((state) => state.live && state.ready)
        try {
          await clock.sleep(steady ? steadyMs : INTERVAL_STARTING_MS, signal)
        } catch {
          return
        }
      }
    },
    answer(path) {
      if (path === config.livePath) {
        return answerOf(
          subsystems,
          all((state) => state.live),
          'liveDetails',
        )
      }
      if (path === config.readyPath) {
        return answerOf(
          subsystems,
          all((state) => state.ready),
          'readyDetails',
        )
      }
      return { status: 404, contentType: 'text/plain', body: '404 page not found\n' }
    },
  }
}

export async function serveHealth(
  health: Health,
  config: HealthChecksConfig,
  log: Log,
): Promise<HttpListener> {
  const address = `${config.bindAddress}:${config.bindPort}`
  log.with({ subsystem_name: 'health' }).info('Serving health checks', { address })
  return listenHttp(config.bindAddress, config.bindPort, (path) => health.answer(path))
}

async function verdict(check: HealthCheck): Promise<HealthState> {
  try {
    return await check()
  } catch {
    return UNKNOWN
  }
}

function update(name: string, subsystem: Subsystem, state: HealthState, log: Log, clock: Clock) {
  const error = faultOf(state)
  const changedWhileStarting = state.started === false && error !== subsystem.error
  if (error !== '' && state.started !== false) {
    log.error('Health check has failed', { check: name, error })
  } else if (error !== '' && changedWhileStarting) {
    log.warn('Health check has failed. Starting up still.', { check: name, error })
  }
  if (error === '' && subsystem.error !== '') {
    log.info('Health check recovered', {
      check: name,
      details: shownState(state),
      error: subsystem.error,
      failures: subsystem.failures,
      duration: (clock.monotonicMs() - subsystem.failedSinceMs) / 1000,
    })
  } else if (error !== '' && subsystem.error === '') {
    log.warn('Health check failed', { check: name, details: shownState(state), error })
    subsystem.failedSinceMs = clock.monotonicMs()
  }
  subsystem.failures = error === '' ? 0 : subsystem.failures + 1
  subsystem.error = error
  subsystem.state = state
}

/** SPIRE logs its whole struct. */
function shownState(state: HealthState) {
  return {
    Started: state.started ?? null,
    Live: state.live,
    Ready: state.ready,
    LiveDetails: state.liveDetails ?? null,
    ReadyDetails: state.readyDetails ?? null,
  }
}

function faultOf({ live, ready }: HealthState): string {
  if (live && ready) return ''
  if (ready) return 'subsystem is not live'
  return live ? 'subsystem is not ready' : 'subsystem is not live or ready'
}

function answerOf(
  subsystems: ReadonlyMap<string, Subsystem>,
  good: boolean,
  details: 'liveDetails' | 'readyDetails',
): HttpAnswer {
  const body: Record<string, unknown> = {}
  for (const name of [...subsystems.keys()].sort()) {
    body[name] = subsystems.get(name)!.state[details] ?? null
  }
  return {
    status: good ? 200 : 500,
    contentType: 'application/json',
    body: `${JSON.stringify(body)}\n`,
  }
}
