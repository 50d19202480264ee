import { createPublicKey } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer, type Server } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { loadBootstrapBundle } from '../../../src/agent/node/bootstrap-bundle.ts'
import { AgentIdentity } from '../../../src/agent/node/identity.ts'
import { type KeyStore, memoryKeyStore } from '../../../src/agent/node/key-store.ts'
import { type AgentStorage, openAgentStorage } from '../../../src/agent/node/storage.ts'
import { debugImplementation } from '../../../src/agent/workload-api/debug.ts'
import { BOOTSTRAP_BUNDLE_BYTES_MAX } from '../../../src/base/limits.ts'
import { TrustDomain } from '../../../src/spiffe/trust-domain.ts'
import type { GetInfoResponse } from '../../../src/wire/gen/spire/api/agent/debug/v1/debug.ts'
import { parseCertificateRequest, requestedNames } from '../../../src/x509/csr.ts'
import { formatPem } from '../../../src/x509/pem.ts'
import { FakeClock } from '../../fakes/fake-clock.ts'
import { createMemoryLog, createMemoryMetrics } from '../../fakes/memory-log.ts'
import { createSeededRandom } from '../../fakes/seeded-random.ts'
import { makeAuthority, makeLeaf } from '../../rigs/certificates.ts'
import { selfSignedCertificate } from '../../rigs/test-certificates.ts'

const TD = TrustDomain.parse('example.org')
const NOW = 1_800_000_000

let dir: string
let http: Server | undefined
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'boot-'))
})
afterEach(async () => {
  http?.close()
  http = undefined
  await rm(dir, { recursive: true, force: true })
})

async function rootKeys() {
  const key = await memoryKeyStore().generate(undefined)
  return { key, der: selfSignedCertificate(key.privateKey) }
}

const never = async (): Promise<readonly Uint8Array[]> => {
  throw new Error('not asked for')
}

async function fileWith(text: string): Promise<string> {
  const path = join(dir, 'bundle')
  await writeFile(path, text)
  return path
}

async function serveHttp(status: number, body: string | Buffer): Promise<string> {
  const path = join(dir, 'http.sock')
  http = createServer((_request, response) => response.writeHead(status).end(body))
  await new Promise<void>((resolve) => http!.listen(path, () => resolve()))
  return path
}

