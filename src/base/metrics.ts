/**
 * Metrics on prom-client's registry (features.md §4.1). Samples are summaries over a window of
 * recent values, as SPIRE's are, but kept in a ring: prom-client's own digest costs as much per
 * sample as a share of an SVID.
 *
 * A metric holds at most METRIC_SERIES_MAX label sets; what comes later is counted as `overflow`.
 */
import { hostname } from 'node:os'
import { collectDefaultMetrics, type Metric, Registry } from 'prom-client'
import type { TelemetryConfig } from './config/types.ts'
import { type HttpListener, listenHttp } from './http-listener.ts'
import { METRIC_NAMES_MAX, METRIC_SERIES_MAX, METRIC_WINDOW_SAMPLES } from './limits.ts'
import { allowsKey, allowsLabel, metricName, sanitizeLabel } from './metrics-names.ts'
import type { Clock, Log, Metrics } from './ports.ts'

export interface MetricsOptions extends Omit<TelemetryConfig, 'prometheus'> {
  /** `spire_server` or `spire_agent`: used when `metricPrefix` is empty. */
  readonly serviceName: string
  readonly trustDomain: string
}

export interface PrometheusMetrics extends Metrics {
  readonly contentType: string
  text(): Promise<string>
}

type Labels = Readonly<Record<string, string>>
type Kind = 'counter' | 'gauge' | 'summary'

interface Series {
  readonly labels: Labels
  value: number
  count: number
  /** Recent samples; allocated for summaries only. */
  readonly window: Float64Array | undefined
}

interface Family {
  readonly name: string
  readonly kind: Kind
  readonly series: Map<string, Series>
}

const QUANTILES = [0.5, 0.9, 0.99]
const NO_LABELS: Labels = {}

export function createMetrics(options: MetricsOptions): PrometheusMetrics {
  const registry = new Registry()
  // The event loop's delay is sampled by a timer: ten times a second wakes an idle server enough.
  collectDefaultMetrics({ register: registry, eventLoopMonitoringPrecision: 100 })
  const prefix = options.metricPrefix || options.serviceName
  const fixed: [string, string][] = []
  if (options.enableTrustDomainLabel) {
    fixed.push(['trust_domain', sanitizeLabel(options.trustDomain)])
  }
  if (options.enableHostnameLabel) fixed.push(['host', hostname()])

  /** By kind and key; undefined where the operator's filter drops the key. */
  const families = new Map<string, Family | undefined>()
  const family = (kind: Kind, key: string): Family | undefined => {
    const id = `${kind} ${key}`
    if (families.has(id)) return families.get(id)
    const name = metricName(prefix, key)
    const allowed =
      families.size < METRIC_NAMES_MAX &&
      registry.getSingleMetric(name) === undefined &&
      allowsKey(options, `${prefix}.${key}`)
    const made = allowed ? newFamily(registry, name, kind) : undefined
    families.set(id, made)
    return made
  }
  const series = (kind: Kind, key: string, labels: Labels): Series | undefined => {
    const owner = family(kind, key)
    return owner && seriesOf(owner, labels, fixed, options)
  }

  return {
    contentType: registry.contentType,
    text: () => registry.metrics(),
    counter(key, value = 1, labels = NO_LABELS) {
      const one = series('counter', key, labels)
      if (one) one.value += value
    },
    gauge(key, value, labels = NO_LABELS) {
      const one = series('gauge', key, labels)
      if (one) one.value = value
    },
    sample(key, value, labels = NO_LABELS) {
      const one = series('summary', key, labels)
      if (!one) return
      one.window![one.count % METRIC_WINDOW_SAMPLES] = value
      one.count++
      one.value += value
    },
  }
}

function newFamily(registry: Registry, name: string, kind: Kind): Family {
  const family: Family = { name, kind, series: new Map() }
  // The registry asks a metric for its values only through `get`; the other members of its class
  // belong to the ways of counting that are replaced here.
  const metric = { name, help: name, type: kind, get: async () => ({ ...head, values: values() }) }
  const head = { name, help: name, type: kind }
  const values = () => [...family.series.values()].flatMap((one) => exposed(family, one))
  registry.registerMetric(metric as unknown as Metric)
  return family
}

function seriesOf(
  family: Family,
  given: Labels,
  fixed: readonly (readonly [string, string])[],
  options: MetricsOptions,
): Series {
  let id = ''
  for (const name in given) id += `${name}\0${given[name]}\0`
  const known = family.series.get(id)
  if (known) return known
  const full = family.series.size >= METRIC_SERIES_MAX
  if (full) id = 'overflow'
  const overflowed = family.series.get(id)
  if (overflowed) return overflowed
  const labels: Record<string, string> = {}
  for (const [name, value] of Object.entries(given)) {
    const clean = sanitizeLabel(name)
    if (allowsLabel(options, clean)) labels[clean] = full ? 'overflow' : sanitizeLabel(value)
  }
  for (const [name, value] of fixed) if (allowsLabel(options, name)) labels[name] = value
  const window = family.kind === 'summary' ? new Float64Array(METRIC_WINDOW_SAMPLES) : undefined
  const made: Series = { labels, value: 0, count: 0, window }
  family.series.set(id, made)
  return made
}

function exposed(family: Family, series: Series) {
  const { labels, value, count, window } = series
  if (!window) return [{ labels, value }]
  const recent = window.slice(0, Math.min(count, METRIC_WINDOW_SAMPLES)).sort()
  return [
    ...QUANTILES.map((quantile) => ({
      labels: { ...labels, quantile: String(quantile) },
      value: recent[Math.min(recent.length - 1, Math.floor(quantile * recent.length))]!,
    })),
    { metricName: `${family.name}_sum`, labels, value },
    { metricName: `${family.name}_count`, labels, value: count },
  ]
}

/** SPIRE's server says Agent too. */
const OPEN_EXPORTER =
  'Agent is now configured to accept remote network connections for Prometheus stats collection. Please ensure access to this port is tightly controlled'

/** Any path serves the metrics, as SPIRE's exporter does. */
export function serveMetrics(
  metrics: PrometheusMetrics,
  address: { readonly host: string; readonly port: number },
  log: Log,
): Promise<HttpListener> {
  const exporter = log.with({ subsystem_name: 'telemetry' })
  if (address.host !== 'localhost') exporter.warn(OPEN_EXPORTER)
  exporter.info('Starting prometheus exporter', { host: address.host, port: address.port })
  return listenHttp(address.host, address.port, async () => ({
    status: 200,
    contentType: metrics.contentType,
    body: await metrics.text(),
  }))
}

const UPTIME_REPORT_MS = 10_000

/** `started` once and `uptime_in_ms` from now on, until disposed. */
export function reportProcess(
  metrics: Metrics,
  clock: Clock,
  facts: { readonly version: string; readonly trustDomain: string },
): Disposable {
  const start = clock.monotonicMs()
  const report = () => metrics.gauge('uptime_in_ms', Math.floor(clock.monotonicMs() - start))
  metrics.gauge('started', 1, { version: facts.version, trust_domain_id: facts.trustDomain })
  report()
  return clock.every(UPTIME_REPORT_MS, report)
}

/** A call counter: the counter `key` and the sample `key.elapsed_time`, labelled by status. */
export function countCall(
  metrics: Metrics,
  clock: Clock,
  key: string,
  labels: Labels = NO_LABELS,
): (status: string) => void {
  const start = clock.monotonicMs()
  return (status) => {
    const all = { ...labels, status }
    metrics.counter(key, 1, all)
    metrics.sample(`${key}.elapsed_time`, clock.monotonicMs() - start, all)
  }
}
