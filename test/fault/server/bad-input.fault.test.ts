/**
 * Malformed, oversized and greedy input on both doors of a running server (F18, F19, T-S3 to T-S8):
 * a typed status each, nothing of the input in its text, and a server that is well afterwards.
 */
import { randomBytes } from 'node:crypto'
import { connect, constants } from 'node:http2'
import { createConnection } from 'node:net'
import { gzipSync } from 'node:zlib'
import { type Client, status } from '@grpc/grpc-js'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import {
  CSR_BATCH_SIZE_MAX,
  MESSAGE_BYTES_MAX,
  SELECTOR_BYTES_MAX,
} from '../../../src/base/limits.ts'
import { HealthService } from '../../../src/wire/gen/grpc/health/v1/health.ts'
import { AgentClient, AgentService } from '../../../src/wire/gen/spire/api/server/agent/v1/agent.ts'
import { BundleService } from '../../../src/wire/gen/spire/api/server/bundle/v1/bundle.ts'
import { DebugService } from '../../../src/wire/gen/spire/api/server/debug/v1/debug.ts'
import {
  EntryService,
  ListEntriesRequest_Filter,
} from '../../../src/wire/gen/spire/api/server/entry/v1/entry.ts'
import { SVIDService } from '../../../src/wire/gen/spire/api/server/svid/v1/svid.ts'
import { TrustDomainService } from '../../../src/wire/gen/spire/api/server/trustdomain/v1/trustdomain.ts'
import { Entry } from '../../../src/wire/gen/spire/api/types/entry.ts'
import { channelTo } from '../../interop/raw-client.ts'
import '../../rigs/certificates.ts'
import * as x509 from '@peculiar/x509'
import { type Answer, call, callBytes, canary, LiveServer } from '../../rigs/live-server.ts'
import {
  greedyExtensions,
  offCurveSpki,
  p256,
  p256Spki,
  rsaSpki,
  signedCsr,
  unsignedCsr,
} from '../../rigs/odd-csr.ts'

const RSS_GROWTH_MAX = 400 * 1024 * 1024
const SERVICES = [
  AgentService,
  BundleService,
  DebugService,
  EntryService,
  HealthService,
  SVIDService,
  TrustDomainService,
]
const UNARY_PATHS = SERVICES.flatMap((service) =>
  Object.values(service).filter((method) => !method.requestStream && !method.responseStream),
).map(({ path }) => path as string)

let server: LiveServer
let agent: Client
let entryId: string
let baseline: number

beforeAll(async () => {
  server = await LiveServer.start()
  agent = server.tls(await server.attest('spiffe://example.org/node'))
  entryId = await server.deployment.createEntry([
    ...['-parentID', 'spiffe://example.org/node', '-spiffeID', 'spiffe://example.org/web'],
    ...['-selector', 'unix:uid:1', '-dns', 'web.example.org'],
  ])
  await expectIssues()
  baseline = server.residentBytes()
})
afterAll(() => server?.[Symbol.asyncDispose]())

afterEach(async () => {
  await expectIssues()
  expect(server.residentBytes() - baseline).toBeLessThan(RSS_GROWTH_MAX)
})

/** The server is alive, issues, and holds no more than it should. */
async function expectIssues(): Promise<void> {
  expect(server.daemon.exitCode).toBeUndefined()
  const [result] = await issue([signedCsr(p256())])
  expect(result?.status).toEqual({ code: status.OK, message: 'OK' })
}

async function issue(csrs: readonly Uint8Array[]) {
  const params = csrs.map((csr) => ({ entryId, csr }))
  const answer = await call(agent, SVIDService.batchNewX509Svid, { params })
  expect(answer.details).toBe('')
  return answer.value!.results
}

