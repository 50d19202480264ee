/**
 * What strangers may send (AttestAgent is open to all) and what administrators may get wrong in
 * bundles, on a running server (F19, T-S3, T-S7): a typed status each, and no echo.
 */
import { randomBytes } from 'node:crypto'
import { type Client, status } from '@grpc/grpc-js'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import {
  ATTESTATION_BYTES_MAX,
  CERTIFICATE_BYTES_MAX,
  STATUS_TEXT_BYTES_MAX,
} from '../../../src/base/limits.ts'
import {
  AgentService,
  type AttestAgentRequest,
  AttestAgentRequest_Params,
  type AttestAgentResponse,
} from '../../../src/wire/gen/spire/api/server/agent/v1/agent.ts'
import { BundleService } from '../../../src/wire/gen/spire/api/server/bundle/v1/bundle.ts'
import { makeNodeCertificate } from '../../interop/pki.ts'
import { Deployment } from '../../interop/rig.ts'
import { makeAuthority, makeLeaf } from '../../rigs/certificates.ts'
import { call, LiveServer } from '../../rigs/live-server.ts'
import { offCurveSpki, p256, rsaSpki, signedCsr } from '../../rigs/odd-csr.ts'

let server: LiveServer
let stranger: Client
let nodeDir: Deployment

beforeAll(async () => {
  nodeDir = await Deployment.create('signet')
  const node = await makeNodeCertificate(nodeDir.dir, 'n1')
  server = await LiveServer.start({
    plugins: `NodeAttestor "x509pop" { plugin_data { ca_bundle_path = "${node.caPath}" } }`,
  })
  stranger = server.tls()
})
afterAll(async () => {
  await server?.[Symbol.asyncDispose]()
  await nodeDir?.[Symbol.asyncDispose]()
})
afterEach(async () => {
  expect(server.daemon.exitCode).toBeUndefined()
  expect((await call(server.admin, BundleService.getBundle, { outputMask: undefined })).code).toBe(
    0,
  )
})

/** Sends all of them and resolves with the end: 'attested' or the status. */
function attest(...requests: AttestAgentRequest[]): Promise<{ code: number; details: string }> {
  const { path, requestSerialize, responseDeserialize } = AgentService.attestAgent
  return new Promise((resolve) => {
    const stream = stranger.makeBidiStreamRequest<AttestAgentRequest, AttestAgentResponse>(
      path,
      requestSerialize,
      responseDeserialize,
      { deadline: Date.now() + 15_000 },
    )
    stream.on('data', ({ result }: AttestAgentResponse) => {
      if (result !== undefined) resolve({ code: status.OK, details: 'attested' })
    })
    stream.on('error', (error: { code?: number; details?: string }) =>
      resolve({ code: error.code ?? -1, details: error.details ?? '' }),
    )
    for (const request of requests) stream.write(request)
    stream.end()
  })
}

function params(type: string, payload: Uint8Array | string, csr = signedCsr(p256())) {
  const bytes = typeof payload === 'string' ? new TextEncoder().encode(payload) : payload
  const { data } = AttestAgentRequest_Params.create({ data: { type, payload: bytes } })
  return { params: { data, params: { csr } } }
}

const json = (value: unknown) => JSON.stringify(value)
const certificates = (...list: unknown[]) => json({ certificates: list })
const base64 = (bytes: Uint8Array) => Buffer.from(bytes).toString('base64')

