/**
 * Serves the routing table on a grpc-js server: per call it finds the connection, authorizes,
 * waits for the rate limit, decodes, runs the handler and turns whatever it throws into a status.
 * Deny by default: a method without a row is not registered.
 *
 * grpc-js gets identity codecs, so that hot messages keep their received buffer and no byte is
 * decoded for a caller that is not authorized.
 */
import type {
  Server,
  ServerDuplexStream,
  ServerUnaryCall,
  sendUnaryData,
  UntypedHandleCall,
} from '@grpc/grpc-js'
import { SignetError, toSignetError } from '../../base/error.ts'
import type { Clock, Log, Metrics, Random } from '../../base/ports.ts'
import { newUuid } from '../../base/uuid.ts'
import { malformedMessage, UNREADABLE } from '../../wire/hot/protobuf.ts'
import { toGrpcStatus } from '../../wire/status.ts'
import type { Authorize } from '../authz/authorize.ts'
import type { Connection, Connections } from '../connection.ts'
import type { RateLimiter } from '../rate-limit.ts'
import { createAudit, noAudit } from './audit.ts'
import { createCallMeter, type MethodNames, namesOf } from './call-meter.ts'
import { actorOf, type CallContext } from './context.ts'
import { failed, logFailure, withRequestId } from './failure.ts'
import type { RateLimitRow, Route, StreamRoute, UnaryRoute } from './route.ts'
import { openStream } from './stream.ts'

export interface DoorPorts {
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  readonly metrics: Metrics
  readonly connections: Connections
  readonly authorize: Authorize
  readonly rateLimiter: RateLimiter
  readonly auditLogEnabled: boolean
}

/** What unary and streaming calls of grpc-js have in common. */
interface AnyCall {
  readonly cancelled: boolean
  getPeer(): string
  getDeadline(): Date | number
  once(event: 'cancelled', listener: () => void): unknown
}

export function addRoutes(server: Server, routes: Iterable<Route>, ports: DoorPorts): void {
  for (const route of routes) {
    const type = isUnary(route) ? 'unary' : 'bidi'
    const handler = isUnary(route) ? unaryHandler(route, ports) : streamHandler(route, ports)
    // grpc-js types handlers by their message types; ours are buffers on both sides.
    server.register(route.path, handler as UntypedHandleCall, identity, identity, type)
  }
}

function isUnary(route: Route): boolean {
  return route.kind === 'unary' || (route.kind === 'unimplemented' && !route.streams)
}

function identity(bytes: Buffer): Buffer {
  return bytes
}

function unaryHandler(route: Route, ports: DoorPorts) {
  const serve = server(route, ports)
  const waitForLimit = limitOf(route, ports)
  return (call: ServerUnaryCall<Buffer, Buffer>, callback: sendUnaryData<Buffer>): void => {
    const run = async (context: CallContext): Promise<Buffer> => {
      if (route.kind !== 'unary') throw unimplementedError(route)
      const request = decode(route, call.request)
      await waitForLimit(request, context)
      return route.encode(await route.handle(request, context))
    }
    void serve(call, run).then(
      (response) => callback(null, response),
      (error: SignetError) => callback(toGrpcStatus(error)),
    )
  }
}

function streamHandler(route: Route, ports: DoorPorts) {
  const serve = server(route, ports)
  const waitForLimit = limitOf(route, ports)
  return (call: ServerDuplexStream<Buffer, Buffer>): void => {
    const run = async (context: CallContext): Promise<void> => {
      if (route.kind !== 'stream') throw unimplementedError(route)
      await waitForLimit(undefined, context)
      await route.handle(openStream(call, route, context.signal), context)
    }
    void serve(call, run).then(
      () => call.end(),
      (error: SignetError) => call.emit('error', toGrpcStatus(error)),
    )
  }
}

/** One call from its connection to its outcome; rejects with what is to be sent. */
function server(route: Route, ports: DoorPorts) {
  const names = namesOf(route.path)
  const meter = createCallMeter(ports, names)
  return async <T>(call: AnyCall, run: (context: CallContext) => Promise<T>): Promise<T> => {
    const done = meter()
    const requestId = newUuid(ports.random)
    let log = ports.log
    let context: CallContext | undefined
    const life = new CallSignal(call)
    try {
      const connection = ports.connections.get(call.getPeer())
      if (connection === undefined) throw noPeer()
      log = callLog(ports.log, names, connection, requestId)
      context = await admit(route, ports, { call, life }, connection, requestId, log)
      const value = await run(context)
      done()
      return value
    } catch (thrown) {
      const error = withRequestId(toSignetError(thrown), requestId)
      done(error)
      // A denial was logged with its reason where it was decided.
      if (context !== undefined) logFailure(context.log, error)
      else if (error.kind !== 'permission_denied') logFailure(log, error)
      context?.audit.failure(error)
      throw error
    } finally {
      life.end()
    }
  }
}