describe('CSRs', () => {
  const good = p256()
  const withKey = (spki: Uint8Array) => () => unsignedCsr(spki)
  const text = new TextEncoder()
  test.each<[string, () => Uint8Array]>([
    ['of noise', () => new Uint8Array(randomBytes(300))],
    ['of one byte', () => Uint8Array.of(0x30)],
    ['of PEM', () => text.encode('-----BEGIN CERTIFICATE REQUEST-----\nMIIB\n-----END')],
    ['cut short', () => signedCsr(good).subarray(0, -7)],
    ['with a tail', () => Buffer.concat([signedCsr(good), Buffer.from('tail')])],
    ['of indefinite length', () => Uint8Array.of(0x30, 0x80, 0x02, 0x01, 0x00, 0x00, 0x00)],
    ['of a length of 4 GiB', () => Uint8Array.of(0x30, 0x84, 0xff, 0xff, 0xff, 0xff)],
    ['10,000 deep', () => new Uint8Array(10_000).map((_, i) => (i % 2 ? 0x80 : 0x30))],
    ['larger than any', () => signedCsr(good, [], 'x'.repeat(20_000))],
    ['RSA-16384', withKey(rsaSpki(16_384, 65_537))],
    ['RSA-8192', withKey(rsaSpki(8_192, 65_537))],
    ['RSA-1024', withKey(rsaSpki(1_024, 65_537))],
    ['RSA, e = 1', withKey(rsaSpki(2_048, 1))],
    ['RSA, e even', withKey(rsaSpki(2_048, 65_536))],
    ['RSA, e = 3', withKey(rsaSpki(2_048, 3))],
    ['off the curve', () => signedCsr({ key: good.key, spki: offCurveSpki() })],
    ['at infinity', () => signedCsr({ key: good.key, spki: p256Spki(Uint8Array.of(0)) })],
    ['at (0, 0)', () => signedCsr({ key: good.key, spki: p256Spki(zeroPoint()) })],
    ["another's key", () => signedCsr({ key: good.key, spki: p256().spki })],
    ['an unfactored RSA key', withKey(rsaSpki(2_048, 65_537))],
  ])('%s: refused', async (_, make) => {
    const mark = canary()
    const csr = make()
    const before = performance.now()
    const [odd, fine] = await issue([csr, signedCsr(p256(), [], mark)])
    expect(performance.now() - before).toBeLessThan(2_000)
    expect(odd?.status?.code).toBe(status.INVALID_ARGUMENT)
    expect(odd?.svid).toBeUndefined()
    expectNoEcho(odd!.status!.message, csr)
    expect(fine?.status?.code).toBe(status.OK)
    const minted = await call(server.admin, SVIDService.mintX509Svid, { csr, ttl: 60 })
    expect(minted.code).toBe(status.INVALID_ARGUMENT)
    expectNoEcho(minted.details, csr)
  })

  test('whatever else a CSR asks for, the certificate is the same', async () => {
    const pair = p256()
    const other = greedyExtensions('spiffe://example.org/spire/server', 'evil.example.org')
    const [plain, greedy, foreign, named] = await issue([
      signedCsr(pair),
      signedCsr(pair, other),
      signedCsr(pair, greedyExtensions('spiffe://other.org/admin', '*')),
      signedCsr(pair, [], 'spiffe://example.org/admin'),
    ])
    const shape = certificateShape(plain!.svid!.certChain[0]!)
    expect(shape.text).toContain('spiffe://example.org/web')
    for (const twin of [greedy, foreign, named]) {
      expect(twin?.status?.code).toBe(status.OK)
      expect(certificateShape(twin!.svid!.certChain[0]!)).toEqual(shape)
    }
  })

  test(`${CSR_BATCH_SIZE_MAX} are served, one more is not`, async () => {
    const csr = signedCsr(p256())
    expect(await issue(Array(CSR_BATCH_SIZE_MAX).fill(csr))).toHaveLength(CSR_BATCH_SIZE_MAX)
    const params = Array(CSR_BATCH_SIZE_MAX + 1).fill({ entryId, csr })
    const answer = await call(agent, SVIDService.batchNewX509Svid, { params })
    expect(answer.code).toBe(status.RESOURCE_EXHAUSTED)
  })

  test('with any byte changed: refused', async () => {
    const csr = signedCsr(p256())
    const mutants = Array.from({ length: 2_000 }, () => {
      const mutant = new Uint8Array(csr)
      const bytes = randomBytes(4)
      mutant[bytes.readUInt16LE(0) % mutant.length] = bytes[2]!
      return mutant
    })
    const believed: number[] = []
    for (let at = 0; at < mutants.length; at += CSR_BATCH_SIZE_MAX) {
      const results = await issue(mutants.slice(at, at + CSR_BATCH_SIZE_MAX))
      for (const [n, { status: outcome }] of results.entries()) {
        if (outcome?.code === status.OK) believed.push(at + n)
        else expect(outcome?.code).toBe(status.INVALID_ARGUMENT)
      }
    }
    // Those where the byte was already what it was made: a signature covers all there is.
    const same = mutants.flatMap((mutant, n) => (Buffer.compare(mutant, csr) === 0 ? [n] : []))
    expect(believed).toEqual(same)
  })
})

