/**
 * Proof 3 and suite rotation: unmodified go-spiffe and py-spiffe workloads keep mutual TLS going over
 * at least ten SVID rotations and two intermediate rotations by time, below SPIRE's agent and ours, at
 * once, on our server; JWT-SVIDs stay valid for go-spiffe, jose and ValidateJWTSVID alike.
 */

import { join } from 'node:path'
import { createLocalJWKSet, jwtVerify } from 'jose'
import { expect, test } from 'vitest'
import { run } from '../rigs/process.ts'
import { until } from '../rigs/until.ts'
import { Deployment, PEERS_DIR, PROJECT_DIR, type Product, PYTHON } from './rig.ts'

const AGENTS: readonly Product[] = ['spire', 'signet']
const TRAFFIC_SECONDS = 170

test('mutual TLS never fails while SVIDs and intermediates rotate', async () => {
  await using deployment = await Deployment.create('signet')
  await deployment.startServer({
    server: 'ca_ttl = "90s"\n default_x509_svid_ttl = "14s"\n agent_ttl = "30s"',
  })
  for (const product of AGENTS) {
    const token = await deployment.joinToken(`spiffe://example.org/node/${product}`)
    await deployment.startAgent(product, { name: product, args: ['-joinToken', token] })
    await deployment.createEntry([
      '-parentID',
      `spiffe://example.org/node/${product}`,
      '-spiffeID',
      `spiffe://example.org/workload/${product}`,
      '-selector',
      'unix:uid:0',
    ])
    await until('an identity', async () => {
      const result = await deployment.agent(product, ['api', 'fetch', 'x509'], product)
      return result.code === 0
    })
  }
  const address = (product: Product) => `unix://${deployment.agentSocket(product)}`
  const traffic = AGENTS.map((product) =>
    run(
      join(PEERS_DIR, 'gopeer'),
      ['mtls', '-socket', address(product), '-duration', `${TRAFFIC_SECONDS}s`],
      { timeoutMs: (TRAFFIC_SECONDS + 60) * 1000 },
    ),
  )
  const python = AGENTS.map((product) =>
    run(
      PYTHON,
      [
        join(PROJECT_DIR, 'test', 'interop', 'peers', 'pypeer.py'),
        address(product),
        `${TRAFFIC_SECONDS}`,
      ],
      { timeoutMs: (TRAFFIC_SECONDS + 60) * 1000 },
    ),
  )
  const tokens = AGENTS.map((product) => jwtRounds(deployment, product, address(product)))
  for (const [i, result] of (await Promise.all(traffic)).entries()) {
    expect(result.stderr).toBe('')
    const report = JSON.parse(result.stdout)
    expect(report.failures).toEqual([])
    expect(report.ids).toEqual([`spiffe://example.org/workload/${AGENTS[i]}`])
    expect(report.serials.length).toBeGreaterThan(10)
    expect(report.intermediates.length).toBeGreaterThan(2)
    expect(report.handshakes).toBeGreaterThan(TRAFFIC_SECONDS * 5)
  }
  for (const result of await Promise.all(python)) {
    expect(result.stderr).toBe('')
    const report = JSON.parse(result.stdout)
    expect(report.failures).toEqual([])
    expect(report.serials).toBeGreaterThan(10)
    // JWT keys rotate as intermediates do.
    expect(report.kids).toBeGreaterThan(2)
  }
  await Promise.all(tokens)
}, 400_000)

/** Fetches a JWT-SVID every few seconds; three verifiers must agree on each. */
async function jwtRounds(deployment: Deployment, product: Product, address: string): Promise<void> {
  const end = performance.now() + TRAFFIC_SECONDS * 1000
  for (let round = 0; performance.now() < end; round++) {
    const audience = `aud-${round}`
    const fetched = await run(join(PEERS_DIR, 'gopeer'), [
      'jwt',
      '-socket',
      address,
      '-audience',
      audience,
    ])
    expect(fetched.stderr).toBe('')
    const token = JSON.parse(fetched.stdout).tokens[0].token
    const json = await deployment.agent(
      'spire',
      ['api', 'fetch', 'jwt', '-audience', audience, '-output', 'json', '-timeout', '10s'],
      product,
    )
    const bundles = JSON.parse(json.stdout)[1].bundles
    const jwks = JSON.parse(Buffer.from(bundles['spiffe://example.org'], 'base64').toString())
    const { payload } = await jwtVerify(token, createLocalJWKSet(jwks), { audience })
    expect(payload.sub).toBe(`spiffe://example.org/workload/${product}`)
    const checked = await deployment.agent(
      'signet',
      ['api', 'validate', 'jwt', '-audience', audience, '-svid', token, '-timeout', '10s'],
      product,
    )
    expect(checked.stdout).toContain('SVID is valid.')
    await new Promise((resolve) => setTimeout(resolve, 5_000))
  }
}
