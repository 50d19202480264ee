import { createPrivateKey, generateKeyPairSync } from 'node:crypto'
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { encodeRequest, generateKeys } from '../../../src/agent/key-pair.ts'
import { memoryKeyStore, openDiskKeyStore } from '../../../src/agent/node/key-store.ts'
import { openAgentStorage } from '../../../src/agent/node/storage.ts'
import { parseCertificateRequest, requestedNames, requestedSubject } from '../../../src/x509/csr.ts'
import { formatName } from '../../../src/x509/name.ts'
import { formatPem } from '../../../src/x509/pem.ts'
import { selfSignedCertificate } from '../../rigs/test-certificates.ts'

let dir: string
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'agent-'))
})
afterEach(() => rm(dir, { recursive: true, force: true }))

const newCertificate = (commonName: string) =>
  selfSignedCertificate(generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey, {
    commonName,
  })

describe('agent-data.json', () => {
  test('is written as SPIRE writes it and read back', async () => {
    const storage = await openAgentStorage(dir)
    expect(storage.data).toEqual({
      svid: [],
      bundle: [],
      reattestable: false,
      bootstrap: { use: 0, attempts: 0 },
    })
    const [leaf, root] = [newCertificate('leaf'), newCertificate('root')]
    await storage.update({ svid: [leaf], reattestable: true })
    await storage.update({ bundle: [root] })
    const path = join(dir, 'agent-data.json')
    expect((await stat(path)).mode & 0o777).toBe(0o600)
    const stored = JSON.parse(await readFile(path, 'utf8'))
    expect(stored).toEqual({
      svid: [Buffer.from(formatPem('CERTIFICATE', leaf)).toString('base64')],
      bundle: [Buffer.from(formatPem('CERTIFICATE', root)).toString('base64')],
      reattestable: true,
      bootstrap_use: 0,
      bootstrap_start_time: '0001-01-01T00:00:00Z',
      connection_attempts: 0,
    })
    const { data } = await openAgentStorage(dir)
    expect(data.svid.map((der) => Buffer.from(der))).toEqual([Buffer.from(leaf)])
    expect(data.reattestable).toBe(true)
  })

  test('keeps the bootstrap state of a SPIRE agent', async () => {
    const path = join(dir, 'agent-data.json')
    await writeFile(
      path,
      JSON.stringify({
        svid: null,
        bundle: [],
        bootstrap_use: 2,
        // As Go writes it, with its zone and nanoseconds.
        bootstrap_start_time: '2027-01-15T09:00:00.123456789+01:00',
        connection_attempts: 4,
      }),
    )
    const storage = await openAgentStorage(dir)
    expect(storage.data.bootstrap).toEqual({ use: 2, startSeconds: 1_800_000_000, attempts: 4 })
    await storage.update({ reattestable: true })
    expect(JSON.parse(await readFile(path, 'utf8'))).toMatchObject({
      bootstrap_use: 2,
      bootstrap_start_time: '2027-01-15T08:00:00.000Z',
      connection_attempts: 4,
    })
  })

  test('writes one after the other: the last update is on disk', async () => {
    const storage = await openAgentStorage(dir)
    await Promise.all([true, false, true].map((reattestable) => storage.update({ reattestable })))
    expect((await openAgentStorage(dir)).data.reattestable).toBe(true)
  })

  test.each([
    ['no JSON', '{'],
    ['another shape', '{"svid":"x"}'],
    ['no certificate', '{"svid":["eA=="]}'],
  ])('refuses %s', async (_what, text) => {
    await writeFile(join(dir, 'agent-data.json'), text)
    await expect(openAgentStorage(dir)).rejects.toMatchObject({ code: 'agent_data_unreadable' })
  })
})

describe('the key store', () => {
  test('alternates between SPIRE’s two slots and is read back', async () => {
    const store = await openDiskKeyStore(dir)
    const first = await store.generate(undefined)
    const second = await store.generate(first)
    const third = await store.generate(second)
    expect([first.id, second.id, third.id]).toEqual([
      'agent-svid-A',
      'agent-svid-B',
      'agent-svid-A',
    ])
    const path = join(dir, 'keys.json')
    expect((await stat(path)).mode & 0o777).toBe(0o600)
    const { keys } = JSON.parse(await readFile(path, 'utf8'))
    const pkcs8 = Buffer.from(keys['agent-svid-B'], 'base64')
    expect(createPrivateKey({ key: pkcs8, format: 'der', type: 'pkcs8' }).asymmetricKeyType).toBe(
      'ec',
    )
    const again = await openDiskKeyStore(dir)
    expect(again.find(third.publicKey)!.id).toBe('agent-svid-A')
    expect(again.find(first.publicKey)).toBeUndefined()
  })

  test('makes its directory, for itself alone', async () => {
    const directory = join(dir, 'keys', 'of-agent')
    await (await openDiskKeyStore(directory)).generate(undefined)
    expect((await stat(directory)).mode & 0o777).toBe(0o700)
    expect((await openDiskKeyStore(directory)).keys).toHaveLength(1)
  })

  test('in memory leaves nothing behind', async () => {
    const store = memoryKeyStore()
    const key = await store.generate(undefined)
    expect(store.find(key.publicKey)).toBe(key)
  })

  test('a broken file is refused without its content', async () => {
    await writeFile(join(dir, 'keys.json'), '{"keys":{"agent-svid-A":"c2VjcmV0"}}')
    const error = await openDiskKeyStore(dir).catch((thrown: unknown) => thrown)
    expect(error).toMatchObject({ code: 'keys_unreadable' })
    expect(error).not.toHaveProperty('cause')
  })
})

describe('certificate requests', () => {
  test.each(['ec-p256', 'ec-p384', 'rsa-2048'] as const)(
    'of %s name the workload alone',
    async (type) => {
      const keys = await generateKeys(type)
      const request = parseCertificateRequest(encodeRequest(keys, 'spiffe://example.org/w'))
      expect(requestedNames(request)).toEqual({
        uriNames: ['spiffe://example.org/w'],
        dnsNames: [],
      })
      expect(formatName(requestedSubject(request))).toBe('O=SPIRE,C=US')
    },
  )

  test('of an agent name nobody', async () => {
    const keys = await generateKeys('ec-p256')
    const request = parseCertificateRequest(encodeRequest(keys))
    expect(formatName(requestedSubject(request))).toBe('O=SPIRE,C=US')
    expect(requestedNames(request)).toEqual({
      uriNames: [],
      dnsNames: [],
    })
  })
})
