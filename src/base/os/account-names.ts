/**
 * Names of users and groups as the machine's name services give them (getpwuid_r, getgrgid_r).
 * Answers are shared for a moment only: a renumbered account must not keep its old name.
 */
import type { Clock } from '../ports.ts'
import { lookUpName } from './libc.ts'

/** Many connections of one start-up storm ask for the same few accounts. */
const SHARED_MS = 1_000
/** An attacker with a range of subordinate ids must not grow this without bound. */
const SHARED_MAX = 1_024

export interface AccountNames {
  /** undefined when no name service knows it. */
  user(uid: number): Promise<string | undefined>
  group(gid: number): Promise<string | undefined>
}

export function createAccountNames(
  clock: Clock,
  lookUp: typeof lookUpName = lookUpName,
): AccountNames {
  const shared = new Map<
    string,
    { readonly at: number; readonly name: Promise<string | undefined> }
  >()
  const ask = (kind: 'user' | 'group', id: number) => {
    const key = `${kind}:${id}`
    const now = clock.monotonicMs()
    const known = shared.get(key)
    if (known && now - known.at < SHARED_MS) return known.name
    if (shared.size >= SHARED_MAX) shared.clear()
    // A broken name service hides the name, as in SPIRE; it never fails the attestation.
    const name = lookUp(kind, id).catch(() => undefined)
    shared.set(key, { at: now, name })
    return name
  }
  return { user: (uid) => ask('user', uid), group: (gid) => ask('group', gid) }
}