describe('the bootstrap bundle', () => {
  test('comes from PEM, every certificate of it', async () => {
    const roots = [(await rootKeys()).der, (await rootKeys()).der]
    const path = await fileWith(roots.map((der) => formatPem('CERTIFICATE', der)).join('\n'))
    const loaded = await loadBootstrapBundle({ kind: 'path', path, format: 'pem' }, TD, never)
    expect(loaded).toEqual(roots)
  })

  test('comes from a SPIFFE bundle document', async () => {
    const { der, key } = await rootKeys()
    const jwk = createPublicKey(key.privateKey).export({ format: 'jwk' })
    const x5c = [Buffer.from(der).toString('base64')]
    const path = await fileWith(JSON.stringify({ keys: [{ ...jwk, use: 'x509-svid', x5c }] }))
    const loaded = await loadBootstrapBundle({ kind: 'path', path, format: 'spiffe' }, TD, never)
    expect(loaded!.map((one) => Buffer.from(one))).toEqual([Buffer.from(der)])
  })

  test('comes through a Unix socket', async () => {
    const { der } = await rootKeys()
    const unixSocket = await serveHttp(200, formatPem('CERTIFICATE', der))
    const config = { kind: 'url', url: 'http://x/bundle', unixSocket, format: 'pem' } as const
    expect(await loadBootstrapBundle(config, TD, never)).toEqual([der])
  })

  test('comes from another Workload API, or is done without', async () => {
    const { der } = await rootKeys()
    const asked: string[] = []
    const config = { kind: 'workload_api', address: 'unix:///x' } as const
    const loaded = await loadBootstrapBundle(config, TD, async (address) => {
      asked.push(address)
      return [der]
    })
    expect(loaded).toEqual([der])
    expect(asked).toEqual(['unix:///x'])
    expect(await loadBootstrapBundle({ kind: 'insecure' }, TD, never)).toBeUndefined()
  })

  test.each([
    ['empty', 'pem', '', ': no PEM blocks'],
    ['not PEM', 'pem', '-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n', ': '],
    ['PEM of something else', 'pem', formatPem('CERTIFICATE', new Uint8Array([0x30, 0x00])), ': '],
    ['not JSON', 'spiffe', '{', 'could not parse trust bundle '],
    ['without keys', 'spiffe', '{"keys":[]}', 'no certificates found in trust bundle '],
  ] as const)('that is %s is refused and named', async (_what, format, text, words) => {
    const path = await fileWith(text)
    const error = await loadBootstrapBundle({ kind: 'path', path, format }, TD, never).catch(
      (thrown: unknown) => thrown,
    )
    expect(error).toMatchObject({ code: 'bootstrap_bundle_unusable' })
    expect((error as Error).message).toContain(words)
    expect((error as Error).message).toContain(path)
  })

  test.each([
    ['an error', 500, ''],
    ['too much', 200, Buffer.alloc(BOOTSTRAP_BUNDLE_BYTES_MAX + 1, 'x')],
  ])('a server that answers with %s is refused', async (_what, status, body) => {
    const unixSocket = await serveHttp(status, body)
    const config = { kind: 'url', url: 'http://x/', unixSocket, format: 'pem' } as const
    await expect(loadBootstrapBundle(config, TD, never)).rejects.toMatchObject({
      code: 'bootstrap_bundle_unusable',
    })
  })

  test('that is not there is refused', async () => {
    const path = join(dir, 'none')
    await expect(
      loadBootstrapBundle({ kind: 'path', path, format: 'pem' }, TD, never),
    ).rejects.toMatchObject({
      code: 'bootstrap_bundle_unusable',
      message: `could not parse trust bundle: open ${path}: no such file or directory`,
    })
    const url = 'https://127.0.0.1:1/b'
    const config = { kind: 'url', url, unixSocket: '', format: 'pem' } as const
    await expect(loadBootstrapBundle(config, TD, never)).rejects.toMatchObject({
      code: 'bootstrap_bundle_unusable',
      message: `unable to fetch trust bundle URL ${url}: dial tcp 127.0.0.1:1: connect: connection refused`,
    })
  })
})

