/** Both halves against each other, and the server half against agents that lie. */
import { createHash, createPublicKey, generateKeyPairSync, verify } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import { createX509popAgent } from '../../../../../src/attestors/node/x509pop/agent.ts'
import {
  parseX509popAgentConfig,
  parseX509popServerConfig,
} from '../../../../../src/attestors/node/x509pop/config.ts'
import {
  decodeChallenge,
  decodeResponse,
  encodeAttestationData,
  encodeResponse,
} from '../../../../../src/attestors/node/x509pop/payload.ts'
import {
  checkPossession,
  provePossession,
} from '../../../../../src/attestors/node/x509pop/possession.ts'
import { createX509popServer } from '../../../../../src/attestors/node/x509pop/server.ts'
import { loadTrustFiles } from '../../../../../src/attestors/node/x509pop/trust-files.ts'
import { SignetError } from '../../../../../src/base/error.ts'
import { parseCertificate } from '../../../../../src/x509/certificate.ts'
import { encodeName } from '../../../../../src/x509/name.ts'
import { formatPem, parsePemOf } from '../../../../../src/x509/pem.ts'
import { subjectKeyId } from '../../../../../src/x509/spki.ts'
import type { CertificateTemplate } from '../../../../../src/x509/template.ts'
import { FakeClock } from '../../../../fakes/fake-clock.ts'
import { createMemoryLog } from '../../../../fakes/memory-log.ts'
import { createSeededRandom } from '../../../../fakes/seeded-random.ts'
import { NOW, newKey, signTemplate, TD, type TestKey } from '../../../../rigs/issuing.ts'
import { openssl } from '../../../../rigs/openssl.ts'

interface Signed {
  readonly key: TestKey
  readonly der: Uint8Array
  readonly subject: Uint8Array
}

function make(
  name: string,
  by: Signed | undefined,
  change: Partial<CertificateTemplate> = {},
  key: TestKey = newKey(),
): Signed {
  const subject = encodeName({ commonName: [name] })
  const template: CertificateTemplate = {
    serialNumber: Uint8Array.of(0x0a, 0xbc),
    signatureAlgorithm: 'ecdsa-sha256',
    issuer: by?.subject ?? subject,
    validity: { notBefore: NOW - 10, notAfter: NOW + 10 },
    subject,
    subjectPublicKeyInfo: key.publicKey,
    isCa: true,
    keyUsage: ['keyCertSign'],
    extKeyUsage: [],
    uriNames: [],
    dnsNames: [],
    subjectKeyId: subjectKeyId(key.publicKey),
    ...change,
  }
  return { key, subject, der: signTemplate(template, (by?.key ?? key).privateKey) }
}

const LEAF = { isCa: false, keyUsage: ['digitalSignature'] } as const
const root = make('root', undefined)
const middle = make('middle', root)
const leaf = make('n1.nodes', middle, LEAF)
const sha1 = (der: Uint8Array) => createHash('sha1').update(der).digest('hex')
const directory = mkdtempSync(join(tmpdir(), 'signet-x509pop-'))
afterAll(() => rmSync(directory, { recursive: true, force: true }))

function file(name: string, text: string): string {
  const path = join(directory, name)
  writeFileSync(path, text)
  return path
}

function pem(...ders: Uint8Array[]): string {
  return ders.map((der) => formatPem('CERTIFICATE', der)).join('')
}

const noApi = { fetchSvid: () => Promise.reject(new Error('not asked')) }

function agentOf(node: Signed, intermediates: Signed[] = [middle]) {
  const key = node.key.privateKey.export({ format: 'pem', type: 'pkcs8' }).toString()
  return createX509popAgent({
    ...noApi,
    random: createSeededRandom('agent'),
    config: {
      endpointSocket: '',
      privateKeyPath: file('key.pem', key),
      certificatePath: file('cert.pem', pem(node.der)),
      intermediatesPath:
        intermediates.length > 0 ? file('chain.pem', pem(...intermediates.map((i) => i.der))) : '',
    },
  })
}

