/**
 * Bounds of AttestAgent (api.md §7.1): it is open to anybody, so strangers may neither hold it for
 * ever nor all of it at once.
 */
import { SignetError } from '../../../../base/error.ts'
import {
  ATTESTATION_WAIT_MS_MAX,
  ATTESTATIONS_MAX,
  ATTESTATIONS_PER_ADDRESS_MAX,
} from '../../../../base/limits.ts'
import type { Clock } from '../../../../base/ports.ts'
import type { Stream } from '../../route.ts'

export interface AttestationSlots {
  /** Taken until disposed; throws unavailable when there is none. */
  enter(address: string): Disposable
}

/** Owns the count of attestations under way. */
export function createAttestationSlots(): AttestationSlots {
  const byAddress = new Map<string, number>()
  let total = 0
  return {
    enter(address) {
      const here = byAddress.get(address) ?? 0
      if (total >= ATTESTATIONS_MAX || here >= ATTESTATIONS_PER_ADDRESS_MAX) throw crowded()
      total++
      byAddress.set(address, here + 1)
      return {
        [Symbol.dispose]: () => {
          total--
          const left = byAddress.get(address)! - 1
          if (left === 0) byAddress.delete(address)
          else byAddress.set(address, left)
        },
      }
    },
  }
}

/** Not PermissionDenied, which is final: the agent comes again. */
function crowded(): SignetError {
  const text = 'too many attestations are under way'
  return new SignetError('unavailable', 'attestations_crowded', text, { retryAfterSeconds: 1 })
}

/** The same stream, whose peer must send, and take what it is sent, in time. */
export function impatient<Request, Response>(
  stream: Stream<Request, Response>,
  clock: Pick<Clock, 'sleep'>,
): Stream<Request, Response> {
  return {
    receive: () => inTime(clock, stream.receive()),
    send: (response) => inTime(clock, stream.send(response)),
  }
}

async function inTime<T>(clock: Pick<Clock, 'sleep'>, work: Promise<T>): Promise<T> {
  const done = new AbortController()
  const late = clock.sleep(ATTESTATION_WAIT_MS_MAX, done.signal).then(() => {
    throw new SignetError('deadline_exceeded', 'attestation_late', 'agent did not answer in time')
  })
  late.catch(() => {})
  work.catch(() => {})
  try {
    return await Promise.race([work, late])
  } finally {
    done.abort()
  }
}
