/**
 * Rebootstrap (features.md §1.3): the server comes back with another root, and agents of both
 * products, whose kept bundle no longer matches, do the same in every mode.
 */
import { readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Daemon } from '../rigs/process.ts'
import { until } from '../rigs/until.ts'
import { makeNodeCertificate, type NodeCertificate } from './pki.ts'
import { Deployment, type Product } from './rig.ts'

const PRODUCTS: readonly Product[] = ['spire', 'signet']
const MODES = ['never', 'auto', 'always'] as const
const NOT_ALLOWED =
  'you have requested rebootstrap support but the NodeAttestor plugin or the spire server configuration is not allowing it'
const DELAY_SECONDS = 4

let deployment: Deployment
let server: Daemon
const nodes = new Map<string, NodeCertificate>()
const agents = new Map<string, Daemon>()
/** How much each had printed when the server was replaced. */
const marks = new Map<string, number>()

const name = (product: Product, mode: string) => `${product}-${mode}`
const settings = (mode: string) =>
  `rebootstrap_mode = "${mode}" rebootstrap_delay = "${DELAY_SECONDS}s"
   experimental { sync_interval = "1s" }`

function startAgent(product: Product, mode: string): Promise<Daemon> {
  const node = nodes.get(name(product, mode))!
  return deployment.startAgent(product, {
    name: name(product, mode),
    agent: settings(mode),
    nodeAttestor: `NodeAttestor "x509pop" { plugin_data {
      private_key_path = "${node.keyPath}" certificate_path = "${node.certificatePath}"
    } }`,
  })
}

/** From its second start on: SPIRE's looks at what it has stored before it attests. */
async function restartWithToken(product: Product, mode: string): Promise<Daemon> {
  const options = { name: `${product}-token-${mode}`, agent: settings(mode) }
  const args = ['-joinToken', await deployment.joinToken()]
  // Differs from SPIRE: ours refuses after its first attestation already.
  const starts = product === 'spire' || mode === 'auto'
  const first = await deployment.startAgent(product, { ...options, args }, starts)
  if (starts) await first.stop()
  else await expectNotAllowed(first)
  return deployment.startAgent(product, options, mode === 'auto')
}

async function expectNotAllowed(agent: Daemon): Promise<void> {
  expect(await agent.untilExit(60_000)).toBe(1)
  expect(agent.output).toContain(NOT_ALLOWED)
  expect(agent.output).not.toContain('Disabling')
}

beforeAll(async () => {
  deployment = await Deployment.create('signet')
  for (const product of PRODUCTS) {
    for (const mode of MODES) {
      const key = name(product, mode)
      nodes.set(key, await makeNodeCertificate(deployment.dir, key))
    }
  }
  const roots = [...nodes.values()].map(({ caPath }) => `"${caPath}"`).join(', ')
  const plugins = `NodeAttestor "x509pop" { plugin_data { ca_bundle_paths = [${roots}] } }`
  server = await deployment.startServer({ plugins })
  for (const product of PRODUCTS) {
    for (const mode of MODES) agents.set(name(product, mode), await startAgent(product, mode))
    agents.set(`${product}-token-auto`, await restartWithToken(product, 'auto'))
  }
  await replaceServer()
})
afterAll(() => deployment?.[Symbol.asyncDispose]())

/** Another server at the same address: other keys, an empty database. */
async function replaceServer(): Promise<void> {
  const before = await deployment.serverOk(['bundle', 'show'])
  await server.stop()
  rmSync(join(deployment.dir, 'server', 'data'), { recursive: true })
  for (const [key, agent] of agents) marks.set(key, agent.output.length)
  server = await deployment.startServer()
  expect(await deployment.serverOk(['bundle', 'show'])).not.toBe(before)
}

/** Waits for its end; what it said since the server was replaced. */
async function ended(key: string): Promise<{ code: number; said: string }> {
  const agent = agents.get(key)!
  const code = await agent.untilExit(60_000)
  return { code, said: agent.output.slice(marks.get(key)) }
}

describe.each(PRODUCTS)('an agent of %s', (product) => {
  test('in mode never ends at once', async () => {
    const { code, said } = await ended(name(product, 'never'))
    expect(code).toBe(1)
    expect(said).toContain('Synchronize failed, non-recoverable error')
    expect(said).toContain('failed to sync with SPIRE Server')
    expect(said).not.toContain('rebootstrapping')
  })

  test.each(['auto', 'always'])('in mode %s ends after the delay and begins anew', async (mode) => {
    const key = name(product, mode)
    const { code, said } = await ended(key)
    expect(code).toBe(1)
    expect(said).toContain("Trust Bundle and Server don't agree, ignoring for now")
    expect(said).toMatch(/time_left=[34](\.\d+)?s/)
    expect(said).toContain("Trust Bundle and Server don't agree, rebootstrapping")
    expect(said).toContain('shutting down for rebootstrapping')

    agents.set(key, await startAgent(product, mode))
    expect(agents.get(key)!.output).toContain('Node attestation was successful')
    const shown = await deployment.serverOk(['agent', 'list', '-output', 'json'])
    const rows: { id: { path: string } }[] = JSON.parse(shown).agents
    const id = /spiffe_id="?(spiffe:\/\/[^"\s]+\/x509pop\/\w+)/.exec(agents.get(key)!.output)![1]!
    expect(rows.map(({ id: { path } }) => `spiffe://example.org${path}`)).toContain(id)
    await expectIdentity(product, key, id)
  })

  test('that can not attest again goes on as in mode never', async () => {
    const key = `${product}-token-auto`
    expect(agents.get(key)!.output).toContain(`${NOT_ALLOWED}. Disabling`)
    const { code, said } = await ended(key)
    expect(code).toBe(1)
    expect(said).toContain('Synchronize failed, non-recoverable error')
    expect(said).not.toContain('rebootstrapping')
  })

  test('that can not attest again does not start in mode always', async () => {
    await expectNotAllowed(await restartWithToken(product, 'always'))
  })
})

/** A workload's, from the new server and under its root alone. */
async function expectIdentity(product: Product, key: string, parent: string): Promise<void> {
  await deployment.createEntry([
    ...['-parentID', parent, '-spiffeID', `spiffe://example.org/${key}`],
    ...['-selector', `unix:uid:${process.getuid?.()}`],
  ])
  const out = join(deployment.dir, key)
  await until('the identity', async () => {
    const args = ['api', 'fetch', 'x509', '-timeout', '5s', '-write', out]
    const result = await deployment.agent(product, args, key)
    return result.code === 0 && result.stdout.includes(`spiffe://example.org/${key}`)
  })
  const bundle = readFileSync(join(out, 'bundle.0.pem'), 'utf8').trim()
  expect(bundle).toBe((await deployment.serverOk(['bundle', 'show'])).trim())
}