function serverOf(data: Record<string, unknown> = {}, roots = [root.der]) {
  return serverAt(NOW, data, roots)
}

function serverAt(now: number, data: Record<string, unknown>, roots: Uint8Array[]) {
  const log = createMemoryLog()
  const random = createSeededRandom('server')
  const spiffe = data.mode === 'spiffe' ? {} : { ca_bundle_path: 'given' }
  const server = createX509popServer({
    config: parseX509popServerConfig({ ...spiffe, ...data }),
    trustDomain: TD,
    clock: new FakeClock(now),
    random,
    log,
    roots: async () => roots,
  })
  return { server, log }
}

type Attack = (challenge: Uint8Array, honest: Uint8Array) => Uint8Array

async function attest(
  node: Signed,
  options: {
    server?: ReturnType<typeof serverOf>['server']
    intermediates?: Signed[]
    remoteIp?: string
    attack?: Attack
  } = {},
) {
  const session = await agentOf(node, options.intermediates).attest()
  return (options.server ?? serverOf().server).attest({
    payload: session.payload,
    remoteIp: options.remoteIp ?? '',
    challenge: async (challenge) => {
      const honest = await session.respond(challenge)
      return options.attack ? options.attack(challenge, honest) : honest
    },
  })
}

/** The server half alone, with certificates as they are. */
function present(certificates: Uint8Array[], server = serverOf().server) {
  return server.attest({
    payload: encodeAttestationData(certificates),
    remoteIp: '',
    challenge: () => Promise.reject(new Error('got as far as the challenge')),
  })
}

describe('an honest node', () => {
  test('gets the ID and selectors that SPIRE would give it', async () => {
    const attestation = await attest(leaf)
    expect(attestation.agentId.toString()).toBe(
      `spiffe://example.org/spire/agent/x509pop/${sha1(leaf.der)}`,
    )
    expect(attestation.canReattest).toBe(true)
    expect(attestation.selectors).toEqual(
      [
        'subject:cn:n1.nodes',
        `ca:fingerprint:${sha1(middle.der)}`,
        `ca:fingerprint:${sha1(root.der)}`,
        'serialnumber:0abc',
      ].map((value) => ({ type: 'x509pop', value })),
    )
  })

  test.each(['ec-p256', 'ec-p384', 'ec-p521', 'rsa-2048'] as const)(
    'with a %s key',
    async (type) => {
      await attest(make('node', middle, LEAF, newKey(type)))
    },
  )

  test('proves it with r and s of every length', () => {
    const random = createSeededRandom()
    const key = createPublicKey(leaf.key.privateKey)
    const lengths = new Set<number>()
    for (let i = 0; i < 2000; i++) {
      const challenge = { kind: 'ecdsa', nonce: random.bytes(32) } as const
      const response = provePossession(leaf.key.privateKey, challenge, random.bytes(32))
      checkPossession(key, challenge, response)
      if (response.kind === 'ecdsa') lengths.add(response.r.length).add(response.s.length)
    }
    // One in 256 is shorter: not one among 4000 would be a wonder.
    expect(lengths.size).toBeGreaterThan(1)
  })

  test('without a common name has no selector of it', async () => {
    const subject = encodeName({ organization: ['x'] })
    const { selectors } = await attest(make('x', middle, { ...LEAF, subject }))
    expect(selectors[0]!.value).toMatch(/^ca:fingerprint:/)
  })

  test('carries its URI names as selectors', async () => {
    const { server, log } = serverOf()
    const uriNames = [
      'x509pop://example.org/cluster/prod/eu',
      'x509pop://example.org/a%20b/c?q#f',
      'x509pop://example.org/alone',
      'x509pop://other.org/cluster/x',
    ]
    const { selectors } = await attest(make('x', middle, { ...LEAF, uriNames }), { server })
    expect(selectors.map((selector) => selector.value).filter((v) => v.startsWith('san'))).toEqual([
      'san:cluster:prod/eu',
      'san:a b:c',
    ])
    expect(log.lines).toMatchObject([{ level: 'warn', fields: { uri: uriNames[2] } }])
  })

  test('is named by the template', async () => {
    const uriNames = ['x509pop://example.org/cluster/prod']
    const node = make('n1', middle, { ...LEAF, uriNames })
    const pathOf = async (agent_path_template: string) =>
      (await attest(node, { server: serverOf({ agent_path_template }).server })).agentId.path
    expect(await pathOf('/{{ .PluginName }}/{{ .Subject.CommonName }}')).toBe(
      '/spire/agent/x509pop/n1',
    )
    expect(await pathOf('/{{ .URISanSelectors.cluster }}/{{ .SerialNumberHex }}')).toBe(
      '/spire/agent/prod/0abc',
    )
    expect(await pathOf('/{{ .TrustDomain }}/{{ .SerialNumber }}/{{ .Issuer.CommonName }}')).toBe(
      '/spire/agent/example.org/2748/middle',
    )
    await expect(pathOf('no-slash')).rejects.toMatchObject({ code: 'agent_path_failed' })
    await expect(pathOf('/{{ .URISanSelectors.other }}')).rejects.toMatchObject({
      kind: 'internal',
    })
  })

  test('whose name would leave its place in the path gets none', async () => {
    const node = make('../../server', middle, LEAF)
    const { server } = serverOf({ agent_path_template: '/{{ .Subject.CommonName }}' })
    await expect(attest(node, { server })).rejects.toMatchObject({
      kind: 'internal',
      message: expect.stringContaining('failed to make spiffe id'),
    })
  })
})

