/**
 * The process around a server or an agent: log, notices, umask, signals, metrics and health
 * listeners; then the program itself until it is told to stop (features.md §1.1). Exit 0 after a
 * graceful stop, 1 otherwise.
 */
import {
  type Reconfigurable,
  type Reconfigurables,
  reconfigureAll,
} from '../base/config/reconfigure.ts'
import type { HealthChecksConfig, LogConfig, TelemetryConfig } from '../base/config/types.ts'
import { createHealth, type Health, serveHealth } from '../base/http-health.ts'
import { createLog, type RootLog } from '../base/log.ts'
import {
  createMetrics,
  type PrometheusMetrics,
  reportProcess,
  serveMetrics,
} from '../base/metrics.ts'
import { onSignals, tightenUmask } from '../base/shutdown.ts'
import type { TrustDomain } from '../spiffe/trust-domain.ts'
import type { CliEnv } from './env.ts'
import { messageOf } from './error.ts'
import { VERSION } from './version.ts'

/** What server and agent configuration have in common. */
interface HostedConfig {
  readonly trustDomain: TrustDomain
  readonly log: LogConfig
  readonly healthChecks: HealthChecksConfig
  readonly telemetry: TelemetryConfig
}

export interface Hosting {
  readonly log: RootLog
  readonly metrics: PrometheusMetrics
  readonly health: Health
  /** Gets what SIGUSR1 reconfigures. */
  readonly reconfigurables: Reconfigurables
  /** Aborts at the first SIGINT or SIGTERM. */
  readonly signal: AbortSignal
}

export interface Hosted {
  readonly name: 'Server' | 'Agent'
  /** Prefix of metrics. */
  readonly serviceName: 'spire_server' | 'spire_agent'
  /** Between two health checks once all is good. */
  readonly healthSteadyMs: number
  readonly config: HostedConfig
  readonly notices: readonly string[]
  readonly deprecations: readonly string[]
  run(hosting: Hosting): Promise<void>
}

/** What alerts are set on. */
const DEPRECATED = { alert: true, alert_type: 'deprecated_config' }

export async function host(env: CliEnv, hosted: Hosted): Promise<number> {
  const { config } = hosted
  let log: RootLog
  try {
    log = openLog(config.log, env)
  } catch (thrown) {
    env.err(`${messageOf(thrown)}\n`)
    return 1
  }
  tightenUmask(log)
  for (const notice of hosted.notices) log.warn(notice)
  for (const text of hosted.deprecations) log.warn(text, DEPRECATED)
  const stop = new AbortController()
  const reconfigurables = new Set<Reconfigurable>()
  using _signals = onSignals({
    stop: () => stop.abort(),
    reconfigure: () =>
      reconfigureAll(log.with({ subsystem_name: 'reconfigurer' }), reconfigurables),
    reopenLog: () => log.reopen(),
  })
  try {
    await serve(env, hosted, { log, reconfigurables }, stop)
    log.info(`${hosted.name} stopped gracefully`)
    return 0
  } catch (error) {
    log.error(`${hosted.name} crashed`, { error })
    return 1
  } finally {
    log.flush()
  }
}

function openLog(config: LogConfig, env: CliEnv): RootLog {
  const { file, ...options } = config
  return createLog(file === '' ? options : { ...options, file }, env.clock)
}

/** Listeners outlive the program they report on, and end with it. */
async function serve(
  env: CliEnv,
  hosted: Hosted,
  { log, reconfigurables }: Pick<Hosting, 'log' | 'reconfigurables'>,
  stop: AbortController,
): Promise<void> {
  const { config } = hosted
  const { prometheus, ...telemetry } = config.telemetry
  const trustDomain = config.trustDomain.name
  const metrics = createMetrics({ ...telemetry, serviceName: hosted.serviceName, trustDomain })
  await using listeners = new AsyncDisposableStack()
  listeners.use(reportProcess(metrics, env.clock, { version: VERSION, trustDomain }))
  const health = createHealth(env.clock, log, config.healthChecks, hosted.healthSteadyMs)
  if (prometheus !== undefined) listeners.use(await serveMetrics(metrics, prometheus, log))
  if (config.healthChecks.listenerEnabled) {
    listeners.use(await serveHealth(health, config.healthChecks, log))
  }
  const ended = new AbortController()
  const checking = health.run(AbortSignal.any([stop.signal, ended.signal]))
  try {
    await hosted.run({ log, metrics, health, reconfigurables, signal: stop.signal })
  } finally {
    ended.abort()
    await checking
  }
}
