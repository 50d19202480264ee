/** grpc.health.v1 on the agent's sockets: of the agent as a whole, as `agent healthcheck` asks. */
import type { ServerUnaryCall, ServerWritableStream, sendUnaryData } from '@grpc/grpc-js'
import { SignetError, toSignetError } from '../../base/error.ts'
import type { Clock, Metrics } from '../../base/ports.ts'
import {
  type HealthCheckRequest,
  type HealthCheckResponse,
  HealthCheckResponse_ServingStatus as ServingStatus,
} from '../../wire/gen/grpc/health/v1/health.ts'
import { toGrpcStatus } from '../../wire/status.ts'
import { countCall } from '../call-counter.ts'

export interface HealthPorts {
  readonly isServing: () => Promise<boolean>
  readonly clock: Clock
  readonly metrics: Metrics
}

export function healthImplementation(ports: HealthPorts) {
  return {
    check(
      call: ServerUnaryCall<HealthCheckRequest, HealthCheckResponse>,
      callback: sendUnaryData<HealthCheckResponse>,
    ) {
      countCall(ports, 'rpc.health.check', () => check(ports, call.request)).then(
        (response) => callback(null, response),
        (error: unknown) => callback(toGrpcStatus(toSignetError(error))),
      )
    },
    list: refuse('List'),
    watch: (call: ServerWritableStream<HealthCheckRequest, HealthCheckResponse>) => {
      call.emit('error', toGrpcStatus(unimplemented('Watch')))
    },
  }
}

async function check(
  { isServing }: HealthPorts,
  { service }: HealthCheckRequest,
): Promise<HealthCheckResponse> {
  if (service !== '') {
    const text = 'per-service health is not supported'
    throw new SignetError('invalid_argument', 'health_per_service', text)
  }
  const serving = await isServing()
  return { status: serving ? ServingStatus.SERVING : ServingStatus.NOT_SERVING }
}

function refuse(method: string) {
  return (_call: unknown, callback: (error: object) => void) => {
    callback(toGrpcStatus(unimplemented(method)))
  }
}

function unimplemented(method: string): SignetError {
  return new SignetError('unimplemented', 'not_implemented', `method ${method} not implemented`)
}
