/** One subscribed stream: whose it is, what it still has to send, and when it has to end. */
import { toDecimal } from '../../base/bytes.ts'
import { type DenialReason, SignetError } from '../../base/error.ts'
import { SYNC_HEARTBEAT_MS } from '../../base/limits.ts'
import type { Clock, EpochSeconds, Log } from '../../base/ports.ts'
import type { AttestedAgent } from '../../spiffe/attested-agent.ts'
import type { SpiffeId } from '../../spiffe/spiffe-id.ts'
import type { Certificate } from '../../x509/certificate.ts'
import { PushSession, type SessionSources } from './push-session.ts'

export class Subscriber {
  readonly agentId: SpiffeId
  readonly session: PushSession
  readonly log: Log
  readonly #clock: Clock
  /** The certificate of the connection. */
  readonly #serialNumber: string
  readonly #notAfter: EpochSeconds
  readonly #end = new AbortController()
  #lastSentMs: number
  #isHeartbeatDue = false
  #wake: (() => void) | undefined

  constructor(
    ports: { readonly clock: Clock; readonly log: Log },
    sources: SessionSources,
    agentId: SpiffeId,
    leaf: Pick<Certificate, 'serialNumber' | 'notAfter'>,
  ) {
    this.agentId = agentId
    this.session = new PushSession(sources, agentId)
    this.log = ports.log
    this.#clock = ports.clock
    this.#serialNumber = toDecimal(leaf.serialNumber)
    this.#notAfter = leaf.notAfter
    this.#lastSentMs = ports.clock.monotonicMs()
  }

  /** Aborts when the stream has to end; its reason is what the agent gets. */
  get signal(): AbortSignal {
    return this.#end.signal
  }

  get isHeartbeatDue(): boolean {
    return this.#isHeartbeatDue
  }

  end(reason: SignetError): void {
    if (!this.signal.aborted) this.#end.abort(reason)
    this.wake()
  }

  deny(denial: DenialReason): void {
    const error = denied(denial)
    if (this.signal.aborted) return
    this.log.info('Ending the push stream', { reason: denial })
    this.end(error)
  }

  wake(): void {
    this.#wake?.()
  }

  /** Until something is owed, a heartbeat is due, or the stream has to end. */
  async woken(): Promise<void> {
    if (this.session.owes || this.#isHeartbeatDue || this.signal.aborted) return
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#wake = resolve
    await promise
  }

  sent(): void {
    this.#lastSentMs = this.#clock.monotonicMs()
    this.#isHeartbeatDue = false
  }

  /** On each tick: certificates end, and silence needs a heartbeat. */
  check(): void {
    if (this.#clock.nowSeconds() > this.#notAfter) {
      this.deny('agent_expired')
    } else if (this.#clock.monotonicMs() - this.#lastSentMs >= SYNC_HEARTBEAT_MS) {
      this.#isHeartbeatDue = true
      this.wake()
    }
  }

  /**
   * Why this agent row forbids the stream to go on, in the order of api.md §3, steps 5 to 9. A
   * renewed certificate is good before its first use has been recorded.
   */
  denialOf(agent: AttestedAgent | undefined): DenialReason | undefined {
    if (agent === undefined) return 'agent_not_attested'
    if (agent.serialNumber === '') return 'agent_banned'
    const isActive =
      agent.serialNumber === this.#serialNumber || agent.newSerialNumber === this.#serialNumber
    return isActive ? undefined : 'agent_not_active'
  }
}

/** With the text of a call that was never allowed (api.md §3): agents act on the detail alone. */
function denied(denial: DenialReason): SignetError {
  const text = 'authorization denied for method /signet.sync.v1.Sync/Subscribe'
  return new SignetError('permission_denied', denial, text, { denial })
}
