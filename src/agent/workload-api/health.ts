/** grpc.health.v1 on the agent's sockets: of the agent as a whole, as `agent healthcheck` asks. */
import type { ServerUnaryCall, ServerWritableStream, sendUnaryData } from '@grpc/grpc-js'
import { SignetError } from '../../base/error.ts'
import {
  type HealthCheckRequest,
  type HealthCheckResponse,
  HealthCheckResponse_ServingStatus as ServingStatus,
} from '../../wire/gen/grpc/health/v1/health.ts'
import { toGrpcStatus } from '../../wire/status.ts'

export function healthImplementation(isServing: () => Promise<boolean>) {
  return {
    async check(
      call: ServerUnaryCall<HealthCheckRequest, HealthCheckResponse>,
      callback: sendUnaryData<HealthCheckResponse>,
    ) {
      if (call.request.service !== '') {
        const text = 'per-service health is not supported'
        const error = new SignetError('invalid_argument', 'health_per_service', text)
        return callback(toGrpcStatus(error))
      }
      const status = (await isServing()) ? ServingStatus.SERVING : ServingStatus.NOT_SERVING
      callback(null, { status })
    },
    list: refuse('List'),
    watch: (call: ServerWritableStream<HealthCheckRequest, HealthCheckResponse>) => {
      call.emit('error', toGrpcStatus(unimplemented('Watch')))
    },
  }
}

function refuse(method: string) {
  return (_call: unknown, callback: (error: object) => void) => {
    callback(toGrpcStatus(unimplemented(method)))
  }
}

function unimplemented(method: string): SignetError {
  return new SignetError('unimplemented', 'not_implemented', `method ${method} not implemented`)
}
