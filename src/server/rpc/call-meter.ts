/**
 * Names of a method in logs and metrics (features.md §4.2, §4.4), and the counter of its calls: a
 * counter and a sample of the time it took, both with the status as label.
 */
import type { SignetError } from '../../base/error.ts'
import type { Clock, Metrics } from '../../base/ports.ts'
import { codeNameOf } from '../../wire/status.ts'

export interface MethodNames {
  /** `agent.v1.Agent` */
  readonly service: string
  readonly method: string
  /** `rpc.agent.v1.agent.attest_agent` */
  readonly metricKey: string
}

const SERVER_API_PREFIX = 'spire.api.server.'

export function namesOf(path: string): MethodNames {
  const [rawService = '', method = ''] = path.slice(1).split('/')
  const service = shortService(rawService)
  const metricKey = ['rpc', ...[...service.split('.'), method].map(snakeCase)].join('.')
  return { service, method, metricKey }
}

function shortService(service: string): string {
  if (service === 'grpc.health.v1.Health') return 'Health'
  const short = service.replace(SERVER_API_PREFIX, '')
  return short === 'logger.v1.Logger' ? 'Logger' : short
}

/**
 * As SPIRE writes them: a capital starts a word when a small letter is on either side of it, so
 * `BatchNewX509SVID` is `batch_new_x509svid`.
 */
function snakeCase(name: string): string {
  return name
    .replace(/([^_])(?=[A-Z])(?:(?<=[a-z])|(?=[A-Z][a-z]))/g, '$1_')
    .replace(/[^A-Za-z0-9]/g, '_')
    .toLowerCase()
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