describe('the identity kept on disk', () => {
  async function identityWith(prepare: (storage: AgentStorage, keys: KeyStore) => Promise<void>) {
    const storage = await openAgentStorage(dir)
    const keyStore = memoryKeyStore()
    await prepare(storage, keyStore)
    const log = createMemoryLog()
    const clock = new FakeClock(NOW)
    const attempts = { count: 0 }
    const identity = new AgentIdentity({
      host: 'x',
      port: 1,
      trustDomain: TD,
      storage,
      keyStore,
      attestor: {
        type: 'test',
        async attest() {
          attempts.count++
          throw new Error('no attestation here')
        },
      },
      policy: { availabilityTargetSeconds: 0 },
      clock,
      random: createSeededRandom(),
      log,
      metrics: createMemoryMetrics(),
    })
    return { identity, storage, log, clock, attempts }
  }

  const withSvid =
    (notAfter: number, reattestable = true) =>
    async (storage: AgentStorage, keys: KeyStore) => {
      const key = await keys.generate(undefined)
      const uri = 'spiffe://example.org/spire/agent/x'
      const times = { notBefore: NOW - 1000, notAfter }
      const leaf = selfSignedCertificate(key.privateKey, { uri, isCa: false, ...times })
      await storage.update({ svid: [leaf], reattestable })
    }

  test('is taken up when its key is there', async () => {
    const { identity, clock } = await identityWith(withSvid(NOW + 1000))
    expect(identity.load()).toMatchObject({
      spiffeId: 'spiffe://example.org/spire/agent/x',
      reattestable: true,
    })
    expect(identity.isRenewalDue()).toBe(false)
    clock.advanceSeconds(200)
    expect(identity.isRenewalDue()).toBe(true)
    expect(identity.isExpired()).toBe(false)
  })

  test.each([
    [NOW + 2, true],
    [NOW + 1, false],
    [NOW - 1, false],
  ])('that ends at %d: taken up %s', async (notAfter, taken) => {
    const { identity, log } = await identityWith(withSvid(notAfter))
    expect(identity.load() !== undefined).toBe(taken)
    expect(identity.isAttested).toBe(taken)
    if (!taken) {
      expect(log.lines[0]!.message).toBe(
        'SVID key recovered, but SVID is expired. Generating new keypair',
      )
    }
  })

  test('without its key, or a key without it, attests anew', async () => {
    const noKeys = await identityWith(async (storage) => {
      await storage.update({ svid: [(await rootKeys()).der] })
    })
    expect(noKeys.identity.load()).toBeUndefined()
    expect(noKeys.log.lines[0]!.message).toContain('no keys found')
    const otherKey = await identityWith(async (storage, keys) => {
      await keys.generate(undefined)
      await storage.update({ svid: [(await rootKeys()).der] })
    })
    expect(otherKey.identity.load()).toBeUndefined()
    expect(otherKey.log.lines[0]!.message).toContain('no SVID key found')
    expect(() => otherKey.identity.svid).toThrow(
      expect.objectContaining({ code: 'agent_not_attested' }),
    )
  })

  test.each([
    [true, 'attests anew'],
    [false, 'asks RenewAgent with a new key'],
  ])('and reattestable %s: renewal %s', async (reattestable) => {
    const { identity, storage, attempts } = await identityWith(withSvid(NOW + 1000, reattestable))
    const { key } = identity.load()!
    const next = selfSignedCertificate(key.privateKey, { isCa: false })
    const asked: Uint8Array[] = []
    const renewal = identity.renew(async (csr) => {
      asked.push(csr)
      return [next]
    }, [])
    if (reattestable) {
      await expect(renewal).rejects.toThrow('no attestation here')
      expect([attempts.count, asked.length]).toEqual([1, 0])
      expect(identity.svid.key).toBe(key)
      return
    }
    await renewal
    expect([attempts.count, asked.length]).toEqual([0, 1])
    expect(storage.data.svid).toEqual([next])
    expect(identity.svid.key.publicKey).not.toEqual(key.publicKey)
    expect(requestedNames(parseCertificateRequest(asked[0]!)).uriNames).toEqual([])
  })

  test('is forgotten for good, and rotated when tainted', async () => {
    const { identity, storage } = await identityWith(withSvid(NOW + 1000))
    identity.load()
    identity.markTainted()
    expect(identity.isRenewalDue()).toBe(true)
    await identity.forget()
    expect(storage.data).toMatchObject({ svid: [], reattestable: false })
    expect((await openAgentStorage(dir)).data.svid).toEqual([])
  })
})

describe('Debug', () => {
  test('shows the verified chain with its root, and keeps the answer for five seconds', async () => {
    const root = await makeAuthority('root', TD.id)
    const { chain } = await makeLeaf(root, { uris: ['spiffe://example.org/spire/agent/x'] })
    const clock = new FakeClock(Math.floor(Date.now() / 1000))
    let facts = 0
    const debug = debugImplementation({ clock, metrics: createMemoryMetrics() }, () => {
      facts++
      const roots = facts < 3 ? [root.der] : []
      return {
        chain,
        roots,
        uptimeSeconds: 7.9,
        x509SvidCount: 2,
        jwtSvidCount: 1,
        lastSyncSuccess: 5,
      }
    })
    const ask = () =>
      new Promise<{ error: unknown; answer: GetInfoResponse | null | undefined }>((resolve) => {
        debug.getInfo(undefined as never, (error, answer) => resolve({ error, answer }))
      })
    const { answer } = await ask()
    expect(answer!.svidChain.map(({ id }) => id)).toEqual([
      { trustDomain: 'example.org', path: '/spire/agent/x' },
      { trustDomain: 'example.org', path: '' },
    ])
    expect(answer).toMatchObject({
      uptime: 7,
      svidsCount: 2,
      cachedX509SvidsCount: 2,
      cachedJwtSvidsCount: 1,
      lastSyncSuccess: 5n,
    })
    clock.advanceMs(4_999)
    await ask()
    expect(facts).toBe(1)
    clock.advanceMs(1)
    await ask()
    expect(facts).toBe(2)
    clock.advanceMs(5_000)
    expect((await ask()).error).toMatchObject({
      details: expect.stringContaining('failed to verify agent SVID'),
    })
  })
})
