/**
 * How the agent is, asked as SPIRE asks it: by opening its own Workload API. The Health service
 * wants an answer about an identity, or that there is none (api.md §12.3); the HTTP checks only
 * that the API answers at all (features.md §4.3). That the server is away is no illness of the
 * agent: it shows in the readiness details (reliability.md F12).
 */
import { SignetError } from '../base/error.ts'
import type { HealthState } from '../base/http-health.ts'
import type { Clock, EpochSeconds, Log } from '../base/ports.ts'
import { SpiffeWorkloadAPIService as Api } from '../wire/gen/workload.ts'
import { openUnixChannel } from '../wire/transport/channel.ts'
import { errorText } from './sync/server-client.ts'
import { firstAnswer } from './workload-api/first-answer.ts'

const PROBE_TIMEOUT_MS = 5_000
/** Six heartbeats of the push stream, twelve polls. */
const AWAY_SECONDS_MIN = 60

export interface Standing {
  /** 0: never yet. */
  readonly lastSyncSuccess: EpochSeconds
  readonly x509SvidsDue: number
}

export interface AgentHealthOptions {
  /** Empty: there is no Workload API. */
  readonly socketPath: string
  /** Undefined until there is something to serve. */
  readonly standing: () => Standing | undefined
  readonly clock: Clock
  readonly log: Log
}

export interface AgentHealth {
  /** For the Health service on the agent's sockets. */
  isServing(): Promise<boolean>
  /** For `/live` and `/ready`. */
  check(): Promise<HealthState>
}

export function createAgentHealth(options: AgentHealthOptions): AgentHealth {
  const { socketPath, clock, log } = options
  const settings = { clock, timeoutMs: PROBE_TIMEOUT_MS }
  const startSeconds = clock.nowSeconds()
  const outcome = (answer: Promise<unknown>) =>
    answer.then(
      () => undefined,
      (error: unknown) => error,
    )
  const ask = async () => {
    if (socketPath === '') return true
    const error = await outcome(
      firstAnswer(openUnixChannel(socketPath), Api.fetchX509Svid, {}, settings),
    )
    // An agent is rarely registered itself: that it has no identity is an answer.
    if (error === undefined || isKind(error, 'permission_denied')) return true
    log.warn('Health check failed', {
      reason: 'unable to fetch X.509 context from Workload API',
      error: errorText(error),
    })
    return false
  }
  let asking: Promise<boolean> | undefined
  return {
    isServing() {
      // However many ask at once, the socket is opened once.
      asking ??= ask().finally(() => {
        asking = undefined
      })
      return asking
    },
    async check() {
      const standing = options.standing()
      if (standing === undefined) return { live: true, ready: false, started: false }
      const details = degradation(standing, startSeconds, clock.nowSeconds())
      const well = { live: true, ready: true, liveDetails: {}, readyDetails: details }
      if (socketPath === '') return well
      const error = await outcome(
        firstAnswer(openUnixChannel(socketPath), Api.fetchX509Bundles, {}, settings),
      )
      if (!isKind(error, 'unavailable')) return well
      const fault = { make_new_x509_err: 'workload api is unavailable' }
      return { live: false, ready: false, liveDetails: fault, readyDetails: fault }
    },
  }
}

/** Empty as long as everything is renewed in time. */
function degradation(
  { lastSyncSuccess, x509SvidsDue }: Standing,
  startSeconds: EpochSeconds,
  now: EpochSeconds,
): object {
  const awaySeconds = now - Math.max(lastSyncSuccess, startSeconds)
  if (x509SvidsDue === 0 || awaySeconds < AWAY_SECONDS_MIN) return {}
  return {
    degraded: 'server cannot be reached and X509-SVIDs are due for renewal',
    server_away_seconds: awaySeconds,
    x509_svids_due: x509SvidsDue,
  }
}

function isKind(error: unknown, kind: SignetError['kind']): boolean {
  return error instanceof SignetError && error.kind === kind
}
