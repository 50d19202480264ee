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
import { metricFaults, scrape as scrapeMetrics } from './series.ts'

/** Name and labels of each series, with their values except the host’s. */
const SERIES = [
  'agent_key_manager_generate_key{host,status=OK}',
  'agent_key_manager_get_keys{host,status=OK}',
  'agent_svid_rotate{host,status=OK}',
  'bootstrap_attempts{host,mode=bootstrap}',
  'bootstrap_attempts{host,mode=rebootstrap}',
  'bootstrap_seconds{host,mode=bootstrap}',
  'bootstrap_seconds{host,mode=rebootstrap}',
  'bootstrapped{host}',
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
  'rpc_health_check{host,status=OK}',
  'rpc_workload_api_fetch_jwt_bundles{host,status=OK}',
  'rpc_workload_api_fetch_jwtsvid{host,status=OK}',
  'rpc_workload_api_fetch_x509svid{host,status=OK}',
  'rpc_workload_api_fetch_x509svid{host,status=PermissionDenied}',
  'sync_bundles_total{host}',
  'sync_entries_dropped{host}',
  'sync_entries_missing{host}',
  'sync_entries_stale{host}',
  'sync_entries_total{host}',
  'workload_api_connection{host}',
  'workload_api_connections{host}',
  'workload_api_discovered_selectors_count{host}',
  'workload_api_rate_limit_exceeded{host,method=_SpiffeWorkloadAPI_FetchJWTBundles}',
  'workload_api_rate_limit_exceeded{host,method=_SpiffeWorkloadAPI_FetchJWTSVID}',
  'workload_api_rate_limit_exceeded{host,method=_SpiffeWorkloadAPI_FetchX509SVID}',
  'workload_api_workload_attestation{host,status=OK}',
  'workload_api_workload_attestation_elapsed_time_count{host,status=OK}',
  'workload_api_workload_attestor{attestor=unix,host,status=OK}',
]

/** Names that SPIRE’s sources and documents have, and that it counts nothing by. */
const UNUSED = /generate_key_pair|fetch_private_key|store_private_key|bundles_update/

/** At debug: what was given to whom. Fields that each line has, of those that both products have. */
const SERVED = [
  /msg="Fetched X\.509 SVID" count=1 method=FetchX509SVID pid=\d+ registered=true service=WorkloadAPI spiffe_id="spiffe:\S+\/w" subsystem_name=endpoints ttl=\d/,
  /msg="Fetched JWT SVID" method=FetchJWTSVID pid=\d+ registered=true service=WorkloadAPI spiffe_id="spiffe:\S+\/w" subsystem_name=endpoints/,
  /msg="PID attested to have selectors" pid=\d+ selectors=".*uid:0.*" subsystem_name=workload_attestor/,
  /msg="Entry created" entry=\S+ .*spiffe_id="spiffe:\S+\/w" subsystem_name=cache_manager/,
  /msg="Rotating agent SVID" subsystem_name=manager/,
]

const LINES = [
  'SVID is not found. Starting node attestation',
  'Node attestation was successful',
  'Starting agent APIs',
]

async function observe(deployment: Deployment, product: Product) {
  const name = product
  const node = `spiffe://example.org/node/${product}`
  const port = await freePort()
  const token = await deployment.joinToken(node)
  const agent = await deployment.startAgent(product, {
    name,
    args: ['-joinToken', token],
    agent: `log_selectors = ["unix:uid"]
      experimental { ratelimit { fetch_x509_svid = 1 fetch_jwt_svid = 1 fetch_jwt_bundles = 2 } }`,
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
  await until(`${product} to limit each method`, async () => {
    const tokens = Array.from({ length: 5 }, () => fetchSvids('jwt', '-audience', 'a'))
    await Promise.all([...tokens, fetchSvids('x509'), fetchSvids('x509')])
    const { size } = new Set((await scrape()).match(/rate_limit_exceeded\{.*\}/g))
    return size === 3
  })
  const admin = new Client(`unix:${deployment.adminSocket(name)}`, credentials.createInsecure())
  expect(await call(admin, DebugService.getInfo, {})).toMatchObject({ code: 0 })
  admin.close()
  await deployment.serverOk(['entry', 'update', '-entryID', id, ...entry, '-dns', 'x.example.org'])
  await shows(/agent_svid_rotate\{.* [1-9]/)
  await deployment.serverOk(['entry', 'delete', '-entryID', id])
  await shows(/lru_cache_entry_remove\S* [1-9]/)
  await shows(/workload_api_connections\S* 0$/m)
  return { metrics: await scrapeMetrics(port, 'spire_agent_'), output: agent.output }
}

test('an agent has SPIRE’s metrics with SPIRE’s labels, and its lines in the log', async () => {
  await using deployment = await Deployment.create('spire')
  const server = await deployment.startServer({
    server: 'agent_ttl = "24s" audit_log_enabled = true',
  })
  const [spire, signet] = await Promise.all([
    observe(deployment, 'spire'),
    observe(deployment, 'signet'),
  ])
  for (const { metrics } of [spire, signet]) {
    expect(SERIES.filter((one) => !metrics.series.has(one))).toEqual([])
    expect([...metrics.types.keys()].filter((name) => UNUSED.test(name))).toEqual([])
  }
  expect(metricFaults(spire.metrics, signet.metrics)).toEqual([])
  // Once each, though both rotated their SVID meanwhile.
  const posted = server.output.split('\n').filter((line) => /PostStatus.* type=audit/.test(line))
  const versions = posted.map((line) => / agent_version=(\S+)/.exec(line)?.[1] ?? '')
  expect(versions).toHaveLength(2)
  for (const version of versions) expect(version).toMatch(/^\d+\.\d+\.\d+/)
  for (const { output } of [spire, signet]) {
    // Without `log_format` whole seconds; with one, fractions.
    for (const line of LINES) {
      expect(output).toMatch(new RegExp(`^time="[^".]+" level=info msg="${line}"`, 'm'))
    }
    for (const line of SERVED) expect(output).toMatch(line)
    // Of the selectors only those that `log_selectors` allows.
    expect(output).toMatch(
      /level=error msg="No identity issued" method=FetchX509SVID pid=\d+ registered=false selectors="unix:uid:0" service=WorkloadAPI /,
    )
  }
})