describe('payloads that are refused', () => {
  const refuses = (message: string) => ({
    kind: 'invalid_argument',
    message: expect.stringContaining(message),
  })

  test('nothing, no JSON, no certificate', async () => {
    const { server } = serverOf()
    const send = (payload: Uint8Array) =>
      server.attest({ payload, remoteIp: '', challenge: () => Promise.reject(new Error('no')) })
    await expect(send(new Uint8Array())).rejects.toMatchObject(
      refuses('missing attestation payload'),
    )
    await expect(send(new Uint8Array(3))).rejects.toMatchObject(refuses('failed to unmarshal data'))
    await expect(present([])).rejects.toMatchObject(refuses('no certificate to attest'))
  })

  test('certificates are counted before they are parsed', async () => {
    const junk = new Uint8Array(3)
    await expect(present([junk, junk, junk, junk, junk, junk])).rejects.toMatchObject(
      refuses('too many intermediate certificates'),
    )
    await expect(present([junk, junk, junk, junk, junk])).rejects.toMatchObject(
      refuses('unable to parse leaf certificate'),
    )
    await expect(present([leaf.der, middle.der, junk])).rejects.toMatchObject(
      refuses('unable to parse intermediate certificate 1'),
    )
  })

  test('keys above max_rsa_key_size, in every place', async () => {
    const { server } = serverOf({ max_rsa_key_size: 2048 })
    const large = newKey('rsa-4096')
    const largeLeaf = make('large', middle, LEAF, large)
    const largeCa = make('large ca', root, {}, large)
    await expect(present([largeLeaf.der], server)).rejects.toMatchObject({
      kind: 'invalid_argument',
      message: 'leaf certificate key size too large',
    })
    await expect(present([leaf.der, largeCa.der], server)).rejects.toMatchObject({
      message: 'intermediate certificate 0 key size too large',
    })
    await attest(largeLeaf)
  })
})

