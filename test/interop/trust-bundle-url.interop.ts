/** `trust_bundle_url` over HTTPS, with an authority that only the system of the agent knows. */
import { readFileSync } from 'node:fs'
import { createServer, type Server } from 'node:https'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { afterEach, expect, test } from 'vitest'
import { run } from '../rigs/process.ts'
import { until } from '../rigs/until.ts'
import { Deployment, type Product } from './rig.ts'

let server: Server | undefined
afterEach(() => server?.close())

/** Serves the bundle in both forms at 127.0.0.1, whose certificate is its own authority. */
async function serveBundle(deployment: Deployment): Promise<{ url: string; authority: string }> {
  const [key, authority] = ['https.key', 'https.pem'].map((name) => join(deployment.dir, name))
  const made = await run('openssl', [
    ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'],
    ...['-days', '2', '-subj', '/O=Bundles', '-addext', 'subjectAltName=IP:127.0.0.1'],
    ...['-keyout', key!, '-out', authority!],
  ])
  expect(made.code, made.stderr).toBe(0)
  const pem = await deployment.serverOk(['bundle', 'show'])
  const document = await deployment.serverOk(['bundle', 'show', '-format', 'spiffe'])
  const pair = { key: readFileSync(key!), cert: readFileSync(authority!) }
  server = createServer(pair, (request, response) => {
    response.end(request.url === '/pem' ? pem : document)
  })
  await new Promise<void>((resolve) => server!.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  return { url: `https://127.0.0.1:${port}`, authority: authority! }
}

test.each<Product>(['spire', 'signet'])(
  'a %s agent attests with it, if it trusts it',
  async (product) => {
    await using deployment = await Deployment.create('signet')
    await deployment.startServer({})
    const { url, authority } = await serveBundle(deployment)
    for (const format of ['pem', 'spiffe']) {
      const args = ['-joinToken', await deployment.joinToken()]
      const agent = await deployment.startAgent(product, {
        name: format,
        bootstrap: `trust_bundle_url = "${url}/${format}" trust_bundle_format = "${format}"`,
        args,
        env: { SSL_CERT_FILE: authority, SSL_CERT_DIR: '/nowhere' },
      })
      expect(agent.output).toContain('Node attestation was successful')
      await agent.stop()
    }
    const stranger = await deployment.startAgent(
      product,
      {
        name: 'stranger',
        bootstrap: `trust_bundle_url = "${url}/pem"`,
        args: ['-joinToken', await deployment.joinToken()],
      },
      false,
    )
    const refusal = `unable to fetch trust bundle URL ${url}/pem: `
    await until('the refusal', () => stranger.output.includes(refusal))
    expect(stranger.output).not.toContain('Node attestation was successful')
  },
)
