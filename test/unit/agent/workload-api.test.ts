/** The Workload API over a real Unix socket, with real process handles and a fake attestor. */
import { generateKeyPairSync } from 'node:crypto'
import { mkdtemp, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import {
  type Client,
  Metadata,
  type MethodDefinition,
  Server,
  ServerCredentials,
  type ServerWritableStream,
  status,
} from '@grpc/grpc-js'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import {
  fetchWorkloadApiBundle,
  fetchWorkloadApiSvid,
} from '../../../src/agent/sync/workload-api-source.ts'
import { createWorkloadAttestation } from '../../../src/agent/workload-api/attestation.ts'
import { createRateLimiter } from '../../../src/agent/workload-api/rate-limit.ts'
import { startPublicServer } from '../../../src/agent/workload-api/servers.ts'
import { systemClock } from '../../../src/base/clock.ts'
import { SignetError } from '../../../src/base/error.ts'
import type { Selector } from '../../../src/spiffe/selector.ts'
import { TrustDomain } from '../../../src/spiffe/trust-domain.ts'
import { HealthService } from '../../../src/wire/gen/grpc/health/v1/health.ts'
import { ServerReflectionService } from '../../../src/wire/gen/grpc/reflection/v1/reflection.ts'
import { ServerReflectionService as ReflectionV1Alpha } from '../../../src/wire/gen/grpc/reflection/v1alpha/reflection.ts'
import {
  SpiffeWorkloadAPIService as Api,
  type X509BundlesRequest,
  type X509BundlesResponse,
} from '../../../src/wire/gen/workload.ts'
import { openBidi } from '../../../src/wire/transport/bidi.ts'
import { callUnary } from '../../../src/wire/transport/call.ts'
import { openUnixChannel } from '../../../src/wire/transport/channel.ts'
import { splitCertificates } from '../../../src/x509/certificate.ts'
import {
  makeBundle,
  makeCache,
  makeSvid,
  put,
  selectors,
  sign,
  store,
} from '../../fakes/agent-cache.ts'
import { makeEntry } from '../../fakes/make-entry.ts'
import { createMemoryLog, createMemoryMetrics } from '../../fakes/memory-log.ts'
import { selfSignedCertificate } from '../../rigs/test-certificates.ts'
import { until } from '../../rigs/until.ts'

interface Rig extends AsyncDisposable {
  readonly client: Client
  readonly cache: ReturnType<typeof makeCache>['cache']
  readonly log: ReturnType<typeof createMemoryLog>
  readonly attested: { count: number }
  stopServer(): Promise<void>
}

interface RigOptions {
  readonly attest?: () => Promise<readonly Selector[]>
  readonly allowUnauthenticatedVerifiers?: boolean
  readonly limits?: Record<string, number>
  readonly logSelectors?: readonly string[]
}

let dir: string
let open: Rig[]
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'wl-'))
  open = []
})
afterEach(async () => {
  for (const one of open) await one[Symbol.asyncDispose]()
  await rm(dir, { recursive: true, force: true })
})

const HEADER = new Metadata()
HEADER.set('workload.spiffe.io', 'true')

async function rig(options: RigOptions = {}): Promise<Rig> {
  const { cache } = makeCache({ scheduleFlush: (flush) => void setImmediate(flush) })
  const log = createMemoryLog()
  const metrics = createMemoryMetrics()
  const ports = { clock: systemClock, log, metrics }
  const attested = { count: 0 }
  const attest = async () => {
    attested.count++
    return options.attest === undefined ? selectors('unix:uid:1') : options.attest()
  }
  const path = join(dir, 'public', 'api.sock')
  const server = await startPublicServer({
    ...ports,
    path,
    attestation: createWorkloadAttestation([{ name: 'fake', attest }], ports),
    isServing: async () => true,
    workloadApi: {
      cache,
      jwtSvids: {
        async fetch(entry, audience) {
          if (audience.includes('refused')) throw new SignetError('internal', 'x', 'no luck')
          return `token of ${entry.id}`
        },
      },
      validator: {
        validate(token, audience) {
          if (token !== 'good') throw new SignetError('invalid_argument', 'x', 'token has expired')
          return { spiffeId: 'spiffe://example.org/a', claims: { aud: [audience], n: 1 } }
        },
      },
      rateLimiter: createRateLimiter(options.limits ?? {}, ports),
      allowUnauthenticatedVerifiers: options.allowUnauthenticatedVerifiers ?? false,
      logSelectors: options.logSelectors ?? [],
    },
  })
  const client = openUnixChannel(path)
  let stopped: Promise<void> | undefined
  const stopServer = () => {
    stopped ??= Promise.resolve(server[Symbol.asyncDispose]())
    return stopped
  }
  const made: Rig = {
    client,
    cache,
    log,
    attested,
    stopServer,
    async [Symbol.asyncDispose]() {
      client.close()
      await stopServer()
    },
  }
  open.push(made)
  return made
}

