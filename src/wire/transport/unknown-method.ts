/**
 * What a gRPC server of ours says of methods that it does not have. grpc-js has words of its own
 * and no hook for others; clients know those of Go's servers, SPIRE's among them.
 */
import { type Server, type ServerDuplexStream, status } from '@grpc/grpc-js'
import { assert } from '../../base/assert.ts'

type Handlers = ReadonlyMap<string, unknown>

/**
 * Exchanges the private table in which grpc-js looks for a call's handler by its path. Call it
 * before anything is registered.
 */
export function nameUnknownMethods(server: Server): void {
  const table: unknown = Reflect.get(server, 'handlers')
  assert(table instanceof Map && table.size === 0, 'grpc-js keeps its handlers by path')
  Reflect.set(server, 'handlers', new KnownMethods())
}

class KnownMethods extends Map<string, unknown> {
  override get(path: string): unknown {
    return super.get(path) ?? unknownMethod(path, this)
  }
}

/** A stream: it is answered at once, whatever the client has yet to send. */
function unknownMethod(path: string, known: Handlers) {
  const func = (call: ServerDuplexStream<Buffer, Buffer>) => {
    call.emit('error', { code: status.UNIMPLEMENTED, details: textOf(path, known) })
  }
  return { func, serialize: identity, deserialize: identity, type: 'bidi', path }
}

/** As grpc-go's `handleStream` has it. */
function textOf(path: string, known: Handlers): string {
  const name = path.replace(/^\//, '')
  const slash = name.lastIndexOf('/')
  if (slash < 0) return `malformed method name: ${JSON.stringify(path)}`
  const service = name.slice(0, slash)
  for (const each of known.keys()) {
    if (!each.startsWith(`/${service}/`)) continue
    return `unknown method ${name.slice(slash + 1)} for service ${service}`
  }
  return `unknown service ${service}`
}

function identity(bytes: Buffer): Buffer {
  return bytes
}