describe('evidence', () => {
  const noise = randomBytes(200)
  test.each<[string, () => AttestAgentRequest[]]>([
    ['nothing at all', () => []],
    ['an empty message', () => [{}]],
    ['a challenge response first', () => [{ challengeResponse: noise }]],
    ['no data', () => [{ params: { data: undefined, params: { csr: noise } } }]],
    ['no CSR', () => [params('join_token', 'x', new Uint8Array())]],
    ['an unknown type', () => [params('canary-type', noise)]],
    ['a type of megabytes', () => [params('x'.repeat(2_000_000), noise)]],
    ['a type of the prototype', () => [params('__proto__', noise)]],
    ['a token of noise', () => [params('join_token', noise)]],
    ['a token with a NUL', () => [params('join_token', 'a\0b')]],
    ['a token that climbs', () => [params('join_token', '../../server')]],
    ['a token of megabytes', () => [params('join_token', 'x'.repeat(2_000_000))]],
    ['an empty token', () => [params('join_token', '')]],
    ['too much', () => [params('x509pop', new Uint8Array(ATTESTATION_BYTES_MAX + 1))]],
    ['no JSON', () => [params('x509pop', noise)]],
    ['JSON, 100,000 deep', () => [params('x509pop', '['.repeat(100_000))]],
    ['no list', () => [params('x509pop', json({ certificates: 7 }))]],
    ['no certificates', () => [params('x509pop', certificates())]],
    ['certificates of noise', () => [params('x509pop', certificates(base64(noise)))]],
    ['no base64', () => [params('x509pop', certificates('%%%'))]],
    ['numbers', () => [params('x509pop', certificates(1, 2))]],
    ['10,000 certificates', () => [params('x509pop', certificates(...Array(10_000).fill('AA==')))]],
  ])('%s: refused', async (_, requests) => {
    const from = performance.now()
    const { code, details } = await attest(...requests())
    expect([
      status.INVALID_ARGUMENT,
      status.RESOURCE_EXHAUSTED,
      status.FAILED_PRECONDITION,
    ]).toContain(code)
    expect(details).not.toContain('internal')
    expect(details.length).toBeLessThanOrEqual(STATUS_TEXT_BYTES_MAX + 1)
    expect(performance.now() - from).toBeLessThan(3_000)
  })

  test('a chain of a stranger, and one with a key that must not be computed with', async () => {
    const root = await makeAuthority('stranger', 'spiffe://example.org/x')
    const leaf = await makeLeaf(root, { uris: [] })
    const foreign = await attest(params('x509pop', certificates(...leaf.chain.map(base64))))
    expect(foreign.code).toBe(status.PERMISSION_DENIED)
    expect(foreign.details).not.toContain(base64(leaf.der).slice(0, 16))
  })

  test.each<[string, () => Uint8Array]>([
    ['noise', () => new Uint8Array(randomBytes(400))],
    ['RSA-16384', () => signedCsr({ key: p256().key, spki: rsaSpki(16_384, 65_537) })],
    ['a key off the curve', () => signedCsr({ key: p256().key, spki: offCurveSpki() })],
    ["another's key", () => signedCsr({ key: p256().key, spki: p256().spki })],
  ])('a CSR of %s is refused with a good token', async (_, csr) => {
    const token = await server.deployment.joinToken()
    const { code, details } = await attest(params('join_token', token, csr()))
    expect(code).toBe(status.INVALID_ARGUMENT)
    expect(details).not.toContain(token)
  })
})

describe('bundles', () => {
  const der = () => new Uint8Array(randomBytes(500))
  const x509 = (...list: Uint8Array[]) => ({
    x509Authorities: list.map((asn1) => ({ asn1, tainted: false })),
    jwtAuthorities: [],
  })
  const jwt = (publicKey: Uint8Array, keyId = 'k', expiresAt = 0n) => ({
    x509Authorities: [],
    jwtAuthorities: [{ publicKey, keyId, expiresAt, tainted: false }],
  })

  test.each<[string, () => ReturnType<typeof x509> | ReturnType<typeof jwt>]>([
    ['a certificate of noise', () => x509(der())],
    ['an empty certificate', () => x509(new Uint8Array())],
    ['a certificate of megabytes', () => x509(new Uint8Array(CERTIFICATE_BYTES_MAX + 1))],
    ['a JWT key of noise', () => jwt(der())],
    ['a JWT key without name', () => jwt(p256().spki, '')],
    ['a JWT key whose name holds a NUL', () => jwt(p256().spki, 'a\0b')],
    ['a JWT key whose name has megabytes', () => jwt(p256().spki, 'x'.repeat(1_000_000))],
    ['a JWT key off the curve', () => jwt(offCurveSpki())],
    ['a JWT key that expired before time', () => jwt(p256().spki, 'k', -(2n ** 62n))],
  ])('%s is refused in the own and in a federated bundle', async (_, make) => {
    const authorities = { ...make(), witAuthorities: [] }
    const own = await call(server.admin, BundleService.appendBundle, {
      ...authorities,
      outputMask: undefined,
    })
    expect(own.code, own.details).toBe(status.INVALID_ARGUMENT)
    expect(own.details.length).toBeLessThan(400)
    const bundle = { trustDomain: 'other.org', refreshHint: 0n, sequenceNumber: 1n, ...authorities }
    const set = await call(server.admin, BundleService.batchSetFederatedBundle, {
      bundle: [bundle],
      outputMask: undefined,
    })
    const outcome = set.value?.results[0]?.status
    expect(outcome?.code, `${set.details}${outcome?.message}`).toBe(status.INVALID_ARGUMENT)
    expect(outcome!.message.length).toBeLessThan(400)
  })

  test.each([
    '',
    'x'.repeat(256),
    'Other.org',
    'other.org/path',
    'spiffe://',
    'a\0b',
    'example.org',
  ])('a bundle of %j is refused', async (trustDomain) => {
    const bundle = {
      trustDomain,
      refreshHint: 0n,
      sequenceNumber: 1n,
      ...x509(),
      witAuthorities: [],
    }
    const set = await call(server.admin, BundleService.batchSetFederatedBundle, {
      bundle: [bundle],
      outputMask: undefined,
    })
    expect(set.value?.results[0]?.status?.code).toBe(status.INVALID_ARGUMENT)
  })
})
