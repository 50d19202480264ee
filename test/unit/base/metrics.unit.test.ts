import { hostname } from 'node:os'
import { describe, expect, test } from 'vitest'
import { METRIC_SERIES_MAX } from '../../../src/base/limits.ts'
import {
  countCall,
  createMetrics,
  type MetricsOptions,
  reportProcess,
  serveMetrics,
} from '../../../src/base/metrics.ts'
import { metricName, sanitizeLabel, snakeCase } from '../../../src/base/metrics-names.ts'
import { FakeClock } from '../../fakes/fake-clock.ts'
import { createMemoryLog } from '../../fakes/memory-log.ts'

const OPTIONS: MetricsOptions = {
  serviceName: 'spire_server',
  trustDomain: 'example.org',
  metricPrefix: '',
  enableTrustDomainLabel: false,
  enableHostnameLabel: false,
  allowedPrefixes: [],
  blockedPrefixes: [],
  allowedLabels: [],
  blockedLabels: [],
}

async function linesOf(metrics: { text(): Promise<string> }, start: string) {
  return (await metrics.text()).split('\n').filter((line) => line.startsWith(start))
}

test.each([
  ['AttestAgent', 'attest_agent'],
  ['BatchNewX509SVID', 'batch_new_x509svid'],
  ['NewJWTSVID', 'new_jwtsvid'],
  ['NewDownstreamX509CA', 'new_downstream_x509ca'],
  ['GetX509AuthorityState', 'get_x509_authority_state'],
  ['SVID', 'svid'],
  ['v1', 'v1'],
  ['WorkloadAPI', 'workload_api'],
  ['SubscribeToX509SVIDs', 'subscribe_to_x509_svids'],
  ['with-dash', 'with_dash'],
])('snake case of %s', (text, snake) => {
  expect(snakeCase(text)).toBe(snake)
})

test('a key becomes prefix and parts joined by underscores', () => {
  expect(metricName('spire_server', 'rateLimit.agent.v1.agent.attest_agent')).toBe(
    'spire_server_rateLimit_agent_v1_agent_attest_agent',
  )
  expect(sanitizeLabel('example.org-_x')).toBe('example_org_x')
})

test('a call counter is a counter and a summary of milliseconds, by status', async () => {
  const metrics = createMetrics(OPTIONS)
  const clock = new FakeClock()
  for (const ms of [10, 20, 30]) {
    const done = countCall(metrics, clock, 'rpc.entry.v1.entry.count_entries')
    clock.advanceMs(ms)
    done('OK')
  }
  const name = 'spire_server_rpc_entry_v1_entry_count_entries'
  expect(await linesOf(metrics, name)).toEqual([
    `${name}{status="OK"} 3`,
    `${name}_elapsed_time{status="OK",quantile="0.5"} 20`,
    `${name}_elapsed_time{status="OK",quantile="0.9"} 30`,
    `${name}_elapsed_time{status="OK",quantile="0.99"} 30`,
    `${name}_elapsed_time_sum{status="OK"} 60`,
    `${name}_elapsed_time_count{status="OK"} 3`,
  ])
})

test('started and uptime are gauges', async () => {
  const metrics = createMetrics({ ...OPTIONS, metricPrefix: 'mine' })
  const clock = new FakeClock()
  using _report = reportProcess(metrics, clock, { version: '1.2.3', trustDomain: 'example.org' })
  clock.advanceMs(10_000)
  expect(await linesOf(metrics, 'mine_')).toEqual([
    'mine_started{version="1_2_3",trust_domain_id="example_org"} 1',
    'mine_uptime_in_ms 10000',
  ])
})

test('host and trust domain labels are added where asked', async () => {
  const metrics = createMetrics({
    ...OPTIONS,
    enableHostnameLabel: true,
    enableTrustDomainLabel: true,
  })
  metrics.counter('a.b')
  expect(await linesOf(metrics, 'spire_server_a_b')).toEqual([
    `spire_server_a_b{trust_domain="example_org",host="${hostname()}"} 1`,
  ])
})

describe('filters', () => {
  test.each([
    [[], ['spire_server.rpc'], false],
    [['spire_server.rpc.agent'], ['spire_server.rpc'], true],
    [['spire_server.rpc'], ['spire_server.rpc.agent'], false],
    [[], ['spire_server.datastore'], true],
  ])('allowed %j, blocked %j → %s', async (allowedPrefixes, blockedPrefixes, seen) => {
    const metrics = createMetrics({ ...OPTIONS, allowedPrefixes, blockedPrefixes })
    metrics.counter('rpc.agent.x')
    expect(await linesOf(metrics, 'spire_server_rpc')).toHaveLength(seen ? 1 : 0)
  })

  test('labels', async () => {
    const metrics = createMetrics({ ...OPTIONS, allowedLabels: ['a', 'b'], blockedLabels: ['b'] })
    metrics.counter('x', 1, { a: '1', b: '2', c: '3' })
    expect(await linesOf(metrics, 'spire_server_x')).toEqual(['spire_server_x{a="1"} 1'])
  })
})

test('label sets over the limit are counted together', async () => {
  const metrics = createMetrics(OPTIONS)
  for (let i = 0; i < METRIC_SERIES_MAX + 5; i++) metrics.counter('x', 1, { peer: `p${i}` })
  const lines = await linesOf(metrics, 'spire_server_x')
  expect(lines).toHaveLength(METRIC_SERIES_MAX + 1)
  expect(lines.at(-1)).toBe('spire_server_x{peer="overflow"} 5')
})

test('one name never has two kinds', async () => {
  const metrics = createMetrics(OPTIONS)
  metrics.counter('x')
  metrics.gauge('x', 7)
  expect(await linesOf(metrics, 'spire_server_x')).toEqual(['spire_server_x 1'])
})

test('an exporter that others reach is warned of', async () => {
  const log = createMemoryLog()
  const address = { host: '127.0.0.1', port: 0 }
  await using _listener = await serveMetrics(createMetrics(OPTIONS), address, log)
  expect(log.lines.map(({ level, message }) => [level, message.slice(0, 40)])).toEqual([
    ['warn', 'Agent is now configured to accept remote'],
    ['info', 'Starting prometheus exporter'],
  ])
})

test('any path serves the metrics; only reading is allowed', async () => {
  const metrics = createMetrics(OPTIONS)
  metrics.gauge('x', 7)
  const log = createMemoryLog()
  await using listener = await serveMetrics(metrics, { host: 'localhost', port: 0 }, log)
  expect(log.lines).toEqual([
    {
      level: 'info',
      message: 'Starting prometheus exporter',
      fields: { host: 'localhost', port: 0, subsystem_name: 'telemetry' },
    },
  ])
  const url = `http://127.0.0.1:${listener.port}/what/ever?x=1`
  const answer = await fetch(url)
  expect(answer.headers.get('content-type')).toMatch(/^text\/plain; version=0\.0\.4/)
  const text = await answer.text()
  expect(text).toContain('spire_server_x 7')
  expect(text).toContain('process_cpu_seconds_total')
  expect((await fetch(url, { method: 'POST' })).status).toBe(405)
})
