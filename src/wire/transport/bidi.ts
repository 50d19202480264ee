/**
 * A bidirectional call as send and receive, the shape in which protocols are written down. Received
 * messages wait in a short queue and hold the peer back when nobody takes them.
 */
import { type CallOptions, type Client, Metadata, type MethodDefinition } from '@grpc/grpc-js'
import { fromGrpcError } from '../status.ts'

/** Messages that may wait before the stream is paused. */
const QUEUE_LENGTH_MAX = 16

export interface BidiCall<Request, Response> {
  send(request: Request): void
  /** The next message, undefined when the peer ended with OK; rejects with SignetError. */
  receive(): Promise<Response | undefined>
  /** Nothing more will be sent. */
  end(): void
  cancel(): void
}

export function openBidi<Request, Response>(
  client: Client,
  method: MethodDefinition<Request, Response>,
  options: CallOptions,
): BidiCall<Request, Response> {
  const stream = client.makeBidiStreamRequest(
    method.path,
    method.requestSerialize,
    method.responseDeserialize,
    new Metadata(),
    options,
  )
  const queue: Response[] = []
  let ended = false
  let failure: unknown
  let wake: (() => void) | undefined
  const signal = () => {
    wake?.()
    wake = undefined
  }
  stream.on('data', (message: Response) => {
    queue.push(message)
    if (queue.length >= QUEUE_LENGTH_MAX) stream.pause()
    signal()
  })
  // The error comes before the messages that arrived ahead of it have been read: `end` decides.
  stream.on('error', (error) => {
    failure = error
  })
  stream.on('end', () => {
    ended = true
    signal()
  })
  return {
    send: (request) => {
      if (failure === undefined && !ended) stream.write(request)
    },
    end: () => stream.end(),
    cancel: () => stream.cancel(),
    async receive() {
      while (queue.length === 0 && !ended) {
        await new Promise<void>((resolve) => {
          wake = resolve
        })
      }
      const message = queue.shift()
      if (stream.isPaused() && queue.length < QUEUE_LENGTH_MAX / 2) stream.resume()
      if (message !== undefined) return message
      if (failure !== undefined) throw fromGrpcError(failure)
      return undefined
    },
  }
}
