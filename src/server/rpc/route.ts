/**
 * A row of the routing table: one method with its codec, who may call it, what it costs, and what
 * answers it. Rows are built from the generated service definitions, so a path can't be mistyped.
 */
import type { LogFields } from '../../base/ports.ts'
import type { AllowedCaller } from '../authz/authorize.ts'
import type { RateLimitName } from '../rate-limit.ts'
import type { CallContext } from './context.ts'

/** The part of a generated method definition that a route needs. */
export interface MethodDefinition<Request, Response> {
  readonly path: string
  readonly requestStream: boolean
  readonly responseStream: boolean
  readonly requestDeserialize: (bytes: Buffer) => Request
  readonly responseSerialize: (value: Response) => Buffer
}

export interface RateLimitRow<Request> {
  readonly name: RateLimitName
  /** Completes the text `rejecting request due to …`. */
  readonly reason: string
  /** Tokens a request takes; streams are asked before their first message. */
  cost(request: Request): number
  /** What the handler would have told the audit log of a request that is turned away. */
  auditFields?(request: Request): LogFields
}

export interface Stream<Request, Response> {
  /**
   * Undefined once the client is done. A client that cancels looks done first, in grpc-js: what
   * must tell the two apart asks the context's signal.
   */
  receive(): Promise<Request | undefined>
  /** Resolves when the transport has taken it, so a client that never reads holds one message. */
  send(response: Response): Promise<void>
}

interface RouteBase {
  readonly path: string
  readonly callers: readonly AllowedCaller[]
}

export interface UnaryRoute<Request = unknown, Response = unknown> extends RouteBase {
  readonly kind: 'unary'
  decode(message: Buffer): Request
  encode(response: Response): Buffer
  readonly rateLimit: RateLimitRow<Request> | undefined
  handle(request: Request, context: CallContext): Promise<Response>
}

export interface StreamRoute<Request = unknown, Response = unknown> extends RouteBase {
  readonly kind: 'stream'
  decode(message: Buffer): Request
  encode(response: Response): Buffer
  readonly rateLimit: RateLimitRow<void> | undefined
  handle(stream: Stream<Request, Response>, context: CallContext): Promise<void>
}

/** Answered after authorization, so that a stranger learns nothing. */
interface UnimplementedRoute extends RouteBase {
  readonly kind: 'unimplemented'
  readonly streams: boolean
  readonly reason: string
}

export type Route = UnaryRoute | StreamRoute | UnimplementedRoute

export function unary<Request, Response>(
  definition: MethodDefinition<Request, Response>,
  callers: readonly AllowedCaller[],
  handle: (request: Request, context: CallContext) => Promise<Response>,
  rateLimit?: RateLimitRow<Request>,
): Route {
  return {
    kind: 'unary',
    path: definition.path,
    callers,
    decode: definition.requestDeserialize,
    encode: definition.responseSerialize,
    handle,
    rateLimit,
  } satisfies UnaryRoute<Request, Response> as UnaryRoute
}

export function stream<Request, Response>(
  definition: MethodDefinition<Request, Response>,
  callers: readonly AllowedCaller[],
  handle: (stream: Stream<Request, Response>, context: CallContext) => Promise<void>,
  rateLimit?: RateLimitRow<void>,
): Route {
  return {
    kind: 'stream',
    path: definition.path,
    callers,
    decode: definition.requestDeserialize,
    encode: definition.responseSerialize,
    handle,
    rateLimit,
  } satisfies StreamRoute<Request, Response> as StreamRoute
}

export function unimplemented(
  definition: Pick<MethodDefinition<never, never>, 'path' | 'requestStream' | 'responseStream'>,
  callers: readonly AllowedCaller[],
  reason: string,
): Route {
  const streams = definition.requestStream || definition.responseStream
  return { kind: 'unimplemented', path: definition.path, callers, streams, reason }
}