describe('messages', () => {
  const mark = canary()
  const bodies: [string, Uint8Array][] = [
    ['noise', randomBytes(1_000)],
    ['a field longer than the message', Buffer.concat([Buffer.of(0x0a, 0x7f), Buffer.from(mark)])],
    ['a field of 2 GiB', Buffer.of(0x0a, 0xff, 0xff, 0xff, 0xff, 0x07, 0x01)],
    ['a varint without end', Buffer.alloc(64, 0xff)],
    ['field number 0', Buffer.concat([Buffer.of(0x02, mark.length), Buffer.from(mark)])],
    ['groups, a million deep', Buffer.alloc(1_000_000, 0x0b)],
    ['end of no group', Buffer.of(0x0c)],
    ['messages, 100,000 deep', nested(100_000)],
    ['no UTF-8', Buffer.of(0x0a, 0x04, 0xff, 0xfe, 0x80, 0xc0)],
    ['wire type 7', Buffer.of(0x0f, 0x01)],
  ]

  test.each(bodies)('%s to every method', async (_, body) => {
    for (const client of [server.admin, agent]) {
      const answers = await Promise.all(UNARY_PATHS.map((path) => callBytes(client, path, body)))
      for (const [n, answer] of answers.entries()) {
        const what = `${UNARY_PATHS[n]}: ${answer.code} ${answer.details}`
        expect(isTyped(answer), what).toBe(true)
        expect(answer.details, what).not.toContain(mark)
      }
    }
  })

  test('4 MiB pass, one byte more does not', async () => {
    const path = EntryService.batchCreateEntry.path
    for (const client of [server.admin, server.tls()]) {
      const over = await callBytes(client, path, new Uint8Array(MESSAGE_BYTES_MAX + 1))
      expect(over.code).toBe(status.RESOURCE_EXHAUSTED)
    }
    const most = await callBytes(server.admin, path, new Uint8Array(MESSAGE_BYTES_MAX))
    expect(most.code).not.toBe(status.RESOURCE_EXHAUSTED)
    expect(isTyped(most)).toBe(true)
  })

  test('a message that unpacks to 256 MiB', async () => {
    const packed = gzipSync(Buffer.alloc(256 * 1024 * 1024), { level: 9 })
    const before = server.residentBytes()
    const answer = await rawCall(BundleService.getBundle.path, frame(packed, 1), {
      'grpc-encoding': 'gzip',
    })
    expect(['8', '13', '12']).toContain(answer)
    expect(server.residentBytes() - before).toBeLessThan(150 * 1024 * 1024)
  })

  test.each([
    ['no leading slash', 'spire.api.server.bundle.v1.Bundle/GetBundle'],
    ['another case', '/spire.api.server.bundle.v1.bundle/getbundle'],
    ['escaped', '/spire.api.server.bundle.v1.Bundle%2FGetBundle'],
    ['two slashes', '//spire.api.server.bundle.v1.Bundle/GetBundle'],
    ['a query', '/spire.api.server.bundle.v1.Bundle/GetBundle?x'],
    ['a name of the prototype', '/constructor'],
    ['a legacy service', '/spire.api.node.Node/FetchX509CASVID'],
  ])('a path with %s reaches nothing', async (_, path) => {
    expect(['12', 'reset']).toContain(await rawCall(path, frame(Buffer.alloc(0), 0)))
  })
})

