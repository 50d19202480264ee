/** Channels against real TLS servers: whom they believe, and with which words they refuse. */
import { generateKeyPairSync } from 'node:crypto'
import { promises } from 'node:dns'
import { Server, ServerCredentials, type ServerUnaryCall, type sendUnaryData } from '@grpc/grpc-js'
import { afterEach, beforeAll, describe, expect, test, vi } from 'vitest'
import { systemClock } from '../../../src/base/clock.ts'
import { SignetError } from '../../../src/base/error.ts'
import { CLUSTER_CONTROL, CLUSTER_DEFAULT } from '../../../src/ca/authority/authority.ts'
import { TrustDomain } from '../../../src/spiffe/trust-domain.ts'
import {
  type HealthCheckRequest,
  type HealthCheckResponse,
  HealthService,
} from '../../../src/wire/gen/grpc/health/v1/health.ts'
import { toGrpcStatus } from '../../../src/wire/status.ts'
import { callUnary, rpcErrorText } from '../../../src/wire/transport/call.ts'
import {
  isUnknownAuthority,
  openServerChannel,
  probeServerLeaf,
  type ServerChannelOptions,
  serverIdentityError,
} from '../../../src/wire/transport/channel.ts'
import { parseCertificate } from '../../../src/x509/certificate.ts'
import { formatPem } from '../../../src/x509/pem.ts'
import { FakeClock } from '../../fakes/fake-clock.ts'
import { createMemoryAuthorityStore } from '../../fakes/memory-authority-store.ts'
import {
  makeAuthority,
  makeLeaf,
  type TestAuthority,
  type TestLeaf,
} from '../../rigs/certificates.ts'
import { createTestServer } from '../../rigs/test-authorities.ts'
import { selfSignedCertificate } from '../../rigs/test-certificates.ts'
import { until } from '../../rigs/until.ts'

const TD = TrustDomain.parse('example.org')
const SERVER_URI = 'spiffe://example.org/spire/server'

let root: TestAuthority
let control: TestAuthority
let workloads: TestAuthority
let plain: TestAuthority
let stranger: TestAuthority
let other: TestAuthority
let belowOther: TestAuthority
let belowStranger: TestAuthority
beforeAll(async () => {
  root = await makeAuthority('root', TD.id)
  control = await makeAuthority('one, OU=cluster:control', TD.id, root)
  workloads = await makeAuthority('two, OU=cluster:default', TD.id, root)
  plain = await makeAuthority('upstream', TD.id, root)
  stranger = await makeAuthority('root', TD.id)
  other = await makeAuthority('other root', TD.id)
  belowOther = await makeAuthority('below', TD.id, other)
  belowStranger = await makeAuthority('below', TD.id, stranger)
})

const CALL = { clock: systemClock, timeoutMs: 5_000 }

const servers: Server[] = []
afterEach(() => {
  for (const server of servers.splice(0)) server.forceShutdown()
})

const serverLeaf = (issuer: TestAuthority, uris = [SERVER_URI]) =>
  makeLeaf(issuer, { uris, intermediates: issuer === root ? [] : [issuer] })

async function serve(leaf: TestLeaf, address = '127.0.0.1:0', asked = () => {}): Promise<number> {
  const server = new Server()
  servers.push(server)
  server.addService(HealthService, {
    check: (
      call: ServerUnaryCall<HealthCheckRequest, HealthCheckResponse>,
      callback: sendUnaryData<HealthCheckResponse>,
    ) => {
      asked()
      if (call.request.service === 'hang') return
      if (call.request.service === '') return callback(null, { status: 1 })
      const denied = new SignetError('permission_denied', 'x', 'denied', { denial: 'agent_banned' })
      callback(toGrpcStatus(denied))
    },
    list: () => {},
    watch: () => {},
  })
  const chain = leaf.chain.map((der) => formatPem('CERTIFICATE', der)).join('')
  const pair = { cert_chain: Buffer.from(chain), private_key: Buffer.from(leaf.keyPem) }
  const credentials = ServerCredentials.createSsl(null, [pair], false)
  return new Promise((resolve, reject) => {
    server.bindAsync(address, credentials, (error, port) => (error ? reject(error) : resolve(port)))
  })
}

