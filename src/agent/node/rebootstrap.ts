/**
 * Whom the agent trusts before its server has told it, and when it starts over because its server
 * and its bundle no longer agree (`rebootstrap_mode`, features.md §1.3): the delay starts at the
 * first certificate of an unknown authority and ends with any good connection. The state is kept in
 * `agent-data.json` under SPIRE's names, so that a restart does not start the delay anew.
 */
import { SignetError } from '../../base/error.ts'
import type { Clock, Log, Metrics } from '../../base/ports.ts'
import { rfc3339 } from '../../base/time-text.ts'
import type { AgentConfig, BootstrapConfig } from '../config.ts'
import type { AgentData, AgentStorage } from './storage.ts'

type Mode = AgentConfig['rebootstrapMode']

export interface Bootstrap {
  /** How long the start may take: a rebootstrap waits for whoever changes the bundle's source. */
  readonly startMsMax: number
  /** DER of the kept bundle's authorities, else of the source's; undefined: insecure bootstrap. */
  roots(): Promise<readonly Uint8Array[] | undefined>
  /**
   * Throws, or gives up rebootstrapping, when this node could not attest again. Differs from SPIRE:
   * it is asked after the first attestation too, where SPIRE's agent has not stored the answer yet
   * and would throw away an SVID that it can not get again.
   */
  requireReattestable(): void
  /** The server was reached and believed. */
  succeeded(): Promise<void>
  /** At start no known authority signed the server's certificate: the next try may use the source. */
  untrustedAtStart(): Promise<void>
  /** The same while running. Rejects when the agent has to stop. */
  untrusted(text: string, hasSynchronized: boolean): Promise<void>
}

export interface BootstrapOptions {
  readonly config: Pick<
    AgentConfig,
    | 'bootstrap'
    | 'rebootstrapMode'
    | 'rebootstrapDelayMs'
    | 'serverAddress'
    | 'serverPort'
    | 'trustDomain'
  >
  readonly storage: AgentStorage
  readonly load: (source: BootstrapConfig) => Promise<readonly Uint8Array[] | undefined>
  readonly clock: Clock
  readonly log: Log
  readonly metrics: Metrics
}

const START_MS_MAX = 60_000
const REBOOTSTRAP_START_MS_MAX = 24 * 3600_000
/** SPIRE's numbers of `bootstrap_use`; 0 is none of them. */
const USE_BOOTSTRAP = 1
const USE_REBOOTSTRAP = 2
const NOT_ALLOWED =
  'you have requested rebootstrap support but the NodeAttestor plugin or the spire server configuration is not allowing it'

interface State {
  readonly options: BootstrapOptions
  mode: Mode
}

export function createBootstrap(options: BootstrapOptions): Bootstrap {
  const { storage, log } = options
  const state: State = { options, mode: options.config.rebootstrapMode }
  report(options)
  return {
    get startMsMax() {
      return state.mode === 'never' ? START_MS_MAX : REBOOTSTRAP_START_MS_MAX
    },
    roots: async () =>
      storage.data.bundle.length > 0 ? storage.data.bundle : loadFromSource(options),
    requireReattestable() {
      if (state.mode === 'never' || storage.data.svid.length === 0) return
      if (storage.data.reattestable) return
      if (state.mode === 'always') throw stopped('rebootstrap_not_allowed', NOT_ALLOWED)
      log.warn(`${NOT_ALLOWED}. Disabling`)
      state.mode = 'never'
    },
    async succeeded() {
      const { use, startSeconds } = storage.data.bootstrap
      if (use === USE_REBOOTSTRAP && startSeconds === undefined) return
      await update(options, { bootstrap: { use: USE_REBOOTSTRAP, attempts: 0 } })
    },
    async untrustedAtStart() {
      if (useOf(storage) === USE_BOOTSTRAP) {
        return log.info("Trust Bundle and Server don't agree, bootstrapping again")
      }
      if (state.mode === 'never' || !(await isDelayOver(options))) return
      log.warn("Trust Bundle and Server don't agree, rebootstrapping")
      await storage.update({ bundle: [] })
    },
    async untrusted(text, hasSynchronized) {
      if (state.mode === 'never') return stopUnlessRestored(log, text, hasSynchronized)
      if (!(await isDelayOver(options))) return
      log.warn("Trust Bundle and Server don't agree, rebootstrapping")
      await forget(options)
      throw stopped('rebootstrapping', 'shutting down for rebootstrapping')
    },
  }
}

