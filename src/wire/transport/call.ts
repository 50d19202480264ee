/**
 * Unary calls by their generated method definition, as promises that reject with SignetError. Every
 * call has a deadline: a server that hangs must not hold its caller.
 */
import {
  type CallOptions,
  type Client,
  Metadata,
  type MethodDefinition,
  status,
} from '@grpc/grpc-js'
import type { SignetError } from '../../base/error.ts'
import type { Clock } from '../../base/ports.ts'
import { fromGrpcError } from '../status.ts'

/** Each call of a SPIRE agent or command (api.md §11.1). */
export const RPC_TIMEOUT_MS = 30_000

export interface CallSettings {
  readonly clock: Clock
  readonly timeoutMs?: number
  readonly signal?: AbortSignal | undefined
  readonly metadata?: Metadata
}

export function callUnary<Request, Response>(
  client: Client,
  method: MethodDefinition<Request, Response>,
  request: Request,
  settings: CallSettings,
): Promise<Response> {
  return new Promise((resolve, reject) => {
    const { signal } = settings
    if (signal?.aborted) return reject(signal.reason)
    const onAbort = () => call.cancel()
    const call = client.makeUnaryRequest(
      method.path,
      method.requestSerialize,
      method.responseDeserialize,
      request,
      settings.metadata ?? new Metadata(),
      callOptions(settings),
      (error, response) => {
        signal?.removeEventListener('abort', onAbort)
        if (error) reject(fromGrpcError(error))
        else resolve(response as Response)
      },
    )
    signal?.addEventListener('abort', onAbort, { once: true })
  })
}

/** grpc-js takes the deadline as a moment of the wall clock. */
export function callOptions(settings: CallSettings): CallOptions {
  return { deadline: settings.clock.nowMs() + (settings.timeoutMs ?? RPC_TIMEOUT_MS) }
}

/** As Go prints an error of a call: SPIRE's log lines and its answers to workloads contain it. */
export function rpcErrorText(error: SignetError): string {
  const code: unknown = error.fields.grpcCode
  if (typeof code !== 'number') return error.message
  const words = (status[code] ?? 'UNKNOWN').toLowerCase().split('_')
  const name = words.map((word) => word[0]!.toUpperCase() + word.slice(1)).join('')
  return `rpc error: code = ${name === 'Cancelled' ? 'Canceled' : name} desc = ${error.message}`
}