describe('certificates that are not believed', () => {
  const denied = { kind: 'permission_denied', code: 'attestation_denied' }

  test('of another PKI, incomplete, expired', async () => {
    const other = make('root', undefined)
    await expect(present([make('x', other, LEAF).der])).rejects.toMatchObject({
      ...denied,
      message: 'certificate verification failed: x509: certificate signed by unknown authority',
    })
    await expect(present([leaf.der])).rejects.toMatchObject(denied)
    const old = make('x', middle, { ...LEAF, validity: { notBefore: 0, notAfter: NOW - 1 } })
    await expect(present([old.der, middle.der])).rejects.toMatchObject(denied)
  })

  test('not meant for signatures', async () => {
    const node = make('x', middle, { ...LEAF, keyUsage: ['keyEncipherment'] })
    await expect(present([node.der, middle.der])).rejects.toMatchObject({
      kind: 'internal',
      message: 'unable to generate challenge: certificate not intended for digital signature use',
    })
  })

  test('with a key that the protocol does not know', async () => {
    const node = make('x', middle, LEAF, newKey('ed25519'))
    await expect(present([node.der, middle.der])).rejects.toMatchObject({
      kind: 'internal',
      message: 'unable to generate challenge: unsupported public key type',
    })
  })

  test('when the roots are away', async () => {
    const { server } = serverOf()
    const broken = createX509popServer({
      config: parseX509popServerConfig({ ca_bundle_path: 'given' }),
      trustDomain: TD,
      clock: new FakeClock(NOW),
      random: createSeededRandom(),
      log: createMemoryLog(),
      roots: async () => {
        throw new Error('no bundle')
      },
    })
    expect(server.type).toBe('x509pop')
    await expect(present([leaf.der], broken)).rejects.toMatchObject({
      kind: 'internal',
      message: 'failed to get trust bundle',
    })
  })
})

describe('proofs that do not hold', () => {
  const failed = (message: string) => ({
    kind: 'permission_denied',
    message: `challenge response verification failed: ${message}`,
  })

  test('of another key', async () => {
    const thief = agentOf(make('thief', middle, LEAF))
    const session = await thief.attest()
    const honest = await agentOf(leaf).attest()
    await expect(
      serverOf().server.attest({
        payload: honest.payload,
        remoteIp: '',
        challenge: (challenge) => session.respond(challenge),
      }),
    ).rejects.toMatchObject(failed('ECDSA signature verify failed'))
  })

  test('recorded from an earlier attestation (I7)', async () => {
    const { server } = serverOf()
    let recorded: Uint8Array | undefined
    const challenges = new Set<string>()
    await attest(leaf, {
      server,
      attack: (challenge, honest) => {
        challenges.add(Buffer.from(challenge).toString())
        recorded = honest
        return honest
      },
    })
    const replay: Attack = (challenge) => {
      challenges.add(Buffer.from(challenge).toString())
      return recorded!
    }
    await expect(attest(leaf, { server, attack: replay })).rejects.toMatchObject(
      failed('ECDSA signature verify failed'),
    )
    expect(challenges.size).toBe(2)
  })

  const change =
    (edit: (response: ReturnType<typeof decodeResponse>) => object): Attack =>
    (_challenge, honest) => {
      const response = decodeResponse(honest)
      return encodeResponse({ ...response, ...edit(response) } as typeof response)
    }

  test.each<[string, Attack, string]>([
    [
      'another nonce',
      change(() => ({ nonce: new Uint8Array(32) })),
      'ECDSA signature verify failed',
    ],
    ['a short nonce', change(() => ({ nonce: new Uint8Array(31) })), 'invalid response nonce'],
    ['r of zero', change(() => ({ r: new Uint8Array() })), 'ECDSA signature verify failed'],
    [
      's too long',
      change(() => ({ s: new Uint8Array(33).fill(1) })),
      'ECDSA signature verify failed',
    ],
    [
      'the other kind',
      () =>
        encodeResponse({ kind: 'rsa', nonce: new Uint8Array(32), signature: new Uint8Array(256) }),
      'expecting ECDSA response',
    ],
  ])('%s', async (_name, attack, message) => {
    await expect(attest(leaf, { attack })).rejects.toMatchObject(failed(message))
  })

  test('an RSA signature in the older padding', async () => {
    const key = newKey('rsa-2048')
    const node = make('rsa', middle, LEAF, key)
    const attack = change(() => ({ signature: new Uint8Array(256).fill(1) }))
    await expect(attest(node, { attack })).rejects.toMatchObject(
      failed('RSA signature verify failed'),
    )
  })

  test('no JSON', async () => {
    await expect(attest(leaf, { attack: () => new Uint8Array(2) })).rejects.toMatchObject({
      kind: 'invalid_argument',
      message: expect.stringContaining('unable to unmarshal challenge response'),
    })
  })
})

