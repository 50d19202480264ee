/**
 * Proof 1, the long run of our agent below SPIRE's server at short lives: it renews its own SVID and
 * the workloads', follows the server's authorities by time, and goes on with a server that restarted.
 */
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { run } from '../rigs/process.ts'
import { until } from '../rigs/until.ts'
import { Deployment, PEERS_DIR } from './rig.ts'

/** Prepared at 24 s, active at 40 s of 48. */
const CA_TTL_SECONDS = 48
const TRAFFIC_SECONDS = 75

test('our agent renews, rotates and outlives a restart below SPIRE’s server', async () => {
  await using deployment = await Deployment.create('spire')
  const server = await deployment.startServer({
    server: `ca_ttl = "${CA_TTL_SECONDS}s" default_x509_svid_ttl = "12s" agent_ttl = "16s"`,
  })
  const token = await deployment.joinToken('spiffe://example.org/node')
  const agent = await deployment.startAgent('signet', { args: ['-joinToken', token] })
  const entry = ['-parentID', 'spiffe://example.org/node', '-selector', 'unix:uid:0', '-spiffeID']
  await deployment.createEntry([...entry, 'spiffe://example.org/w'])
  const fetched = async () => (await deployment.agent('spire', ['api', 'fetch', 'x509'])).stdout
  await until('the identity', async () => (await fetched()).includes('spiffe://example.org/w'))
  const before = await seen(deployment)

  const socket = `unix://${deployment.agentSocket()}`
  const mtls = ['mtls', '-socket', socket, '-duration', `${TRAFFIC_SECONDS}s`]
  const traffic = await run(join(PEERS_DIR, 'gopeer'), mtls, {
    timeoutMs: (TRAFFIC_SECONDS + 60) * 1000,
  })
  expect(traffic.stderr).toBe('')
  const report = JSON.parse(traffic.stdout)
  expect(report.failures).toEqual([])
  expect(report.ids).toEqual(['spiffe://example.org/w'])
  expect(report.serials.length).toBeGreaterThan(7)
  const after = await seen(deployment)
  expect(after.agentSerial).not.toBe(before.agentSerial)
  expect(after.roots.filter((root) => !before.roots.includes(root))).not.toEqual([])

  await server.stop()
  await deployment.startServer()
  await deployment.createEntry([...entry, 'spiffe://example.org/later'])
  const hasLater = async () => (await fetched()).includes('spiffe://example.org/later')
  await until('the entry made after the restart', hasLater, 60_000)
  const renewed = async () => (await seen(deployment)).agentSerial !== after.agentSerial
  await until('the agent’s next SVID', renewed)
  expect(agent.exitCode).toBeUndefined()
  expect(agent.output.match(/Node attestation was successful/g)).toHaveLength(1)
}, 240_000)

/** What the server knows of the agent, and the authorities it publishes. */
async function seen(deployment: Deployment): Promise<{ agentSerial: string; roots: string[] }> {
  const { agents } = JSON.parse(await deployment.serverOk(['agent', 'list', '-output', 'json']))
  const bundle = JSON.parse(await deployment.serverOk(['bundle', 'show', '-output', 'json']))
  return {
    agentSerial: agents[0].x509svid_serial_number,
    roots: bundle.x509_authorities.map(({ asn1 }: { asn1: string }) => asn1),
  }
}