describe('values', () => {
  const huge = 2 ** 31 - 1
  test('pages of 2^31 - 1', async () => {
    const before = server.residentBytes()
    const page = { pageSize: huge, pageToken: '', filter: undefined, outputMask: undefined }
    const answers = await Promise.all([
      call(server.admin, EntryService.listEntries, page),
      call(server.admin, AgentService.listAgents, page),
      call(server.admin, BundleService.listFederatedBundles, page),
      call(server.admin, EntryService.listEntries, { ...page, pageSize: -huge }),
    ])
    expect(answers.map(({ code }) => code)).toEqual([0, 0, 0, 0])
    expect(server.residentBytes() - before).toBeLessThan(100 * 1024 * 1024)
  })

  test('page tokens of any shape', async () => {
    const tokens = [
      'x',
      "'; drop table signet.entry; --",
      '\0',
      'ü'.repeat(1_000),
      '9'.repeat(4_000_000),
    ]
    for (const pageToken of tokens) {
      const page = { pageSize: 1, pageToken, filter: undefined, outputMask: undefined }
      for (const answer of await Promise.all([
        call(server.admin, EntryService.listEntries, page),
        call(server.admin, AgentService.listAgents, page),
        call(server.admin, BundleService.listFederatedBundles, page),
      ])) {
        // SPIRE's code and text.
        expect([status.OK, status.INTERNAL]).toContain(answer.code)
        if (answer.code !== status.OK) expect(answer.details).toContain('could not parse token')
        expect(answer.details.length).toBeLessThan(200)
      }
    }
  })

  test('giant and poisoned strings in an entry', async () => {
    const big = 'x'.repeat(1024 * 1024)
    const id = (path: string) => ({ trustDomain: 'example.org', path })
    const base = Entry.create({
      spiffeId: id('/v'),
      parentId: id('/node'),
      selectors: [{ type: 'unix', value: 'uid:7' }],
    })
    const entries: Entry[] = [
      { ...base, spiffeId: id(`/${big}`) },
      { ...base, spiffeId: { trustDomain: big, path: '/v' } },
      { ...base, parentId: id(`/${big}`) },
      { ...base, selectors: [{ type: big, value: 'x' }] },
      { ...base, selectors: [{ type: 'x', value: noise(SELECTOR_BYTES_MAX - 1) }] },
      { ...base, hint: big },
      { ...base, id: big },
      { ...base, dnsNames: [big] },
      { ...base, federatesWith: [big] },
      { ...base, dnsNames: Array(2_000).fill('a.example.org') },
      { ...base, spiffeId: id('/a/../b') },
      { ...base, spiffeId: id('/\0') },
      { ...base, selectors: [{ type: 'unix', value: 'uid:\0' }] },
      { ...base, x509SvidTtl: -1 },
      { ...base, expiresAt: -(2n ** 63n) },
    ]
    for (const entry of entries) {
      const request = { entries: [entry], outputMask: undefined }
      const answer = await call(server.admin, EntryService.batchCreateEntry, request)
      const outcome = answer.value?.results[0]?.status ?? { code: answer.code, message: '' }
      const what = JSON.stringify([entries.indexOf(entry), outcome]).slice(0, 200)
      expect(outcome.code, what).toBe(status.INVALID_ARGUMENT)
      expect(outcome.message.length, what).toBeLessThan(4_096)
    }
  })

  test('the longest selector there may be, of what does not compress', async () => {
    const longest = { type: 'x', value: noise(SELECTOR_BYTES_MAX - 2) }
    const entry = Entry.create({
      spiffeId: { trustDomain: 'example.org', path: '/long' },
      parentId: { trustDomain: 'example.org', path: '/node' },
      selectors: [longest, { ...longest, value: noise(SELECTOR_BYTES_MAX - 2) }],
    })
    const request = { entries: [entry], outputMask: undefined }
    const answer = await call(server.admin, EntryService.batchCreateEntry, request)
    expect(answer.value?.results[0]?.status?.code).toBe(status.OK)
    const filter = ListEntriesRequest_Filter.create({
      bySelectors: { selectors: entry.selectors, match: 0 },
    })
    const page = { pageSize: 0, pageToken: '', filter, outputMask: undefined }
    const listed = await call(server.admin, EntryService.listEntries, page)
    expect(listed.value?.entries).toHaveLength(1)
  })

  test('giant strings everywhere else', async () => {
    const big = 'x'.repeat(1024 * 1024)
    const token = { ttl: huge, token: big, agentId: undefined }
    const answers: Answer<unknown>[] = await Promise.all([
      call(server.admin, AgentService.createJoinToken, token),
      call(server.admin, AgentService.createJoinToken, { ...token, token: 'a\0b' }),
      call(server.admin, AgentService.deleteAgent, { id: { trustDomain: big, path: big } }),
      call(server.admin, AgentService.getAgent, {
        id: { trustDomain: 'example.org', path: `/spire/agent/${big}` },
        outputMask: undefined,
      }),
      call(server.admin, EntryService.getEntry, { id: big, outputMask: undefined }),
      call(server.admin, SVIDService.mintJwtsvid, {
        id: { trustDomain: 'example.org', path: '/m' },
        audience: [big],
        ttl: 60,
      }),
      call(agent, SVIDService.newJwtsvid, { entryId, audience: Array(5_000).fill('a') }),
    ])
    for (const { code, details } of answers) {
      expect([status.INVALID_ARGUMENT, status.NOT_FOUND]).toContain(code)
      expect(details.length).toBeLessThan(4_096)
    }
  })
})

