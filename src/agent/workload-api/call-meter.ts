/**
 * The metrics of an API on the agent's sockets (features.md §4.2): calls begun, calls under way
 * (SPIRE names them connections), each call with its status and time. A stream runs until it ends.
 */
import { snakeCase } from '../../base/metrics-names.ts'
import type { Clock, Metrics } from '../../base/ports.ts'
import { countCall } from '../call-counter.ts'

/** Runs one call of the method of that path. */
export type ApiMeter = <T>(path: string, run: () => Promise<T>) => Promise<T>

export function createApiMeter(
  ports: { readonly clock: Clock; readonly metrics: Metrics },
  api: 'workload_api' | 'debug_api',
  service: 'workload_api' | 'debug',
): ApiMeter {
  const { metrics } = ports
  let underWay = 0
  return async (path, run) => {
    const method = snakeCase(path.split('/')[2] ?? '')
    metrics.counter(`${api}.connection`)
    metrics.gauge(`${api}.connections`, ++underWay)
    try {
      return await countCall(ports, `rpc.${service}.${method}`, run)
    } finally {
      metrics.gauge(`${api}.connections`, --underWay)
    }
  }
}
