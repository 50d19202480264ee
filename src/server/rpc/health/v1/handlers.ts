/**
 * The gRPC health service of the admin socket (api.md §7.9): serving while the own bundle is
 * readable.
 */
import {
  type HealthCheckRequest,
  type HealthCheckResponse,
  HealthCheckResponse_ServingStatus as ServingStatus,
} from '../../../../wire/gen/grpc/health/v1/health.ts'
import type { CallContext } from '../../context.ts'
import { invalidArgument } from '../../failure.ts'
import type { HandlerPorts } from '../../ports.ts'

export function createHealthHandlers(ports: Pick<HandlerPorts, 'bundles'>) {
  return {
    check: async (
      request: HealthCheckRequest,
      context: CallContext,
    ): Promise<HealthCheckResponse> => {
      if (request.service !== '') throw invalidArgument('per-service health is not supported')
      const isServing = await isBundleReadable(ports, context)
      return { status: isServing ? ServingStatus.SERVING : ServingStatus.NOT_SERVING }
    },
  }
}

async function isBundleReadable(
  ports: Pick<HandlerPorts, 'bundles'>,
  context: CallContext,
): Promise<boolean> {
  try {
    if ((await ports.bundles.ownBundle()) !== undefined) return true
    context.log.warn('Health check failed', { reason: 'bundle not found' })
  } catch (error) {
    context.log.warn('Health check failed', { reason: 'unable to fetch bundle', error })
  }
  return false
}
