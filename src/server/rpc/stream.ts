/**
 * A grpc-js duplex call as messages to await: one is read when asked for, one is written at a
 * time.
 */
import type { ServerDuplexStream } from '@grpc/grpc-js'
import { SignetError } from '../../base/error.ts'
import { malformedMessage, UNREADABLE } from '../../wire/hot/protobuf.ts'
import type { Stream, StreamRoute } from './route.ts'

export function openStream(
  call: ServerDuplexStream<Buffer, Buffer>,
  route: StreamRoute,
  signal: AbortSignal,
): Stream<unknown, unknown> {
  const messages = call.iterator({ destroyOnReturn: false })
  return {
    async receive() {
      const next = await orCanceled(messages.next(), signal)
      if (next.done === true) return undefined
      try {
        return route.decode(next.value as Buffer)
      } catch (cause) {
        throw malformedMessage(UNREADABLE, cause)
      }
    },
    async send(response) {
      const message = route.encode(response)
      await orCanceled(
        new Promise<void>((resolve, reject) => {
          call.write(message, (error: Error | null | undefined) => {
            if (error) reject(error)
            else resolve()
          })
        }),
        signal,
      )
    },
  }
}

/** A stream that ends early is a client that went away, whatever Node calls it. */
async function orCanceled<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  let stop: (() => void) | undefined
  const aborted = new Promise<never>((_, reject) => {
    stop = () => reject(signal.reason)
    if (signal.aborted) stop()
    else signal.addEventListener('abort', stop, { once: true })
  })
  try {
    return await Promise.race([work, aborted])
  } catch (thrown) {
    if (signal.aborted) throw signal.reason
    throw new SignetError('canceled', 'canceled', 'context canceled', { cause: thrown })
  } finally {
    if (stop !== undefined) signal.removeEventListener('abort', stop)
    aborted.catch(() => {})
    work.catch(() => {})
  }
}