describe('verify_client_ip', () => {
  const { server } = serverOf({ verify_client_ip: true })

  test('an address that is unknown, or not in the certificate', async () => {
    await expect(attest(leaf, { server })).rejects.toMatchObject({
      kind: 'internal',
      message: 'client IP not available for verification',
    })
    for (const remoteIp of ['10.0.0.1', '::ffff:10.0.0.1']) {
      await expect(attest(leaf, { server, remoteIp })).rejects.toMatchObject({
        kind: 'permission_denied',
        message: 'client IP 10.0.0.1 does not match any certificate IP SAN',
      })
    }
  })
})

test('verify_client_ip takes an address of the certificate, also as IPv6 shows it', async () => {
  const key = leaf.key.privateKey.export({ format: 'pem', type: 'pkcs8' }).toString()
  const made = openssl(
    [
      ...['req', '-x509', '-new', '-key', 'key.pem', '-subj', '/CN=ip'],
      ...['-addext', 'subjectAltName=IP:10.0.0.1'],
      ...['-addext', 'keyUsage=digitalSignature,keyCertSign'],
    ],
    { 'key.pem': key },
  )
  const [der] = parsePemOf(made, 'CERTIFICATE')
  const node = { ...leaf, der: der! }
  const { server } = serverAt(parseCertificate(der!).notBefore, { verify_client_ip: true }, [der!])
  for (const remoteIp of ['10.0.0.1', '::ffff:10.0.0.1']) {
    await attest(node, { server, intermediates: [], remoteIp })
  }
})

describe('mode spiffe', () => {
  const { server } = serverOf({ mode: 'spiffe' })
  const svid = (uri: string) => make('x', middle, { ...LEAF, uriNames: [uri] })

  test('exchanges an SVID under the prefix', async () => {
    const node = svid('spiffe://example.org/spire-exchange/rack/7')
    const { agentId } = await attest(node, { server })
    expect(agentId.path).toBe('/spire/agent/x509pop/rack/7')
  })

  test.each([
    ['another prefix', 'spiffe://example.org/other/7'],
    ['another trust domain', 'spiffe://other.org/spire-exchange/7'],
    ['a path that is not canonical', 'spiffe://example.org/spire-exchange/../7'],
    ['nothing after the prefix', 'spiffe://example.org/spire-exchange'],
  ])('%s is refused', async (_name, uri) => {
    await expect(attest(svid(uri), { server })).rejects.toMatchObject({
      kind: 'permission_denied',
      message: 'x509 cert doesnt match SVID prefix',
    })
  })

  test('a certificate that is no SVID is refused', async () => {
    await expect(attest(leaf, { server })).rejects.toMatchObject({
      message: 'valid SVID x509 cert not found',
    })
  })
})