describe('clients', () => {
  test('one that never reads costs little, others are served', async () => {
    await fill(200)
    const before = server.residentBytes()
    const session = connect('http://localhost', {
      createConnection: () => createConnection(server.deployment.serverSocket),
      settings: { initialWindowSize: 0 },
    })
    session.on('error', () => {})
    const body = frame(Buffer.alloc(0), 0)
    for (let n = 0; n < 240; n++) {
      const stream = session.request(headers(EntryService.listEntries.path))
      stream.on('error', () => {})
      stream.end(body)
    }
    await Promise.all(Array.from({ length: 20 }, () => expectIssues()))
    expect(server.residentBytes() - before).toBeLessThan(300 * 1024 * 1024)
    session.destroy()
  })

  test('500 redemptions of one join token: one wins', async () => {
    const token = await server.deployment.joinToken()
    const payload = new TextEncoder().encode(token)
    const csr = signedCsr(p256())
    const clients = Array.from(
      { length: 10 },
      () =>
        new AgentClient(server.address, channelTo(server.rootsPem), {
          'grpc.use_local_subchannel_pool': 1,
        }),
    )
    const attempts = Array.from({ length: 500 }, (_, n) =>
      attest(clients[n % clients.length]!, payload, csr),
    )
    const outcomes = await Promise.all(attempts)
    for (const client of clients) client.close()
    const losers = outcomes.filter((outcome) => outcome !== 'attested')
    expect(losers).toHaveLength(499)
    expect([...new Set(losers)]).toEqual([
      '3 failed to attest: join token does not exist or has already been used',
    ])
  }, 90_000)
})

/** Who is shed comes again, as agents do: all of them hear about the token. */
async function attest(client: AgentClient, payload: Uint8Array, csr: Uint8Array) {
  for (;;) {
    const outcome = await attestOnce(client, payload, csr)
    // Too many under way, or too many that wait for a database connection.
    if (!outcome.startsWith(`${status.UNAVAILABLE} `)) return outcome
    await new Promise((resolve) => setTimeout(resolve, 50 + Math.random() * 200))
  }
}

function attestOnce(client: AgentClient, payload: Uint8Array, csr: Uint8Array): Promise<string> {
  return new Promise((resolve) => {
    const stream = client.attestAgent({ deadline: Date.now() + 60_000 })
    stream.once('data', () => {
      resolve('attested')
      stream.end()
    })
    stream.once('error', (error: { code?: number; details?: string }) =>
      resolve(`${error.code} ${error.details}`),
    )
    stream.write({ params: { data: { type: 'join_token', payload }, params: { csr } } })
  })
}

/** Text of so many characters that no compression shortens much. */
function noise(length: number): string {
  return randomBytes(length).toString('base64').slice(0, length)
}

