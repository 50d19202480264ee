/**
 * Names of a method in logs and metrics (features.md §4.2, §4.4), and the counter of its calls: a
 * counter and a sample of the time it took, both with the status as label.
 */
import type { SignetError } from '../../base/error.ts'
import { snakeCase } from '../../base/metrics-names.ts'
import type { Clock, Metrics } from '../../base/ports.ts'
import { codeNameOf } from '../../wire/status.ts'

export interface MethodNames {
  /** `agent.v1.Agent` */
  readonly service: string
  readonly method: string
  /** `rpc.agent.v1.agent.attest_agent` */
  readonly metricKey: string
  /** `rateLimit.agent.v1.agent.attest_agent` */
  readonly limitMetricKey: string
}

const SERVER_API_PREFIX = 'spire.api.server.'

export function namesOf(path: string): MethodNames {
  const [rawService = '', method = ''] = path.slice(1).split('/')
  const service = shortService(rawService)
  const key = [...service.split('.'), method].map(snakeCase).join('.')
  return { service, method, metricKey: `rpc.${key}`, limitMetricKey: `rateLimit.${key}` }
}

function shortService(service: string): string {
  if (service === 'grpc.health.v1.Health') return 'Health'
  const short = service.replace(SERVER_API_PREFIX, '')
  return short === 'logger.v1.Logger' ? 'Logger' : short
}

/** Called when a call starts; what it returns is called when it ends. */
export function createCallMeter(
  ports: { readonly clock: Clock; readonly metrics: Metrics },
  names: MethodNames,
): () => (error?: SignetError) => void {
  const { clock, metrics } = ports
  const elapsedKey = `${names.metricKey}.elapsed_time`
  return () => {
    const startMs = clock.monotonicMs()
    return (error) => {
      const labels = { status: error === undefined ? 'OK' : codeNameOf(error.kind) }
      metrics.counter(names.metricKey, 1, labels)
      metrics.sample(elapsedKey, clock.monotonicMs() - startMs, labels)
    }
  }
}