describe('another agent', () => {
  const der = selfSignedCertificate(generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey)
  const trustDomain = TrustDomain.parse('example.org')
  const path = () => join(dir, 'public', 'api.sock')

  test.each(['unix://', 'unix:'])('bootstraps from it at %s', async (scheme) => {
    const r = await rig({ allowUnauthenticatedVerifiers: true })
    const x509Authorities = [der, der].map((certificate) => ({ certificate, tainted: false }))
    r.cache.applyBundles([{ ...makeBundle('example.org'), x509Authorities }])
    const roots = await fetchWorkloadApiBundle(`${scheme}${path()}`, trustDomain, systemClock)
    expect(roots.map((one) => Buffer.from(one))).toEqual([der, der].map((one) => Buffer.from(one)))
  })

  test('attests with its default X509-SVID', async () => {
    const r = await rig()
    put(r.cache, makeEntry({ id: 'one' }))
    store(r.cache, { one: makeSvid({ chain: [der, der], privateKey: der.subarray(0, 40) }) })
    const svid = await fetchWorkloadApiSvid(`unix://${path()}`, systemClock)
    expect(svid.certificates.map((one) => Buffer.from(one))).toEqual(
      [der, der].map((one) => Buffer.from(one)),
    )
    expect(Buffer.from(svid.privateKey)).toEqual(Buffer.from(der.subarray(0, 40)))
  })

  test('has no identity to attest with', async () => {
    await rig()
    await expect(fetchWorkloadApiSvid(`unix://${path()}`, systemClock)).rejects.toMatchObject({
      kind: 'unavailable',
      message: 'unable to fetch SVID from workload API: no identity issued',
    })
  })

  test('is told when it has no bundle of its trust domain', async () => {
    await rig({ allowUnauthenticatedVerifiers: true })
    const other = TrustDomain.parse('other.org')
    await expect(
      fetchWorkloadApiBundle(`unix://${path()}`, other, systemClock),
    ).rejects.toMatchObject({
      code: 'bootstrap_bundle_unusable',
      message: expect.stringContaining('did not provide a trust bundle for trust domain'),
    })
  })

  test.each([
    ['refuses it', () => `unix://${path()}`, 'no identity issued'],
    ['is not there', () => 'unix:///nowhere/api.sock', 'unable to fetch trust bundle'],
    ['is not there', () => 'tcp://127.0.0.1:1', 'unable to fetch trust bundle'],
  ])('is told when it %s', async (_what, address, text) => {
    await rig()
    await expect(fetchWorkloadApiBundle(address(), trustDomain, systemClock)).rejects.toMatchObject(
      {
        code: 'bootstrap_bundle_unusable',
        message: expect.stringContaining(text),
      },
    )
  })

  test('reaches one over TCP', async () => {
    const server = new Server()
    server.addService(Api, {
      fetchX509Bundles: (call: ServerWritableStream<X509BundlesRequest, X509BundlesResponse>) => {
        call.write({ crl: [], bundles: { 'spiffe://example.org': Buffer.from(der) } })
      },
    })
    const port = await new Promise<number>((resolve) => {
      server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (_error, p) => resolve(p))
    })
    const roots = await fetchWorkloadApiBundle(`tcp://127.0.0.1:${port}`, trustDomain, systemClock)
    expect(Buffer.from(roots[0]!)).toEqual(Buffer.from(der))
    server.forceShutdown()
  })
})

