/** The far end of a bidirectional call, played by a test. */
import type { SignetError } from '../../src/base/error.ts'
import type { BidiCall } from '../../src/wire/transport/bidi.ts'

export interface ScriptedCall<Request, Response> extends BidiCall<Request, Response> {
  readonly sent: Request[]
  readonly cancelled: boolean
  /** Answers, also ahead of being asked. */
  reply(...responses: Response[]): void
  finish(error?: SignetError): void
  /** Resolves once `count` requests were sent in all. */
  untilSent(count: number): Promise<void>
}

export function createScriptedCall<Request, Response>(
  onRequest: (request: Request, call: ScriptedCall<Request, Response>) => void = () => {},
): ScriptedCall<Request, Response> {
  const sent: Request[] = []
  const queue: Response[] = []
  let finished = false
  let cancelled = false
  let failure: SignetError | undefined
  let wake = () => {}
  let sentWake: (() => void)[] = []
  const call: ScriptedCall<Request, Response> = {
    sent,
    get cancelled() {
      return cancelled
    },
    send(request) {
      sent.push(request)
      for (const one of sentWake.splice(0)) one()
      onRequest(request, call)
    },
    async receive() {
      while (queue.length === 0 && !finished) {
        await new Promise<void>((resolve) => {
          wake = resolve
        })
      }
      const next = queue.shift()
      if (next !== undefined) return next
      if (failure !== undefined) throw failure
      return undefined
    },
    end() {},
    cancel() {
      cancelled = true
      finished = true
      wake()
    },
    reply(...responses) {
      queue.push(...responses)
      wake()
    },
    finish(error) {
      failure = error
      finished = true
      wake()
    },
    async untilSent(count) {
      while (sent.length < count) {
        await new Promise<void>((resolve) => {
          sentWake = [...sentWake, resolve]
        })
      }
    },
  }
  return call
}
