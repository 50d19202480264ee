/**
 * The last answers to "all entries of this agent". They are exact as long as they are here: whatever
 * touches an agent drops its answer. Since the array stays the same one, callers can hang what they
 * derive from it (encoded revisions, a hash) on its identity.
 */
import { AUTHORIZED_ENTRIES_CACHED_MAX } from '../../base/limits.ts'
import type { EpochSeconds } from '../../base/ports.ts'
import type { RegistrationEntry } from '../../spiffe/registration-entry.ts'

interface Answer {
  readonly entries: readonly RegistrationEntry[]
  /** When the agent's aliases stop counting; undefined for an agent that is not attested. */
  readonly validUntil: EpochSeconds | undefined
}

export class ClosureCache {
  /** Oldest first. */
  readonly #answers = new Map<string, Answer>()
  #slots = 0

  get(agentId: string, now: EpochSeconds): readonly RegistrationEntry[] | undefined {
    const answer = this.#answers.get(agentId)
    if (answer === undefined) return undefined
    if (answer.validUntil === undefined || now < answer.validUntil) return answer.entries
    this.delete(agentId)
    return undefined
  }

  set(
    agentId: string,
    entries: readonly RegistrationEntry[],
    validUntil: EpochSeconds | undefined,
  ): void {
    this.delete(agentId)
    this.#answers.set(agentId, { entries, validUntil })
    this.#slots += slotsOf(entries)
    for (const oldest of this.#answers.keys()) {
      if (this.#slots <= AUTHORIZED_ENTRIES_CACHED_MAX) break
      this.delete(oldest)
    }
  }

  delete(agentId: string): void {
    const answer = this.#answers.get(agentId)
    if (answer === undefined) return
    this.#answers.delete(agentId)
    this.#slots -= slotsOf(answer.entries)
  }
}

/** An empty answer has a cost as well: a key and a row. */
function slotsOf(entries: readonly unknown[]): number {
  return entries.length + 8
}
