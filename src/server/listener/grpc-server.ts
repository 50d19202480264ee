/**
 * The gRPC server behind one door. Doors own their sockets and hand them over by a connection
 * injector; HTTP/2 limits are set here (reliability.md T-S8). Rapid resets, CONTINUATION, SETTINGS
 * and PING floods are bounded by nghttp2 itself (its defaults; a test keeps us honest about that).
 */
import type { Socket } from 'node:net'
import { Server, ServerCredentials } from '@grpc/grpc-js'
import {
  GRACEFUL_STOP_MS,
  HTTP2_SESSION_MEGABYTES_MAX,
  MESSAGE_BYTES_MAX,
  STREAMS_PER_CONNECTION_MAX,
} from '../../base/limits.ts'
import type { Clock } from '../../base/ports.ts'
import { limitHeaderLists } from '../../wire/transport/header-limit.ts'
import { nameUnknownMethods } from '../../wire/transport/unknown-method.ts'

export interface GrpcServer {
  /** Where routes are added. */
  readonly server: Server
  /** Takes over a connected socket that speaks HTTP/2 from its first byte. */
  inject(socket: Socket): void
  /** Finishes what runs, for at most GRACEFUL_STOP_MS, then cuts. */
  stop(): Promise<void>
}

export interface GrpcServerOptions {
  /** After this a connection gets GOAWAY and no new streams; running ones end in their own time. */
  readonly connectionAgeMsMax?: number
}

export function createGrpcServer(options: GrpcServerOptions, clock: Clock): GrpcServer {
  const age = options.connectionAgeMsMax
  const server = new Server({
    'grpc.max_concurrent_streams': STREAMS_PER_CONNECTION_MAX,
    'grpc.max_receive_message_length': MESSAGE_BYTES_MAX,
    'grpc.max_send_message_length': -1,
    'grpc-node.max_session_memory': HTTP2_SESSION_MEGABYTES_MAX,
    'grpc.enable_channelz': 0,
    ...(age !== undefined && { 'grpc.max_connection_age_ms': age }),
  })
  limitHeaderLists(server)
  nameUnknownMethods(server)
  const injector = server.createConnectionInjector(ServerCredentials.createInsecure())
  return {
    server,
    inject: (socket) => injector.injectConnection(socket),
    async stop() {
      const graceful = new Promise<void>((resolve) => server.tryShutdown(() => resolve()))
      const ended = new AbortController()
      const timeout = clock.sleep(GRACEFUL_STOP_MS, ended.signal).then(
        () => server.forceShutdown(),
        () => {},
      )
      await Promise.race([graceful, timeout])
      ended.abort()
      injector.destroy()
    },
  }
}
