/**
 * What operators read of a running agent, its metrics and its log (features.md §4.2, §4.4): SPIRE's
 * agent and ours do the same things on one server, and the series of both are compared by name and
 * labels.
 */
import { Client, credentials } from '@grpc/grpc-js'
import { expect, test } from 'vitest'
import { DebugService } from '../../src/wire/gen/spire/api/agent/debug/v1/debug.ts'
import { call } from '../rigs/live-server.ts'
import { until } from '../rigs/until.ts'
import { Deployment, freePort, type Product } from './rig.ts'

/** `name{label,label}` of each series; statuses of calls are part of it. */
const SERIES = [
  'agent_key_manager_generate_key{host,status=OK}',
  'agent_svid_rotate{host,status=OK}',
  'debug_api_connection{host}',
  'debug_api_connections{host}',
  'jwt_svid_cache_size{host}',
  'lru_cache_entry_add{host}',
  'lru_cache_entry_remove{host}',
  'lru_cache_entry_update{host}',
  'lru_cache_record_map_size{host}',
  'lru_cache_svid_map_size{host}',
  'manager_sync_fetch_entries_updates{host,status=OK}',
  'manager_sync_fetch_svids_updates{host,status=OK}',
  'node_attestor_new_svid{attestor=join_token,host,status=OK}',
  'rpc_debug_get_info{host,status=OK}',
  'rpc_workload_api_fetch_jwt_bundles{host,status=OK}',
  'rpc_workload_api_fetch_jwtsvid{host,status=OK}',
  'rpc_workload_api_fetch_x509svid{host,status=OK}',
  'rpc_workload_api_fetch_x509svid{host,status=PermissionDenied}',
  'workload_api_connection{host}',
  'workload_api_connections{host}',
  'workload_api_discovered_selectors_count{host}',
  'workload_api_rate_limit_exceeded{host,method}',
  'workload_api_workload_attestation{host,status=OK}',
  'workload_api_workload_attestation_elapsed_time_count{host,status=OK}',
  'workload_api_workload_attestor{attestor=unix,host,status=OK}',
]

const LINES = [
  'SVID is not found. Starting node attestation',
  'Node attestation was successful',
  'Starting agent APIs',
]

function seriesOf(text: string): Set<string> {
  const lines = text.matchAll(/^spire_agent_(\w+)\{([^}]*)\} (\S+)$/gm)
  return new Set(
    [...lines].map(([, name, labels]) => {
      const shown = [...labels!.matchAll(/(\w+)="([^"]*)"/g)].map(([, label, value]) =>
        label === 'status' || label === 'attestor' ? `${label}=${value}` : label,
      )
      return `${name}{${shown.sort().join(',')}}`
    }),
  )
}

async function observe(deployment: Deployment, product: Product) {
  const name = product
  const node = `spiffe://example.org/node/${product}`
  const port = await freePort()
  const token = await deployment.joinToken(node)
  const agent = await deployment.startAgent(product, {
    name,
    args: ['-joinToken', token],
    agent: 'experimental { ratelimit { fetch_jwt_svid = 1 } }',
    blocks: `telemetry { Prometheus { host = "127.0.0.1" port = ${port} } }`,
  })
  const scrape = async () => (await fetch(`http://127.0.0.1:${port}/`)).text()
  const shows = (series: RegExp) =>
    until(`${product} to show ${series}`, async () => series.test(await scrape()), 40_000)
  const fetchSvids = (...args: string[]) =>
    deployment.agent(product, ['api', 'fetch', ...args], name)

  expect((await fetchSvids('x509')).code).toBe(1)
  const entry = ['-parentID', node, '-spiffeID', `${node}/w`, '-selector', 'unix:uid:0']
  const id = await deployment.createEntry(entry)
  await until('an identity', async () => (await fetchSvids('x509')).code === 0)
  await Promise.all(Array.from({ length: 4 }, () => fetchSvids('jwt', '-audience', 'a')))
  const admin = new Client(`unix:${deployment.adminSocket(name)}`, credentials.createInsecure())
  expect(await call(admin, DebugService.getInfo, {})).toMatchObject({ code: 0 })
  admin.close()
  await deployment.serverOk(['entry', 'update', '-entryID', id, ...entry, '-dns', 'x.example.org'])
  await shows(/agent_svid_rotate\{.* [1-9]/)
  await deployment.serverOk(['entry', 'delete', '-entryID', id])
  await shows(/lru_cache_entry_remove\S* [1-9]/)
  await shows(/workload_api_connections\S* 0$/m)
  return { series: seriesOf(await scrape()), output: agent.output }
}

test('an agent has SPIRE’s metrics with SPIRE’s labels, and its lines in the log', async () => {
  await using deployment = await Deployment.create('spire')
  await deployment.startServer({ server: 'agent_ttl = "24s"' })
  const [spire, signet] = await Promise.all([
    observe(deployment, 'spire'),
    observe(deployment, 'signet'),
  ])
  expect(SERIES.filter((one) => !spire.series.has(one))).toEqual([])
  expect(SERIES.filter((one) => !signet.series.has(one))).toEqual([])
  for (const { output } of [spire, signet]) {
    for (const line of LINES) expect(output).toContain(`level=info msg="${line}"`)
  }
})