/**
 * Differs from SPIRE: an agent that has not synchronized since its start goes on trying, so that
 * one started by a supervisor over and over still serves from its sealed cache. SPIRE's stops.
 */
function stopUnlessRestored(log: Log, text: string, hasSynchronized: boolean): void {
  if (!hasSynchronized) return
  log.info('Synchronize failed, non-recoverable error', { error: text })
  throw stopped('server_untrusted', `failed to sync with SPIRE Server: ${text}`)
}

async function loadFromSource(
  options: BootstrapOptions,
): Promise<readonly Uint8Array[] | undefined> {
  const { storage, clock, config } = options
  const { attempts, startSeconds = clock.nowSeconds() } = storage.data.bootstrap
  const use = useOf(storage)
  await update(options, { bootstrap: { use, startSeconds, attempts: attempts + 1 } })
  const source = config.bootstrap
  if (source.kind === 'url' || source.kind === 'workload_api') {
    const what = use === USE_REBOOTSTRAP ? 'reattestation' : 'attestation'
    const started = rfc3339(startSeconds)
    options.log.info(`Server ${what} attempt ${attempts + 1}. Started ${started}.`)
  }
  if (source.kind !== 'url' || source.unixSocket === '') return options.load(source)
  const url = withFacts(source.url, {
    'spire-attest-mode': use === USE_REBOOTSTRAP ? 'rebootstrap' : 'bootstrap',
    'spire-connection-attempts': String(attempts + 1),
    'spire-attest-start-time': rfc3339(startSeconds),
    'spire-server-address': config.serverAddress,
    'spire-server-port': String(config.serverPort),
    'spiffe-trust-domain': config.trustDomain.name,
  })
  return options.load({ ...source, url })
}

/** What a bundle server on this machine decides by; to a remote one it would tell too much. */
function withFacts(url: string, facts: Readonly<Record<string, string>>): string {
  const extended = new URL(url)
  for (const [name, value] of Object.entries(facts)) extended.searchParams.set(name, value)
  return extended.toString()
}

async function isDelayOver(options: BootstrapOptions): Promise<boolean> {
  const { storage, clock, config, log } = options
  const now = clock.nowSeconds()
  const { startSeconds } = storage.data.bootstrap
  if (startSeconds === undefined) {
    await update(options, { bootstrap: { ...storage.data.bootstrap, startSeconds: now } })
  }
  const leftMs = config.rebootstrapDelayMs - 1000 * (now - (startSeconds ?? now))
  if (leftMs <= 0) return true
  const fields = { time_left: `${Math.ceil(leftMs / 1000)}s` }
  log.info("Trust Bundle and Server don't agree, ignoring for now", fields)
  return false
}

/** The next start attests with what the source says then. */
async function forget(options: BootstrapOptions): Promise<void> {
  await update(options, {
    svid: [],
    bundle: [],
    bootstrap: {
      use: USE_REBOOTSTRAP,
      startSeconds: options.clock.nowSeconds(),
      attempts: 0,
    },
  })
}

async function update(options: BootstrapOptions, change: Partial<AgentData>): Promise<void> {
  await options.storage.update(change)
  report(options)
}

/** Go's zero time: what SPIRE's gauge shows when no bootstrap is under way. */
const NO_TIME_SECONDS = -62_135_596_800

function report({ storage, metrics }: BootstrapOptions): void {
  const { startSeconds, attempts } = storage.data.bootstrap
  const mode = useOf(storage) === USE_REBOOTSTRAP ? 'rebootstrap' : 'bootstrap'
  metrics.gauge('bootstrapped', startSeconds === undefined ? 1 : 0)
  metrics.gauge('bootstrap_seconds', startSeconds ?? NO_TIME_SECONDS, { mode })
  metrics.gauge('bootstrap_attempts', attempts, { mode })
}

function useOf({ data }: AgentStorage): number {
  if (data.bootstrap.use !== 0) return data.bootstrap.use
  return data.bundle.length > 0 ? USE_REBOOTSTRAP : USE_BOOTSTRAP
}

function stopped(code: string, text: string): SignetError {
  return new SignetError('unavailable', code, text)
}
