/**
 * Suites evict-agent and node-re-attestation: an x509pop agent re-attests after it was evicted, stops
 * when it is banned, and cannot come back until it is deleted; a join-token agent does not re-attest.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Daemon } from '../rigs/process.ts'
import { until } from '../rigs/until.ts'
import { makeNodeCertificate, type NodeCertificate } from './pki.ts'
import { Deployment, type Product } from './rig.ts'

const PAIRINGS: readonly (readonly [Product, Product])[] = [
  ['signet', 'spire'],
  ['spire', 'signet'],
  ['signet', 'signet'],
]

describe.each(PAIRINGS)('%s server with %s agent over x509pop', (serverProduct, agentProduct) => {
  let deployment: Deployment
  let node: NodeCertificate
  let agent: Daemon
  let server: Daemon

  const attestor = () =>
    `NodeAttestor "x509pop" { plugin_data {
       private_key_path = "${node.keyPath}"
       certificate_path = "${node.certificatePath}"
     } }`
  const start = (ready = true) =>
    deployment.startAgent(agentProduct, { nodeAttestor: attestor() }, ready)

  beforeAll(async () => {
    deployment = await Deployment.create(serverProduct)
    node = await makeNodeCertificate(deployment.dir, 'n1')
    server = await deployment.startServer({
      server: 'audit_log_enabled = true',
      plugins: `NodeAttestor "x509pop" { plugin_data { ca_bundle_path = "${node.caPath}" } }`,
    })
    agent = await start()
  })
  afterAll(async () => {
    await deployment?.[Symbol.asyncDispose]()
  })

  const agentRow = async () => {
    const out = await deployment.serverOk(['agent', 'list', '-output', 'json'])
    return JSON.parse(out).agents[0]
  }
  const idOf = (row: { id: { trust_domain: string; path: string } }) =>
    `spiffe://${row.id.trust_domain}${row.id.path}`

  test('attests with its certificate; selectors name it', async () => {
    const row = await agentRow()
    expect(row.attestation_type).toBe('x509pop')
    expect(row.can_reattest).toBe(true)
    expect(row.id.path).toMatch(/^\/spire\/agent\/x509pop\/[0-9a-f]{40}$/)
    const shown = await deployment.serverOk(['agent', 'show', '-spiffeID', idOf(row)])
    expect(shown).toContain('x509pop:subject:cn:n1.nodes')
    expect(shown).toContain('x509pop:ca:fingerprint:')
    expect(shown).toContain('x509pop:serialnumber:')
  })

  test('evicted, it attests again without a restart', async () => {
    const before = await agentRow()
    await deployment.serverOk(['agent', 'evict', '-spiffeID', idOf(before)])
    const after = await until(
      'the agent to be back',
      async () => (await agentRow()) ?? undefined,
      90_000,
    )
    expect(after.id).toEqual(before.id)
    expect(after.x509svid_serial_number).not.toBe(before.x509svid_serial_number)
    expect(agent.exitCode).toBeUndefined()
    // Nobody by certificate, though the agent has one when it comes back.
    const attested = () =>
      server.output.split('\n').filter((line) => /method=AttestAgent .* type=audit/.test(line))
    await until('both records', () => attested().length === 2)
    for (const line of attested()) {
      expect(line).toContain('authorized_as=nobody')
      expect(line).not.toContain('caller_id=')
    }
  })

  test('banned, it stops and stays out until it is deleted', async () => {
    const row = await agentRow()
    await deployment.serverOk(['agent', 'ban', '-spiffeID', idOf(row)])
    await agent.untilExit(90_000)
    expect(agent.output).toContain('Agent is banned: removing SVID and shutting down')
    const refused = await start(false)
    expect(await refused.untilExit(90_000)).not.toBe(0)
    expect(refused.output).toContain('banned')
    await deployment.serverOk(['agent', 'evict', '-spiffeID', idOf(row)])
    agent = await start()
    expect((await agentRow()).banned).toBe(false)
  })
})

test.each<Product>(['spire', 'signet'])(
  'an evicted join-token agent of %s does not come back',
  async (product) => {
    await using deployment = await Deployment.create('signet')
    await deployment.startServer({})
    const token = await deployment.joinToken()
    const agent = await deployment.startAgent(product, { args: ['-joinToken', token] })
    await deployment.serverOk([
      'agent',
      'evict',
      '-spiffeID',
      `spiffe://example.org/spire/agent/join_token/${token}`,
    ])
    expect(await agent.untilExit(90_000)).not.toBe(0)
    const again = await deployment.startAgent(product, { args: ['-joinToken', token] }, false)
    expect(await again.untilExit(90_000)).not.toBe(0)
    expect(again.output).toContain('join token does not exist or has already been used')
  },
)

test.each<Product>(['spire', 'signet'])(
  'an agent of %s attests with the SVID that another agent gives it',
  async (product) => {
    await using deployment = await Deployment.create('signet')
    await deployment.startServer({
      plugins: 'NodeAttestor "x509pop" { plugin_data { mode = "spiffe" } }',
    })
    const token = await deployment.joinToken('spiffe://example.org/node')
    await deployment.startAgent('signet', { name: 'host', args: ['-joinToken', token] })
    await deployment.createEntry([
      ...['-parentID', 'spiffe://example.org/node', '-selector', `unix:uid:${process.getuid?.()}`],
      ...['-spiffeID', 'spiffe://example.org/spire-exchange/guest'],
    ])
    await until('the identity to attest with', async () => {
      return (await deployment.agent('spire', ['api', 'fetch', 'x509'], 'host')).code === 0
    })
    const socket = `unix://${deployment.agentSocket('host')}`
    await deployment.startAgent(product, {
      name: 'guest',
      nodeAttestor: `NodeAttestor "x509pop" {
        plugin_data { spiffe_endpoint_socket = "${socket}" }
      }`,
    })
    expect(await deployment.serverOk(['agent', 'list'])).toContain(
      'spiffe://example.org/spire/agent/x509pop/guest',
    )
  },
)
