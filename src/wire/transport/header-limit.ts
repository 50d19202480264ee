/**
 * The bound of request headers of a gRPC server of ours, at whichever door (reliability.md T-S8,
 * T-W6). Without it HTTP/2 sessions take 64 KiB of header list a request.
 */
import type { Server } from '@grpc/grpc-js'
import { assert } from '../../base/assert.ts'
import { HEADER_LIST_BYTES_MAX } from '../../base/limits.ts'

/**
 * grpc-js has no option for SETTINGS_MAX_HEADER_LIST_SIZE (it passes over `grpc.max_metadata_size`),
 * so its HTTP/2 options, which are private, are completed before an injector reads them. Call it on
 * a server with `grpc.max_concurrent_streams`, before anything is injected.
 */
export function limitHeaderLists(server: Server): void {
  const common: unknown = Reflect.get(server, 'commonServerOptions')
  assert(typeof common === 'object' && common !== null, 'grpc-js keeps its HTTP/2 options')
  const settings: unknown = Reflect.get(common, 'settings')
  assert(typeof settings === 'object' && settings !== null, 'the stream limit made settings')
  Object.assign(settings, { maxHeaderListSize: HEADER_LIST_BYTES_MAX })
}