/** Entries of about 5 KB each. */
async function fill(count: number): Promise<void> {
  const id = (path: string) => ({ trustDomain: 'example.org', path })
  const entries = Array.from({ length: count }, (_, n) =>
    Entry.create({
      spiffeId: id(`/fill/${n}`),
      parentId: id('/elsewhere'),
      selectors: Array.from({ length: 50 }, (_, k) => ({
        type: 'k8s',
        value: `${k}${'x'.repeat(80)}`,
      })),
    }),
  )
  const request = { entries, outputMask: undefined }
  expect((await call(server.admin, EntryService.batchCreateEntry, request)).code).toBe(0)
}

/** Ours or gRPC's, never "unknown" or a failure of ours. */
function isTyped({ code, details }: Answer<unknown>): boolean {
  if (code === status.INTERNAL)
    return /^grpc: error unmarshalling request: proto: [\w -]{1,60}$/.test(details)
  return ![status.UNKNOWN, status.UNAVAILABLE, status.DEADLINE_EXCEEDED].includes(code)
}

function expectNoEcho(message: string, input: Uint8Array): void {
  const bytes = Buffer.from(input)
  expect(message.length).toBeLessThan(300)
  for (const form of [bytes.toString('latin1'), bytes.toString('base64'), bytes.toString('hex')]) {
    if (form.length >= 8) expect(message).not.toContain(form.slice(0, 8))
  }
}

/** All that a certificate says but serial number, times and signature. */
function certificateShape(der: Uint8Array) {
  const read = new x509.X509Certificate(new Uint8Array(der))
  return {
    subject: read.subject,
    issuer: read.issuer,
    key: Buffer.from(read.publicKey.rawData).toString('hex'),
    seconds: (read.notAfter.getTime() - read.notBefore.getTime()) / 1000,
    extensions: read.extensions.map(({ rawData }) => Buffer.from(rawData).toString('hex')),
    text: Buffer.from(der)
      .toString('latin1')
      .match(/spiffe:\/\/[\w./]+/)?.[0],
  }
}

function zeroPoint(): Uint8Array {
  const point = new Uint8Array(65)
  point[0] = 4
  return point
}

/** Length-delimited fields 1 in each other, cut where they would exceed 4 MiB. */
function nested(depth: number): Uint8Array {
  const heads: Buffer[] = []
  let length = 0
  for (let n = 0; n < depth; n++) {
    const head = [0x0a]
    let rest = length
    for (; rest > 127; rest >>>= 7) head.push((rest & 127) | 128)
    head.push(rest)
    heads.push(Buffer.from(head))
    length += head.length
  }
  return Buffer.concat(heads.reverse())
}

function frame(message: Uint8Array, compressed: number): Buffer {
  const head = Buffer.alloc(5)
  head[0] = compressed
  head.writeUInt32BE(message.length, 1)
  return Buffer.concat([head, message])
}

function headers(path: string) {
  return {
    [constants.HTTP2_HEADER_PATH]: path,
    [constants.HTTP2_HEADER_METHOD]: 'POST',
    [constants.HTTP2_HEADER_TE]: 'trailers',
    [constants.HTTP2_HEADER_CONTENT_TYPE]: 'application/grpc',
  }
}

/** The grpc-status of a call written by hand on the admin socket, or 'reset'. */
function rawCall(
  path: string,
  body: Buffer,
  more: Readonly<Record<string, string>> = {},
): Promise<string> {
  const session = connect('http://localhost', {
    createConnection: () => createConnection(server.deployment.serverSocket),
  })
  return new Promise<string>((resolve) => {
    const stream = session.request({ ...headers(path), ...more })
    const read = (fields: Readonly<Record<string, unknown>>) => {
      if (fields['grpc-status'] !== undefined) resolve(String(fields['grpc-status']))
    }
    stream.on('response', read)
    stream.on('trailers', read)
    stream.on('error', () => resolve('reset'))
    stream.on('close', () => resolve('reset'))
    session.on('error', () => resolve('reset'))
    stream.resume()
    stream.end(body)
  }).finally(() => session.destroy())
}
