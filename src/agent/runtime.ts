/**
 * One run of the agent: attest, synchronise, renew, serve, and react when the server denies it
 * (api.md §11.2, §11.6). Owns the order in which these start and stop; what they do is theirs.
 */
import { SignetError } from '../base/error.ts'
import type { Clock, Log, Random } from '../base/ports.ts'
import { createBackoff } from './backoff.ts'
import type { AgentIdentity } from './node/identity.ts'
import type { Renewer } from './svid-cache/renewer.ts'
import { errorText, type ServerClient } from './sync/server-client.ts'
import { isAgentDenial, type Synchronizer } from './sync/synchronizer.ts'

const START_RETRY_MS = 5_000
/** After this long without success re-attestation is given up, so that whoever runs us can see it. */
const REATTEST_MS_MAX = 60_000
const START_RETRY_CEILING_MS = 120_000
const ROTATION_CHECK_MS = 5_000

export interface RuntimePorts {
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
}

/** Attests, retrying for as long as `msMax` says. A `permission_denied` is final. */
export async function attestWithRetries(
  ports: RuntimePorts,
  attest: () => Promise<void>,
  options: { readonly msMax: number; readonly signal: AbortSignal },
): Promise<void> {
  const { clock, random, log } = ports
  const ceilingMs = Math.min(options.msMax, START_RETRY_CEILING_MS)
  const backoff = createBackoff(random, START_RETRY_MS, ceilingMs)
  const startMs = clock.monotonicMs()
  for (;;) {
    options.signal.throwIfAborted()
    try {
      return await attest()
    } catch (error) {
      if (error instanceof SignetError && error.kind === 'permission_denied') throw error
      const waitMs = backoff.next()
      if (clock.monotonicMs() + waitMs - startMs > options.msMax) throw error
      log.warn('Failed to retrieve attestation result', {
        error: errorText(error),
        retry_interval: `${Math.round(waitMs / 100) / 10}s`,
      })
      await clock.sleep(waitMs, options.signal)
    }
  }
}

/** Rejects when nothing was applied within `msMax` of starting. */
export async function waitForFirstSync(
  ports: RuntimePorts,
  synchronizer: Synchronizer,
  options: { readonly msMax: number; readonly signal: AbortSignal },
): Promise<void> {
  const { clock } = ports
  const startMs = clock.monotonicMs()
  while (synchronizer.lastSuccess === 0) {
    if (clock.monotonicMs() - startMs > options.msMax) {
      throw new SignetError('unavailable', 'first_sync_failed', 'failed to sync with SPIRE Server')
    }
    await clock.sleep(100, options.signal)
  }
}

export interface SupervisorOptions extends RuntimePorts {
  readonly identity: AgentIdentity
  readonly synchronizer: Synchronizer
  readonly renewer: Renewer
  readonly client: Pick<ServerClient, 'renewAgent' | 'release'>
  readonly roots: () => readonly Uint8Array[]
  /** Forgets what must not be served any more: after a ban, or when attestation is refused. */
  readonly forget: () => Promise<void>
}

/** Runs until aborted; rejects with what made the agent stop. */
export async function supervise(options: SupervisorOptions, signal: AbortSignal): Promise<void> {
  const { log } = options
  while (!signal.aborted) {
    try {
      await runTasks(options, signal)
      if (!signal.aborted) continue
      log.info('Cache manager stopped')
      return
    } catch (error) {
      if (signal.aborted) return
      if (!isAgentDenial(error)) {
        log.error('Cache manager crashed', { error: errorText(error) })
        throw error
      }
      if (error.denial === 'agent_banned') {
        log.warn('Agent is banned: removing SVID and shutting down', { error: errorText(error) })
        await options.forget()
        throw error
      }
      await reattest(options, error, signal)
    }
  }
}

/**
 * The three loops; the first to fail ends the others. It returns before the signal aborts when what
 * was refused is replaced already: the server ends the push stream of an old certificate before the
 * new one has arrived.
 */
async function runTasks(options: SupervisorOptions, parent: AbortSignal): Promise<void> {
  const own = new AbortController()
  const signal = AbortSignal.any([parent, own.signal])
  const tasks = [
    options.synchronizer.run(signal),
    options.renewer.run(signal),
    runRotation(options, signal),
  ]
  try {
    await Promise.all(tasks)
  } catch (error) {
    const refused = options.identity.svid
    own.abort()
    await Promise.allSettled(tasks)
    const isReplaced = options.identity.svid !== refused
    if (!isReplaced || !isAgentDenial(error) || error.denial === 'agent_banned') throw error
  }
}

async function reattest(
  options: SupervisorOptions,
  denial: SignetError,
  signal: AbortSignal,
): Promise<void> {
  const { log, identity } = options
  log.warn('Agent needs to re-attest; will attempt to re-attest', { error: errorText(denial) })
  try {
    if (!identity.svid.reattestable) throw denial
    const attest = () => identity.reattest(options.roots())
    await attestWithRetries(options, attest, { msMax: REATTEST_MS_MAX, signal })
    afterRotation(options)
  } catch (error) {
    if (signal.aborted) return
    log.error('Agent failed re-attestation; removing SVID and shutting down', {
      error: errorText(error),
    })
    await options.forget()
    throw denial
  }
}

async function runRotation(options: SupervisorOptions, signal: AbortSignal): Promise<void> {
  const { clock, random } = options
  const backoff = createBackoff(random, ROTATION_CHECK_MS)
  while (!signal.aborted) {
    if (await rotateIfDue(options)) backoff.reset()
    await clock.sleep(backoff.next(), signal).catch(() => {})
  }
}

/** False when renewal failed and is to be tried again; rejects when it can't succeed any more. */
async function rotateIfDue(options: SupervisorOptions): Promise<boolean> {
  const { identity, client, log } = options
  if (!identity.isRenewalDue()) return true
  const what = identity.svid.reattestable ? 'reattest agent' : 'rotate agent SVID'
  try {
    await identity.renew((csr) => client.renewAgent(csr), options.roots())
    afterRotation(options)
    return true
  } catch (error) {
    log.error(`Could not ${what}`, { error: errorText(error) })
    if (isAgentDenial(error)) throw error
    // Differs from SPIRE: an agent that can attest again goes on trying after its SVID expired and
    // serves what it has meanwhile (reliability.md F12); SPIRE's exits.
    if (identity.isExpired() && !identity.svid.reattestable) {
      const text = `current SVID has already expired and ${what} failed: ${errorText(error)}`
      throw new SignetError('unavailable', 'agent_svid_expired', text, { cause: error })
    }
    return false
  }
}

/** What was connected with the old certificate is connected anew. */
function afterRotation({ client, synchronizer }: SupervisorOptions): void {
  client.release()
  synchronizer.reconnect()
}