async function admit(
  route: Route,
  ports: DoorPorts,
  { call, life }: { readonly call: AnyCall; readonly life: CallSignal },
  connection: Connection,
  requestId: string,
  log: Log,
): Promise<CallContext> {
  const caller = await ports.authorize(route.callers, route.path, connection, log)
  const authorizedLog = log.with({ authorized_as: caller.kind, authorized_via: caller.via })
  const deadline = call.getDeadline()
  return {
    method: route.path,
    connection,
    caller,
    requestId,
    actor: actorOf(caller, connection, requestId),
    log: authorizedLog,
    audit: ports.auditLogEnabled ? createAudit(authorizedLog, connection) : noAudit,
    deadlineMs: typeof deadline === 'number' ? deadline : deadline.getTime(),
    get signal() {
      return life.signal
    },
  }
}

function callLog(log: Log, names: MethodNames, connection: Connection, requestId: string): Log {
  return log.with({
    service: names.service,
    method: names.method,
    request_id: requestId,
    ...(connection.transport === 'tcp' && { caller_addr: connection.peer }),
    ...(connection.spiffeId && { caller_id: connection.spiffeId.toString() }),
  })
}

/**
 * Aborts when the client goes away while the call is served. Made when somebody asks for it: most
 * calls end before anybody waits, and grpc-js says `cancelled` at the end of every call.
 */
class CallSignal {
  #controller: AbortController | undefined
  #cancelled: boolean
  #ended = false

  constructor(call: AnyCall) {
    this.#cancelled = call.cancelled
    if (!this.#cancelled) call.once('cancelled', () => this.#cancel())
  }

  get signal(): AbortSignal {
    this.#controller ??= new AbortController()
    if (this.#cancelled && !this.#controller.signal.aborted) this.#abort(this.#controller)
    return this.#controller.signal
  }

  end(): void {
    this.#ended = true
  }

  #cancel(): void {
    if (this.#ended) return
    this.#cancelled = true
    if (this.#controller !== undefined) this.#abort(this.#controller)
  }

  #abort(controller: AbortController): void {
    controller.abort(new SignetError('canceled', 'canceled', 'context canceled'))
  }
}

function decode(route: UnaryRoute | StreamRoute, message: Buffer): unknown {
  try {
    return route.decode(message)
  } catch (cause) {
    if (cause instanceof SignetError) throw cause
    throw malformedMessage(UNREADABLE, cause)
  }
}

/** Resolves when the call may go on. */
type WaitForLimit = (request: unknown, context: CallContext) => Promise<void>

function limitOf(route: Route, ports: DoorPorts): WaitForLimit {
  const row = route.kind === 'unimplemented' ? undefined : route.rateLimit
  if (row === undefined) return async () => {}
  return limitBy(row as RateLimitRow<unknown>, namesOf(route.path).limitMetricKey, ports)
}

function limitBy(row: RateLimitRow<unknown>, metricKey: string, ports: DoorPorts): WaitForLimit {
  return async (request, context) => {
    // The admin socket is never limited.
    if (context.connection.transport === 'uds') return
    const { caller, connection, deadlineMs } = context
    const byAddress = row.name === 'attest' || caller.spiffeId === undefined
    const key = byAddress ? connection.remoteIp : `${caller.spiffeId}`
    const cost = row.cost(request)
    try {
      await ports.rateLimiter.wait({
        name: row.name,
        key,
        cost,
        metricKey,
        deadlineMs,
        get signal() {
          return context.signal
        },
      })
    } catch (thrown) {
      context.audit.add(() => row.auditFields?.(request) ?? {})
      throw failed(`rejecting request due to ${row.reason}`, thrown)
    }
  }
}

function unimplementedError(route: Route): SignetError {
  const reason = route.kind === 'unimplemented' ? route.reason : 'not implemented'
  return new SignetError('unimplemented', 'unimplemented', reason)
}

function noPeer(): SignetError {
  return new SignetError('internal', 'no_peer', 'no peer information available')
}
