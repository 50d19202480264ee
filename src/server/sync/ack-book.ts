/**
 * What each agent has in use, by its own word: for "have all agents the new bundle" before a
 * rotation goes on, and for reports. Kept for agents that are away, forgotten with the agent.
 */
import type { Clock } from '../../base/ports.ts'
import type { Ack, Hello } from '../../wire/gen/signet/sync/v1/sync.ts'

const AGENT_VERSION_CHARS_MAX = 255

export interface AgentSyncState {
  readonly agentId: string
  readonly isConnected: boolean
  readonly agentVersion: string
  /** Number of the last change applied, in this server's order; undefined before the first ack. */
  readonly sequence: number | undefined
  /** Of the own trust domain's bundle. */
  readonly bundleSequence: bigint
  /** Wall clock, of the last hello or ack. */
  readonly heardAtMs: number
}

export class AckBook {
  readonly #clock: Pick<Clock, 'nowMs'>
  readonly #states = new Map<string, AgentSyncState>()

  constructor(clock: Pick<Clock, 'nowMs'>) {
    this.#clock = clock
  }

  get(agentId: string): AgentSyncState | undefined {
    return this.#states.get(agentId)
  }

  all(): AgentSyncState[] {
    return [...this.#states.values()]
  }

  connected(agentId: string, hello: Pick<Hello, 'agentVersion' | 'bundleSequence'>): void {
    this.#states.set(agentId, {
      agentId,
      isConnected: true,
      agentVersion: hello.agentVersion.slice(0, AGENT_VERSION_CHARS_MAX),
      sequence: this.#states.get(agentId)?.sequence,
      bundleSequence: hello.bundleSequence,
      heardAtMs: this.#clock.nowMs(),
    })
  }

  acknowledged(agentId: string, sequence: number, ack: Pick<Ack, 'bundleSequence'>): void {
    const state = this.#states.get(agentId)
    if (state === undefined) return
    const { bundleSequence } = ack
    this.#states.set(agentId, {
      ...state,
      ...{ sequence, bundleSequence, heardAtMs: this.#clock.nowMs() },
    })
  }

  disconnected(agentId: string): void {
    const state = this.#states.get(agentId)
    if (state !== undefined) this.#states.set(agentId, { ...state, isConnected: false })
  }

  /** Evicted or pruned: what it had counts no more. */
  forget(agentId: string): void {
    this.#states.delete(agentId)
  }
}