describe('the agent half', () => {
  test('signs what SPIRE’s server checks: both nonces, hashed once', async () => {
    const session = await agentOf(leaf).attest()
    const nonce = Buffer.alloc(32, 9)
    const challenge = { rsa_signature: null, ecdsa_signature: { nonce: nonce.toString('base64') } }
    const raw = await session.respond(new TextEncoder().encode(JSON.stringify(challenge)))
    const { ecdsa_signature } = JSON.parse(Buffer.from(raw).toString())
    const part = (name: string) => Buffer.from(ecdsa_signature[name], 'base64')
    const width = (bytes: Buffer) => Buffer.concat([Buffer.alloc(32 - bytes.length), bytes])
    const key = createPublicKey(leaf.key.privateKey)
    const signature = Buffer.concat([width(part('r')), width(part('s'))])
    const message = Buffer.concat([nonce, part('nonce')])
    expect(verify('sha256', message, { key, dsaEncoding: 'ieee-p1363' }, signature)).toBe(true)
  })

  test('refuses a challenge of the other kind', async () => {
    const session = await agentOf(leaf).attest()
    const challenge = { rsa_signature: { nonce: Buffer.alloc(32).toString('base64') } }
    expect(decodeChallenge(Buffer.from(JSON.stringify(challenge))).kind).toBe('rsa')
    await expect(session.respond(Buffer.from(JSON.stringify(challenge)))).rejects.toMatchObject({
      message: 'expecting ECDSA challenge',
    })
  })

  test('reads its files again at each attestation', async () => {
    const agent = agentOf(leaf)
    const renewed = make('renewed', middle, LEAF)
    agentOf(renewed)
    const { payload } = await agent.attest()
    expect(Buffer.from(payload).toString()).toContain(Buffer.from(renewed.der).toString('base64'))
  })

  test('takes its identity from a Workload API, anew at each attestation', async () => {
    const config = parseX509popAgentConfig({ spiffe_endpoint_socket: 'unix:///run/a.sock' })
    const nodes = [leaf, make('renewed', middle, LEAF)]
    const asked: string[] = []
    const agent = createX509popAgent({
      config,
      random: createSeededRandom('agent'),
      fetchSvid: async (address) => {
        const node = nodes[asked.push(address) - 1]
        if (node === undefined) throw new SignetError('unavailable', 'x', 'no identity issued')
        const privateKey = node.key.privateKey.export({ format: 'der', type: 'pkcs8' })
        return { certificates: [node.der, middle.der], privateKey }
      },
    })
    for (const _ of nodes) {
      const session = await agent.attest()
      const attestation = await serverOf().server.attest({
        payload: session.payload,
        remoteIp: '',
        challenge: (challenge) => session.respond(challenge),
      })
      expect(attestation.canReattest).toBe(true)
    }
    await expect(agent.attest()).rejects.toMatchObject({ message: 'no identity issued' })
    expect(asked).toEqual(Array(3).fill('unix:///run/a.sock'))
  })

  test.each([
    ['a missing file', () => ({ privateKeyPath: join(directory, 'none') })],
    ['a key that does not match', () => ({ privateKeyPath: file('other.pem', otherKey()) })],
    ['a file without certificates', () => ({ certificatePath: file('empty.pem', 'nothing') })],
    ['broken intermediates', () => ({ intermediatesPath: file('bad.pem', 'nothing') })],
  ])('refuses %s at start', (_name, change) => {
    agentOf(leaf)
    const config = {
      endpointSocket: '',
      privateKeyPath: join(directory, 'key.pem'),
      certificatePath: join(directory, 'cert.pem'),
      intermediatesPath: '',
      ...change(),
    }
    expect(() => createX509popAgent({ ...noApi, config, random: createSeededRandom() })).toThrow(
      expect.objectContaining({ kind: 'invalid_argument', code: 'bad_keypair' }),
    )
  })

  test('a broken key file is not quoted', () => {
    const config = {
      endpointSocket: '',
      privateKeyPath: file('broken.pem', '-----BEGIN PRIVATE KEY-----\nCANARY\n'),
      certificatePath: file('cert.pem', pem(leaf.der)),
      intermediatesPath: '',
    }
    try {
      createX509popAgent({ ...noApi, config, random: createSeededRandom() })
      expect.unreachable()
    } catch (thrown) {
      expect((thrown as Error).message).toBe('unable to load keypair')
    }
  })
})

test('trust files are read whole, and a bad one is named', () => {
  const path = file('bundle.pem', pem(root.der, middle.der))
  expect(loadTrustFiles([path, path])).toHaveLength(4)
  expect(() => loadTrustFiles([join(directory, 'none.pem')])).toThrow(
    expect.objectContaining({
      code: 'bad_plugin_data',
      message: expect.stringContaining('none.pem'),
    }),
  )
})

function otherKey(): string {
  const pair = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  return pair.privateKey.export({ format: 'pem', type: 'pkcs8' }).toString()
}