async function ask(
  port: number,
  fields: Partial<ServerChannelOptions> = {},
  service = '',
  timeoutMs = 5_000,
) {
  const options = { host: '127.0.0.1', port, trustDomain: TD, roots: [root.der], ...fields }
  const client = openServerChannel(options)
  try {
    return await callUnary(
      client,
      HealthService.check,
      { service },
      { clock: systemClock, timeoutMs },
    )
  } finally {
    client.close()
  }
}

describe('a channel to the server', () => {
  test.each<[string, () => TestAuthority]>([
    ['the root itself', () => root],
    ['the control cluster', () => control],
    ['an issuer that names no cluster, as SPIRE’s', () => plain],
  ])('believes a server certificate of %s', async (_what, issuer) => {
    const port = await serve(await serverLeaf(issuer()))
    const marks: boolean[] = []
    const onServerVerified = (isMarked: boolean) => void marks.push(isMarked)
    expect(await ask(port, { onServerVerified })).toEqual({ status: 1 })
    expect(marks).toEqual([issuer() === control])
  })

  test('takes the addresses of a name by turns', async () => {
    const leaf = await serverLeaf(control)
    const asked = [0, 0]
    const port = await serve(leaf, '127.0.0.1:0', () => void asked[0]!++)
    await serve(leaf, `127.0.0.2:${port}`, () => void asked[1]!++)
    // The name service alone is not real: a test machine has no name with two addresses.
    const addresses = ['127.0.0.1', '127.0.0.2'].map((address) => ({ address, family: 4 }))
    const lookup = vi.spyOn(promises, 'lookup').mockResolvedValue(addresses as never)
    const options = { host: 'two.example', port, trustDomain: TD, roots: [root.der] }
    const client = openServerChannel(options)
    try {
      await until('both addresses to be asked', async () => {
        await callUnary(client, HealthService.check, { service: '' }, CALL)
        return asked.every((count) => count > 0)
      })
      asked.fill(0)
      for (let call = 0; call < 10; call++) {
        await callUnary(client, HealthService.check, { service: '' }, CALL)
      }
      expect(asked).toEqual([5, 5])
    } finally {
      client.close()
      lookup.mockRestore()
    }
  })

  test('does not believe another cluster’s, which a plugged-in CA may hold', async () => {
    const port = await serve(await serverLeaf(workloads))
    await expect(ask(port)).rejects.toMatchObject({
      kind: 'unavailable',
      message: expect.stringContaining('server certificate was issued by cluster \\"default\\"'),
    })
  })

  test.each([
    ['a workload', ['spiffe://example.org/w']],
    ['an agent', ['spiffe://example.org/spire/agent/x']],
    ['another trust domain’s server', ['spiffe://other.org/spire/server']],
    ['two identities', [SERVER_URI, 'spiffe://example.org/w']],
    ['no identity', []],
  ])('does not believe %s, however well signed', async (_what, uris) => {
    const port = await serve(await serverLeaf(control, uris))
    await expect(ask(port)).rejects.toMatchObject({
      kind: 'unavailable',
      message: expect.stringContaining('expected server SPIFFE ID'),
    })
  })

  test.each<[string, () => readonly TestAuthority[]]>([
    ['an authority that only has the name', () => [stranger]],
    ['an unknown authority', () => [other]],
    ['an unknown authority’s intermediate', () => [belowOther]],
    ['an unknown authority that is shown as well', () => [belowOther, other]],
    ['an intermediate of who only has the name', () => [belowStranger]],
  ])('knows %s from other failures', async (_what, issuers) => {
    const [issuer] = issuers()
    const leaf = await makeLeaf(issuer!, { uris: [SERVER_URI], intermediates: issuers() })
    const error = await ask(await serve(leaf)).catch((thrown: unknown) => thrown)
    expect(error).toMatchObject({ kind: 'unavailable' })
    expect(isUnknownAuthority(error)).toBe(true)
  })

  test.each<[string, () => Promise<number>]>([
    ['nobody', async () => 1],
    ['another cluster', async () => serve(await serverLeaf(workloads))],
    ['a workload', async () => serve(await serverLeaf(control, ['spiffe://example.org/w']))],
    [
      'an expired certificate',
      async () => {
        const notAfter = new Date(Date.now() - 1_000)
        return serve(await makeLeaf(root, { uris: [SERVER_URI], notAfter }))
      },
    ],
  ])('%s is no unknown authority', async (_what, start) => {
    const error = await ask(await start()).catch((thrown: unknown) => thrown)
    expect(error).toMatchObject({ kind: 'unavailable' })
    expect(isUnknownAuthority(error)).toBe(false)
  })

  test('believes what ends at an intermediate that is an authority of the bundle', async () => {
    const port = await serve(await serverLeaf(plain))
    expect(await ask(port, { roots: [plain.der] })).toEqual({ status: 1 })
  })

  test('does not believe an expired certificate', async () => {
    const notAfter = new Date(Date.now() - 1_000)
    const port = await serve(await makeLeaf(root, { uris: [SERVER_URI], notAfter }))
    await expect(ask(port)).rejects.toMatchObject({ kind: 'unavailable' })
  })
})