/** A server stream as what arrived so far. */
function listen<Request extends object, Response>(
  client: Client,
  method: MethodDefinition<Request, Response>,
  metadata = HEADER,
) {
  const seen: { messages: Response[]; error?: { code: number; details: string }; ended: boolean } =
    {
      messages: [],
      ended: false,
    }
  const stream = client.makeServerStreamRequest(
    method.path,
    method.requestSerialize,
    method.responseDeserialize,
    {} as Request,
    metadata,
  )
  stream.on('data', (message: Response) => seen.messages.push(message))
  stream.on('error', (error) => {
    seen.error = error as unknown as { code: number; details: string }
  })
  stream.on('end', () => {
    seen.ended = true
  })
  return Object.assign(seen, { cancel: () => stream.cancel(), pause: () => stream.pause(), stream })
}

const unary = <Request, Response>(
  client: Client,
  method: MethodDefinition<Request, Response>,
  request: Request,
  metadata = HEADER,
) => callUnary(client, method, request, { clock: systemClock, metadata })

function metadataOf(...values: string[]): Metadata {
  const metadata = new Metadata()
  for (const value of values) metadata.add('workload.spiffe.io', value)
  return metadata
}

describe('the security header', () => {
  test.each([
    ['missing', []],
    ['not true', ['false']],
    ['empty', ['']],
    ['sent twice', ['true', 'true']],
    ['in capitals', ['TRUE']],
  ])('%s: refused before anything is looked at', async (_what, values) => {
    const { client, attested } = await rig()
    const metadata = metadataOf(...values)
    const expected = { kind: 'invalid_argument', message: 'security header missing from request' }
    await expect(
      unary(client, Api.fetchJwtsvid, { audience: ['x'], spiffeId: '' }, metadata),
    ).rejects.toMatchObject(expected)
    for (const method of [Api.fetchX509Svid, Api.fetchX509Bundles, Api.fetchJwtBundles]) {
      const stream = listen(client, method as MethodDefinition<object, unknown>, metadata)
      const error = await until('refusal', () => stream.error)
      expect(error).toMatchObject({ code: status.INVALID_ARGUMENT, details: expected.message })
    }
    expect(attested.count).toBe(0)
  })
})

