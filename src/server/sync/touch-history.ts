/**
 * Which entries changed for which agent, as far back as a bounded memory reaches: what an agent
 * that comes back with a cursor has missed. An agent whom nothing touched has missed nothing,
 * however long it was away.
 */
import { SYNC_HISTORY_AGENTS_MAX, SYNC_HISTORY_WEIGHT_MAX } from '../../base/limits.ts'
import type { Touched } from '../entry-cache/entry-index.ts'

interface Step extends Touched {
  readonly sequence: number
}

export class TouchHistory {
  /** Oldest first. */
  #steps: Step[] = []
  #forgotten = 0
  readonly #byAgent = new Map<string, Step[]>()
  #weight = 0
  /** The last step forgotten, for each agent it touched; for all others `#floor`. */
  readonly #floors = new Map<string, number>()
  #floor = 0

  /** `sequence` never goes back. */
  record(sequence: number, touched: readonly Touched[]): void {
    for (const { agentIds, entryIds } of touched) {
      const step = { sequence, agentIds, entryIds }
      this.#steps.push(step)
      this.#weight += weightOf(step)
      for (const agentId of agentIds) {
        const steps = this.#byAgent.get(agentId)
        if (steps === undefined) this.#byAgent.set(agentId, [step])
        else steps.push(step)
      }
    }
    while (this.#weight > SYNC_HISTORY_WEIGHT_MAX) this.#forgetOldest()
  }

  /** Entries touched for this agent after `sequence`; undefined when that is no longer known. */
  since(agentId: string, sequence: number): Set<string> | undefined {
    if (sequence < Math.max(this.#floor, this.#floors.get(agentId) ?? 0)) return undefined
    const ids = new Set<string>()
    for (const step of this.#byAgent.get(agentId) ?? []) {
      if (step.sequence > sequence) for (const id of step.entryIds) ids.add(id)
    }
    return ids
  }

  clear(): void {
    this.#steps = []
    this.#forgotten = 0
    this.#byAgent.clear()
    this.#weight = 0
    this.#floors.clear()
    this.#floor = 0
  }

  #forgetOldest(): void {
    const step = this.#steps[this.#forgotten++]
    if (step === undefined) return
    this.#weight -= weightOf(step)
    for (const agentId of step.agentIds) {
      const steps = this.#byAgent.get(agentId)
      steps?.shift()
      if (steps?.length === 0) this.#byAgent.delete(agentId)
      this.#floors.set(agentId, step.sequence)
    }
    if (this.#floors.size > SYNC_HISTORY_AGENTS_MAX) {
      this.#floor = step.sequence
      this.#floors.clear()
    }
    // Shifting each time would move the whole array each time.
    if (this.#forgotten > 1_000 && this.#forgotten * 2 > this.#steps.length) {
      this.#steps = this.#steps.slice(this.#forgotten)
      this.#forgotten = 0
    }
  }
}

function weightOf(step: Touched): number {
  return step.agentIds.length + step.entryIds.length
}