describe('insecure bootstrap', () => {
  test('takes the leaf that answers, and the channel made with it talks to no other', async () => {
    const leaf = await serverLeaf(stranger)
    const port = await serve(leaf)
    const seen = await probeServerLeaf({ host: '127.0.0.1', port, trustDomain: TD })
    expect(seen).toEqual(leaf.der)
    expect(await ask(port, { roots: [seen] })).toEqual({ status: 1 })
    const other = await serve(await serverLeaf(stranger))
    await expect(ask(other, { roots: [seen] })).rejects.toMatchObject({ kind: 'unavailable' })
  })

  test('still refuses another trust domain’s server', async () => {
    const port = await serve(await serverLeaf(root, ['spiffe://other.org/spire/server']))
    await expect(
      probeServerLeaf({ host: '127.0.0.1', port, trustDomain: TD }),
    ).rejects.toMatchObject({ code: 'server_unverified' })
  })

  test('of nobody is unavailable', async () => {
    await expect(
      probeServerLeaf({ host: '127.0.0.1', port: 1, trustDomain: TD }),
    ).rejects.toMatchObject({ kind: 'unavailable' })
  })
})

describe('a call', () => {
  test('carries the reason of a denial, and reads as Go prints it', async () => {
    const port = await serve(await serverLeaf(control))
    const error = await ask(port, {}, 'denied').catch((thrown: unknown) => thrown)
    expect(error).toMatchObject({ kind: 'permission_denied', denial: 'agent_banned' })
    expect(rpcErrorText(error as SignetError)).toBe(
      'rpc error: code = PermissionDenied desc = denied',
    )
  })

  test('ends at its deadline', async () => {
    const port = await serve(await serverLeaf(control))
    await expect(ask(port, {}, 'hang', 300)).rejects.toMatchObject({ kind: 'deadline_exceeded' })
  })
})

// The names are those that rotation gives, not this test's.
test.each([
  [CLUSTER_CONTROL, undefined],
  [CLUSTER_DEFAULT, 'server certificate was issued by cluster "default"'],
  [{ id: 7 }, 'server certificate was issued by cluster "7"'],
])('of the intermediates that a server makes, %o: %s', async ({ id }, refusal) => {
  const store = createMemoryAuthorityStore()
  const config = { clusterIds: [1, 2, 7] }
  const server = createTestServer({ store, clock: new FakeClock(), config })
  await server.rotator.step()
  const rows = await store.listAuthorities()
  const issuer = rows.find((row) => row.kind === 'x509_intermediate' && row.clusterId === id)!
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const leaf = selfSignedCertificate(privateKey, {
    isCa: false,
    uri: SERVER_URI,
    issuer: parseCertificate(issuer.certificate!).subject,
  })
  expect(serverIdentityError(leaf, TD)?.message).toBe(refusal)
})

test('what is no certificate speaks for nobody', () => {
  expect(serverIdentityError(undefined, TD)).toBeInstanceOf(Error)
  expect(serverIdentityError(new Uint8Array([0x30, 0x00]), TD)).toBeInstanceOf(Error)
})