describe('FetchX509SVID', () => {
  test('sends the whole state at once and again when it changes, never twice the same', async () => {
    const { client, cache, attested } = await rig()
    cache.applyBundles([makeBundle('other.org')])
    put(
      cache,
      makeEntry({ id: 'b', hint: 'same', createdAt: 2 }),
      makeEntry({ id: 'c', hint: 'same', createdAt: 1 }),
      makeEntry({ id: 'a', federatesWith: ['other.org'] }),
    )
    sign(cache, 'a', 'b', 'c')
    const stream = listen(client, Api.fetchX509Svid)
    await until('first', () => stream.messages.length === 1)
    const [first] = stream.messages
    expect(first!.svids.map(({ spiffeId, hint }) => [spiffeId, hint])).toEqual([
      ['spiffe://example.org/workload/a', ''],
      ['spiffe://example.org/workload/c', 'same'],
    ])
    expect(Buffer.from(first!.svids[0]!.x509Svid).toString()).toBe('leaf of a')
    expect(Buffer.from(first!.svids[0]!.bundle).toString()).toBe('root of example.org')
    expect(Object.keys(first!.federatedBundles)).toEqual(['spiffe://other.org'])
    expect(first!.crl).toEqual([])
    put(cache, makeEntry({ id: 'a', federatesWith: ['other.org'] }))
    store(cache, { a: makeSvid({ chain: [Buffer.from('renewed')] }) })
    await until('second', () => stream.messages.length === 2)
    expect(Buffer.from(stream.messages[1]!.svids[0]!.x509Svid).toString()).toBe('renewed')
    expect(attested.count).toBe(1)
    stream.cancel()
  })

  test('says who has none, and logs no selector that was not allowed', async () => {
    const { client, log } = await rig({
      attest: async () => selectors('unix:uid:1', 'k8s:ns:prod'),
      logSelectors: ['k8s:ns'],
    })
    const stream = listen(client, Api.fetchX509Svid)
    const error = await until('refusal', () => stream.error)
    expect(error).toMatchObject({ code: status.PERMISSION_DENIED, details: 'no identity issued' })
    // The test process is the agent as well, which its own health check must not log.
    expect(log.lines.some(({ message }) => message === 'No identity issued')).toBe(false)
  })

  test('ends a stream whose last identity went away, with the same words', async () => {
    const { client, cache } = await rig()
    put(cache, makeEntry({ id: 'a' }))
    sign(cache, 'a')
    const stream = listen(client, Api.fetchX509Svid)
    await until('first', () => stream.messages.length === 1)
    cache.applyEntries({ upserts: [], removals: ['a'] })
    const error = await until('refusal', () => stream.error)
    expect(error).toMatchObject({ code: status.PERMISSION_DENIED, details: 'no identity issued' })
  })

  test('when the agent stops streams end with unavailable, never with OK', async () => {
    const { client, cache, stopServer } = await rig()
    put(cache, makeEntry({ id: 'a' }))
    sign(cache, 'a')
    const stream = listen(client, Api.fetchX509Svid)
    await until('first', () => stream.messages.length === 1)
    await stopServer()
    const error = await until('end', () => stream.error)
    expect(error.code).toBe(status.UNAVAILABLE)
    await expect(stat(join(dir, 'public', 'api.sock'))).rejects.toThrow()
  })

  test('a client that does not read gets the newest state alone once it does', async () => {
    const { client, cache } = await rig()
    put(cache, makeEntry({ id: 'a' }))
    sign(cache, 'a')
    const stream = listen(client, Api.fetchX509Svid)
    await until('first', () => stream.messages.length === 1)
    stream.pause()
    const big = Buffer.alloc(200_000)
    const states = 100
    for (let i = 1; i <= states; i++) {
      store(cache, { a: makeSvid({ chain: [Buffer.from(`state ${i} `), big] }) })
      cache.flush()
      await new Promise(setImmediate)
    }
    stream.stream.resume()
    const last = () => Buffer.from(stream.messages.at(-1)!.svids[0]!.x509Svid).toString('latin1')
    await until('newest state', () => last().startsWith(`state ${states} `))
    expect(stream.messages.length).toBeLessThan(states / 2)
    stream.cancel()
  })
})

describe('attestation', () => {
  test('happens once per connection, whatever is asked for', async () => {
    const { client, cache, attested } = await rig()
    put(cache, makeEntry({ id: 'a' }))
    sign(cache, 'a')
    const streams = [listen(client, Api.fetchX509Svid), listen(client, Api.fetchX509Bundles)]
    await until('both', () => streams.every(({ messages }) => messages.length === 1))
    await unary(client, Api.fetchJwtsvid, { audience: ['x'], spiffeId: '' })
    expect(attested.count).toBe(1)
    for (const stream of streams) stream.cancel()
  })

  test('that failed is unavailable, says nothing more, and is tried again', async () => {
    let fail = true
    const { client, cache, attested } = await rig({
      async attest() {
        if (fail) throw new Error('secret detail')
        return selectors('unix:uid:1')
      },
    })
    put(cache, makeEntry({ id: 'a' }))
    const request = { audience: ['x'], spiffeId: '' }
    await expect(unary(client, Api.fetchJwtsvid, request)).rejects.toMatchObject({
      kind: 'unavailable',
      message: 'workload attestation failed',
    })
    fail = false
    expect((await unary(client, Api.fetchJwtsvid, request)).svids).toHaveLength(1)
    expect(attested.count).toBe(2)
  })
})

