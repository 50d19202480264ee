/**
 * Suite admin-endpoints, on SPIRE's server and ours: whoever is an administrator, by configuration, by
 * an entry or from a federated trust domain, may call each method that is for administrators; a
 * workload, an agent and a caller without certificate may call none of them.
 */
import { readFileSync } from 'node:fs'
import { Client, status } from '@grpc/grpc-js'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { makeAuthority, makeLeaf } from '../rigs/certificates.ts'
import { callBytes } from '../rigs/live-server.ts'
import { until } from '../rigs/until.ts'
import { attestWithToken, channelTo, derToPem, type RawIdentity } from './raw-client.ts'
import { Deployment, type Product } from './rig.ts'

const FOREIGN_ADMIN = 'spiffe://other.org/admin'
const STATIC_ADMIN = 'spiffe://example.org/static-admin'
const PUBLIC = 'GetFederatedBundle'

/** Paths that administrators may call. */
const PATHS = readFileSync(new URL('../vectors/wire/routes.tsv', import.meta.url), 'utf8')
  .split('\n')
  .map((line) => line.split('\t'))
  .filter(([, kind, callers]) => kind === 'unary' && callers?.split('+').includes('admin'))
  .map(([path]) => path!)

describe.each<Product>(['spire', 'signet'])('administrators of the %s server', (product) => {
  let deployment: Deployment
  let roots: string
  let agent: RawIdentity
  const clients: Client[] = []

  const client = (identity?: RawIdentity): Client => {
    const options = { 'grpc.use_local_subchannel_pool': 1 }
    const one = new Client(`localhost:${deployment.port}`, channelTo(roots, identity), options)
    clients.push(one)
    return one
  }

  beforeAll(async () => {
    deployment = await Deployment.create(product)
    await deployment.startServer({ server: `admin_ids = ["${STATIC_ADMIN}", "${FOREIGN_ADMIN}"]` })
    roots = await deployment.serverOk(['bundle', 'show'])
    const token = await deployment.joinToken()
    agent = await attestWithToken(`localhost:${deployment.port}`, roots, token, deployment.dir)
    for (const [name, ...more] of [['admin', '-admin'], ['plain']] as const) {
      const entry = ['-parentID', agent.spiffeId, '-spiffeID', `spiffe://example.org/${name}`]
      await deployment.createEntry([...entry, '-selector', `a:${name}`, ...more])
    }
  })
  afterAll(async () => {
    for (const one of clients) one.close()
    await deployment?.[Symbol.asyncDispose]()
  })

  async function mint(spiffeId: string): Promise<RawIdentity> {
    const shown = await deployment.serverOk(['x509', 'mint', '-spiffeID', spiffeId])
    const pem = (kind: string) =>
      shown.match(new RegExp(`-----BEGIN ${kind}-----[\\s\\S]*?-----END ${kind}-----`, 'g')) ?? []
    const chain = pem('CERTIFICATE').slice(0, product === 'spire' ? 1 : 2)
    return { spiffeId, keyPem: pem('[A-Z ]*PRIVATE KEY')[0]!, chainPem: chain.join('\n') }
  }

  /** Of other.org, whose bundle is stored here. */
  async function foreign(spiffeId: string): Promise<RawIdentity> {
    const root = await makeAuthority('other', 'spiffe://other.org')
    const set = await deployment.server(['bundle', 'set', '-id', 'spiffe://other.org'], product, {
      input: derToPem(root.der),
    })
    expect(set).toMatchObject({ code: 0, stderr: '' })
    const leaf = await makeLeaf(root, { uris: [spiffeId] })
    return { spiffeId, keyPem: leaf.keyPem, chainPem: leaf.chain.map(derToPem).join('') }
  }

  async function codes(identity?: RawIdentity): Promise<Map<string, number>> {
    const caller = client(identity)
    const answers = new Map<string, number>()
    // An empty message: what it does is not the question.
    for (const path of PATHS) {
      answers.set(path, (await callBytes(caller, path, new Uint8Array())).code)
    }
    return answers
  }

  const ADMINS: [string, () => Promise<RawIdentity>][] = [
    ['by configuration', () => mint(STATIC_ADMIN)],
    ['by an entry', () => mint('spiffe://example.org/admin')],
    ['of a federated trust domain', () => foreign(FOREIGN_ADMIN)],
  ]
  test.each(ADMINS)('one %s may call all of it', async (_, identity) => {
    const administrator = await identity()
    const admin = client(administrator)
    const count = PATHS.find((path) => path.endsWith('/CountEntries'))!
    await until('the server to know', async () => {
      return (await callBytes(admin, count, new Uint8Array())).code === status.OK
    })
    const answers = await codes(administrator)
    const refused = [status.PERMISSION_DENIED, status.UNAVAILABLE, status.UNKNOWN]
    expect([...answers].filter(([, code]) => refused.includes(code))).toEqual([])
  })

  const OTHERS: [string, () => Promise<RawIdentity | undefined>][] = [
    ['a workload', () => mint('spiffe://example.org/plain')],
    ['an agent', async () => agent],
    ['a caller without certificate', async () => undefined],
  ]
  test.each(OTHERS)('%s may call none of it', async (who, identity) => {
    const answers = await codes(await identity())
    const mayBe = who === 'an agent' ? [PUBLIC] : []
    const letIn = [...answers].filter(([, code]) => code !== status.PERMISSION_DENIED)
    expect(letIn.map(([path]) => path.split('/')[2])).toEqual(mayBe)
  })

  test('who of a federated trust domain is no administrator gets no connection', async () => {
    const answers = await codes(await foreign('spiffe://other.org/somebody'))
    expect(new Set(answers.values())).toEqual(new Set([status.UNAVAILABLE]))
  })
})

test('the methods are those of six services', () => {
  expect(PATHS.length).toBeGreaterThan(35)
})
