/**
 * A stream of complete states to a client that may read slowly: the newest state wins, what was not
 * yet sent is dropped, and what the client already has is not sent again. Never ends with OK, which
 * Java clients take for the end of all updates (api.md §13).
 */
import type { ServerWritableStream } from '@grpc/grpc-js'
import { SignetError } from '../../base/error.ts'
import { toGrpcStatus } from '../../wire/status.ts'

export type RawStream<Request> = ServerWritableStream<Request, Buffer>

export interface StateStream {
  /** Sends it now, or as soon as the client reads again. */
  offer(state: Buffer): void
  /** Ends the stream with an error; later calls do nothing. */
  fail(error: SignetError): void
  readonly ended: boolean
  /** Resolves when the client went away; rejects with what failed it. */
  readonly end: Promise<void>
}

export function createStateStream<Request>(
  call: RawStream<Request>,
  onEnd: () => void,
): StateStream {
  let sent: Buffer | undefined
  let waiting: Buffer | undefined
  let blocked = false
  let ended = false
  const outcome = Promise.withResolvers<void>()
  // A stream that fails before anybody waits for its end is answered all the same.
  outcome.promise.catch(() => {})
  const finish = () => {
    ended = true
    waiting = undefined
    onEnd()
  }
  const end = () => {
    if (ended) return
    finish()
    outcome.resolve()
  }
  const send = (state: Buffer) => {
    if (sent === state || (sent?.equals(state) ?? false)) return
    sent = state
    blocked = !call.write(state)
  }
  call.on('drain', () => {
    blocked = false
    const state = waiting
    waiting = undefined
    if (state !== undefined && !ended) send(state)
  })
  call.on('cancelled', end)
  call.on('close', end)
  call.on('error', end)
  return {
    offer(state) {
      if (ended) return
      if (blocked) waiting = state
      else send(state)
    },
    fail(error) {
      if (ended) return
      finish()
      outcome.reject(error)
      call.emit('error', toGrpcStatus(error))
    },
    get ended() {
      return ended
    },
    end: outcome.promise,
  }
}

export function shuttingDown(): SignetError {
  return new SignetError('unavailable', 'agent_shutting_down', 'agent is shutting down')
}