describe('bundles', () => {
  test('need an identity', async () => {
    const { client } = await rig()
    for (const method of [Api.fetchX509Bundles, Api.fetchJwtBundles]) {
      const stream = listen(client, method as MethodDefinition<object, unknown>)
      const error = await until('refusal', () => stream.error)
      expect(error).toMatchObject({ code: status.PERMISSION_DENIED, details: 'no identity issued' })
    }
  })

  test('without one are the own alone, where the configuration allows it', async () => {
    const { client, cache } = await rig({ allowUnauthenticatedVerifiers: true })
    cache.applyBundles([makeBundle('other.org')])
    const x509 = listen(client, Api.fetchX509Bundles)
    const jwt = listen(client, Api.fetchJwtBundles)
    await until('both', () => x509.messages.length + jwt.messages.length === 2)
    expect(Object.keys(x509.messages[0]!.bundles)).toEqual(['spiffe://example.org'])
    const jwks = Buffer.from(jwt.messages[0]!.bundles['spiffe://example.org']!).toString()
    expect(JSON.parse(jwks)).toEqual({ keys: [] })
    for (const stream of [x509, jwt]) stream.cancel()
  })

  test('with other JWT keys alone are sent to those who read JWT bundles, and to no others', async () => {
    const { client, cache } = await rig()
    put(cache, makeEntry({ id: 'a' }))
    sign(cache, 'a')
    const jwt = listen(client, Api.fetchJwtBundles)
    const others = [listen(client, Api.fetchX509Bundles), listen(client, Api.fetchX509Svid)]
    await until('all', () => [jwt, ...others].every(({ messages }) => messages.length === 1))
    const { publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    const spki = new Uint8Array(publicKey.export({ format: 'der', type: 'spki' }))
    const key = { keyId: 'k', publicKey: spki, expiresAt: 4_000_000_000, tainted: false }
    cache.applyBundles([{ ...makeBundle('example.org'), jwtAuthorities: [key] }])
    await until('the key', () => jwt.messages.length === 2)
    cache.applyBundles([makeBundle('example.org', 'new root')])
    await until('new root', () => others.every(({ messages }) => messages.length === 2))
    for (const stream of [jwt, ...others]) stream.cancel()
  })

  test('are not sent again when only an SVID changed', async () => {
    const { client, cache } = await rig()
    put(cache, makeEntry({ id: 'a' }))
    sign(cache, 'a')
    const bundles = listen(client, Api.fetchX509Bundles)
    const svids = listen(client, Api.fetchX509Svid)
    await until('both', () => bundles.messages.length + svids.messages.length === 2)
    store(cache, { a: makeSvid({ chain: [Buffer.from('renewed')] }) })
    await until('renewed', () => svids.messages.length === 2)
    cache.applyBundles([makeBundle('example.org', 'new root')])
    await until('new root', () => svids.messages.length === 3 && bundles.messages.length === 2)
    for (const stream of [bundles, svids]) stream.cancel()
  })
})

describe('JWT-SVIDs', () => {
  test('come for every matching entry in the order of their IDs, or for the one asked for', async () => {
    const { client, cache } = await rig()
    put(cache, makeEntry({ id: 'b', hint: 'h' }), makeEntry({ id: 'a' }))
    const all = await unary(client, Api.fetchJwtsvid, { audience: ['x'], spiffeId: '' })
    expect(all.svids).toEqual([
      { spiffeId: 'spiffe://example.org/workload/a', svid: 'token of a', hint: '' },
      { spiffeId: 'spiffe://example.org/workload/b', svid: 'token of b', hint: 'h' },
    ])
    const spiffeId = 'spiffe://example.org/workload/b'
    const one = await unary(client, Api.fetchJwtsvid, { audience: ['x'], spiffeId })
    expect(one.svids.map(({ svid }) => svid)).toEqual(['token of b'])
  })

  test.each([
    [[], '', 'invalid_argument', 'audience must be specified'],
    [
      ['x'],
      'nonsense',
      'invalid_argument',
      'invalid requested SPIFFE ID: scheme is missing or invalid',
    ],
    [['x'], 'spiffe://example.org/none', 'permission_denied', 'no identity issued'],
    [['refused'], '', 'unavailable', 'could not fetch JWT-SVID: no luck'],
  ])('for %j and %j: %s', async (audience, spiffeId, kind, message) => {
    const { client, cache } = await rig()
    put(cache, makeEntry({ id: 'a' }))
    await expect(unary(client, Api.fetchJwtsvid, { audience, spiffeId })).rejects.toMatchObject({
      kind,
      message,
    })
  })

  test('are validated without an identity', async () => {
    const { client } = await rig()
    const answer = await unary(client, Api.validateJwtsvid, { audience: 'x', svid: 'good' })
    expect(answer).toEqual({ spiffeId: 'spiffe://example.org/a', claims: { aud: ['x'], n: 1 } })
  })

  test.each([
    ['', 'good', 'audience must be specified'],
    ['x', '', 'svid must be specified'],
    ['x', 'bad', 'token has expired'],
  ])('for audience %j and token %j: %s', async (audience, svid, message) => {
    const { client } = await rig()
    await expect(unary(client, Api.validateJwtsvid, { audience, svid })).rejects.toMatchObject({
      kind: 'invalid_argument',
      message,
    })
  })
})

test('WIT-SVIDs are unimplemented', async () => {
  const { client } = await rig()
  for (const method of [Api.fetchWitsvid, Api.fetchWitBundles]) {
    const stream = listen(client, method as MethodDefinition<object, unknown>)
    expect((await until('refusal', () => stream.error)).code).toBe(status.UNIMPLEMENTED)
  }
})

describe('beside the Workload API', () => {
  test('health needs no header and knows the agent as a whole', async () => {
    const { client } = await rig()
    const none = new Metadata()
    expect((await unary(client, HealthService.check, { service: '' }, none)).status).toBe(1)
    await expect(unary(client, HealthService.check, { service: 'x' }, none)).rejects.toMatchObject({
      kind: 'invalid_argument',
    })
  })

  test.each([
    ['v1', ServerReflectionService],
    ['v1alpha', ReflectionV1Alpha],
  ])('reflection %s lists the services and gives each file with its imports', async (_v, api) => {
    const { client } = await rig()
    const call = openBidi(client, api.serverReflectionInfo, {})
    const ask = async (request: object) => {
      call.send({ host: '', ...request })
      return call.receive()
    }
    const listed = await ask({ listServices: '' })
    expect(listed!.listServicesResponse!.service.map(({ name }) => name)).toEqual([
      'SpiffeWorkloadAPI',
      'grpc.health.v1.Health',
      'grpc.reflection.v1.ServerReflection',
      'grpc.reflection.v1alpha.ServerReflection',
    ])
    for (const fileContainingSymbol of [
      'SpiffeWorkloadAPI',
      'SpiffeWorkloadAPI.FetchX509SVID',
      'X509SVIDResponse',
      'grpc.health.v1.HealthCheckResponse.ServingStatus',
    ]) {
      const answer = await ask({ fileContainingSymbol })
      expect(answer!.fileDescriptorResponse!.fileDescriptorProto.length).toBeGreaterThan(0)
    }
    const missing = await ask({ fileContainingSymbol: 'no.such.Thing' })
    expect(missing!.errorResponse!.errorCode).toBe(status.NOT_FOUND)
    const nothing = await ask({})
    expect(nothing!.errorResponse!.errorCode).toBe(status.INVALID_ARGUMENT)
    call.end()
    expect(await call.receive()).toBeUndefined()
  })

  test('the socket is everybody’s, in a directory everybody can pass', async () => {
    await rig()
    expect((await stat(join(dir, 'public', 'api.sock'))).mode & 0o777).toBe(0o777)
    expect((await stat(join(dir, 'public'))).mode & 0o777).toBe(0o755)
  })
})

test('splits chains as they are sent', () => {
  const two = Buffer.from([0x30, 0x01, 0x05, 0x30, 0x00])
  expect(splitCertificates(two)).toHaveLength(2)
})
