/**
 * Runs periodic jobs on graphile-worker: each is queued once per due time however many servers
 * there are, leased by one of them, and retried when it fails. Jobs are idempotent: a lease can
 * expire while its holder is still at it.
 *
 * The only importer of graphile-worker. Its tables live in a schema of their own.
 */
import { EventEmitter } from 'node:events'
import {
  Logger,
  parseCronItems,
  type Runner,
  run,
  type TaskList,
  type WorkerEvents,
} from 'graphile-worker'
import type { Clock, Log, Random } from '../../base/ports.ts'
import { unitInterval } from '../../base/ports.ts'

const SCHEMA = 'signet_worker'
/** New jobs are announced by NOTIFY; polling only finds what a lost connection hid. */
const POLL_MS = 60_000
const ATTEMPTS_MAX = 5
const PAUSE_MS_MIN = 1_000
const PAUSE_MS_MAX = 60_000

export interface Job {
  /** snake_case, stable: rows in the database refer to it. */
  readonly name: string
  /** Five fields in UTC; a minute is the finest. */
  readonly cron: string
  /** Throws to be tried again later. */
  run(signal: AbortSignal): Promise<void>
}

/** As `pg.Pool`; a pool that nothing else uses, closed with the runner. */
type JobPool = NonNullable<Parameters<typeof run>[0]['pgPool']>

export interface JobRunnerOptions {
  readonly pool: JobPool
  readonly jobs: readonly Job[]
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
}

/** Resolves once jobs run; from then on a lost database is waited for. */
export async function startJobs(options: JobRunnerOptions): Promise<AsyncDisposable> {
  const stop = new AbortController()
  let runner = await startRunner(options, stop.signal)
  const keep = async () => {
    let pauseMs = PAUSE_MS_MIN
    while (!stop.signal.aborted) {
      const error = await runner.promise.then(() => undefined).catch((thrown: unknown) => thrown)
      if (stop.signal.aborted) return
      options.log.warn('Jobs stopped; starting them again', { error })
      while (!stop.signal.aborted) {
        await options.clock.sleep(pauseMs * (0.5 + unitInterval(options.random)), stop.signal)
        pauseMs = Math.min(pauseMs * 2, PAUSE_MS_MAX)
        try {
          runner = await startRunner(options, stop.signal)
          pauseMs = PAUSE_MS_MIN
          break
        } catch (thrown) {
          options.log.warn('Jobs can not be started', { error: thrown })
        }
      }
    }
  }
  const loop = keep().catch(() => {})
  return {
    [Symbol.asyncDispose]: async () => {
      stop.abort()
      await runner.stop().catch(() => {})
      await loop
      await options.pool.end()
    },
  }
}

async function startRunner(options: JobRunnerOptions, signal: AbortSignal): Promise<Runner> {
  const events: WorkerEvents = new EventEmitter()
  const runner = await run({
    events,
    pgPool: options.pool,
    schema: SCHEMA,
    concurrency: 1,
    pollInterval: POLL_MS,
    noHandleSignals: true,
    // Batched, because only that path catches a database that is lost while a job is marked as done.
    preset: { worker: { completeJobBatchDelay: 0, failJobBatchDelay: 0 } },
    logger: toWorkerLogger(options.log),
    taskList: Object.fromEntries(options.jobs.map((job) => [job.name, toTask(job, signal)])),
    parsedCronItems: parseCronItems(
      options.jobs.map((job) => ({
        task: job.name,
        identifier: job.name,
        match: job.cron,
        // A time missed while every server was down is not made up for: the next run does it all.
        options: { jobKey: job.name, maxAttempts: ATTEMPTS_MAX, backfillPeriod: 0 },
      })),
    ),
  })
  // graphile-worker 0.18 remembers for good when its first look at the tasks fails, and waits a whole
  // poll after any other failure: a fresh runner is up as soon as the database is.
  events.once('worker:getJob:error', () => void runner.stop().catch(() => {}))
  return runner
}

function toTask(job: Job, signal: AbortSignal): TaskList[string] {
  return async () => {
    await job.run(signal)
  }
}

function toWorkerLogger(log: Log): Logger {
  return new Logger(() => (level, message, meta) => {
    // Its "info" is about every job and every start of a worker.
    if (level === 'error') log.error(message, meta)
    else if (level === 'warning') log.warn(message, meta)
    else log.debug(message, meta)
  })
}
