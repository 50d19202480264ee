import { generateKeyPairSync } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import { SignetError } from '../../../../src/base/error.ts'
import { CSR_BATCH_SIZE_MAX } from '../../../../src/base/limits.ts'
import { batchNewX509Svid, newJwtSvid } from '../../../../src/server/rpc/svid/v1/issue.ts'
import { mintJwtSvid, mintX509Svid } from '../../../../src/server/rpc/svid/v1/mint.ts'
import { createCertificateRequest } from '../../../../src/x509/csr.ts'
import { encodeName } from '../../../../src/x509/name.ts'
import {
  ADMIN,
  AGENT,
  AGENT_CALLER,
  contextOf,
  entryOf,
  issuanceStub,
  NOW,
  portsWith,
} from './rig.ts'

const CSR = Uint8Array.of(1, 2)
const away = new SignetError('unavailable', 'ledger', 'ledger is unavailable', {
  retryAfterSeconds: 2,
})
const WEB = entryOf('web', { dnsNames: ['b.org', 'a.org'], jwtSvidIncludeJti: true })
const entries = {
  authorizedEntry: (agentId: unknown, entryId: string) =>
    agentId === AGENT.id && entryId === 'web' ? WEB : undefined,
}

describe('BatchNewX509SVID', () => {
  const run = async (
    params: readonly { entryId: string; csr: Uint8Array }[],
    issuance: Parameters<typeof portsWith>[0]['issuance'] = issuanceStub(),
  ) => {
    const context = contextOf(AGENT_CALLER)
    const request = { message: Uint8Array.of(0), params }
    const outcomes = await batchNewX509Svid(portsWith({ entries, issuance }), request, context)
    return { outcomes, context }
  }

  test('the entry decides everything but the key', async () => {
    const issuance = issuanceStub()
    const { outcomes, context } = await run([{ entryId: 'web', csr: CSR }], issuance)
    expect(outcomes[0]).toMatchObject({ ok: true, value: { spiffeId: WEB.spiffeId } })
    expect(issuance.orders).toEqual([
      {
        profile: 'workload',
        clusterId: AGENT.clusterId,
        spiffeId: WEB.spiffeId,
        entryId: 'web',
        ttlSeconds: 60,
        dnsNames: ['b.org', 'a.org'],
        csr: CSR,
        proof: true,
      },
    ])
    expect(issuance.requests).toEqual([Uint8Array.of(0)])
    expect(context.records[0]?.fields).toMatchObject({
      entry_id: 'web',
      spiffe_id: WEB.spiffeId.toString(),
      expires_at: NOW + 60,
      csr: expect.stringMatching(/^[0-9a-f]{64}$/),
    })
  })

  test('what is refused stays in its place, duplicates are served', async () => {
    const { outcomes, context } = await run([
      { entryId: '', csr: CSR },
      { entryId: 'web', csr: CSR },
      { entryId: 'web', csr: new Uint8Array() },
      { entryId: 'other', csr: CSR },
      { entryId: 'web', csr: CSR },
    ])
    expect(outcomes.map((outcome) => (outcome.ok ? 'ok' : outcome.error.message))).toEqual([
      'missing entry ID',
      'ok',
      'missing CSR',
      'entry not found or not authorized',
      'ok',
    ])
    expect(outcomes.map((outcome) => (outcome.ok ? 'ok' : outcome.error.kind))).toEqual([
      'invalid_argument',
      'ok',
      'invalid_argument',
      'not_found',
      'ok',
    ])
    expect(context.records).toHaveLength(5)
  })

  test.each([
    ['invalid_argument', 'malformed CSR: why', 'malformed CSR: why'],
    ['invalid_argument', 'invalid CSR signature', 'invalid CSR signature'],
    ['unavailable', 'ledger is away', 'failed to sign X509-SVID: ledger is away'],
    ['internal', 'failed', 'failed to sign X509-SVID: failed'],
  ] as const)('an item that fails as %s: %s', async (kind, text, message) => {
    const error = new SignetError(kind, 'code', text)
    const issuance = { issueX509Svids: async () => [{ ok: false as const, error }] }
    const { outcomes } = await run([{ entryId: 'web', csr: CSR }], issuance)
    expect(outcomes[0]).toMatchObject({ ok: false, error: { kind, message } })
  })

  test('nothing, and too much, are refused as a whole', async () => {
    await expect(run([])).rejects.toMatchObject({
      kind: 'invalid_argument',
      message: 'missing parameters',
    })
    const many = (count: number) => new Array(count).fill({ entryId: 'web', csr: CSR })
    expect((await run(many(CSR_BATCH_SIZE_MAX))).outcomes).toHaveLength(CSR_BATCH_SIZE_MAX)
    await expect(run(many(CSR_BATCH_SIZE_MAX + 1))).rejects.toMatchObject({
      kind: 'resource_exhausted',
      message: 'rate (501) exceeds burst size (500)',
    })
  })
})

describe('NewJWTSVID', () => {
  const run = (entryId: string, audience: string[], change: Parameters<typeof portsWith>[0] = {}) =>
    newJwtSvid(
      portsWith({ entries, issuance: issuanceStub(), ...change }),
      { entryId, audience },
      contextOf(AGENT_CALLER),
    )

  test('claims and lifetime come from the entry', async () => {
    expect(await run('web', ['a', 'b'])).toEqual({
      spiffeId: WEB.spiffeId,
      token: 'jwt.a+b.true',
      issuedAt: NOW,
      expiresAt: NOW + 30,
    })
  })

  test.each<[string, string, string[], Parameters<typeof portsWith>[0], object]>([
    [
      'disabled, before the entry is looked up',
      'other',
      [],
      { jwtSvidsDisabled: true as never },
      { kind: 'unimplemented', message: 'JWT functionality is disabled' },
    ],
    [
      'a foreign entry, before the audience is looked at',
      'other',
      [],
      {},
      { kind: 'not_found', message: 'entry not found or not authorized' },
    ],
    [
      'no audience',
      'web',
      [],
      {},
      { kind: 'invalid_argument', message: 'at least one audience is required' },
    ],
    [
      'a ledger that is away',
      'web',
      ['a'],
      { issuance: { issueJwtSvid: () => Promise.reject(away) } },
      {
        kind: 'unavailable',
        message: 'failed to sign JWT-SVID: ledger is unavailable',
        retryAfterSeconds: 2,
      },
    ],
  ])('%s', async (_name, entryId, audience, change, expected) => {
    await expect(run(entryId, audience, change)).rejects.toMatchObject(expected)
  })
})

describe('MintX509SVID', () => {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const spki = new Uint8Array(publicKey.export({ format: 'der', type: 'spki' }))
  const csrFor = (uriNames: string[], dnsNames: string[] = [], subject = encodeName({})) =>
    createCertificateRequest({ privateKey, publicKey: spki, subject, uriNames, dnsNames })
  const WEB_URI = 'spiffe://example.org/web'

  const run = async (csr: Uint8Array, issuance: object = issuanceStub()) => {
    const context = contextOf(ADMIN)
    const response = await mintX509Svid(portsWith({ issuance }), { csr, ttl: 77 }, context)
    return { response, context }
  }

  test('names come from the CSR', async () => {
    const issuance = issuanceStub()
    const subject = encodeName({ country: ['US'] })
    const csr = csrFor([WEB_URI], ['a.org', '*.b.org'], subject)
    const { response } = await run(csr, issuance)
    expect(response.svid).toMatchObject({
      id: { trustDomain: 'example.org', path: '/web' },
      expiresAt: BigInt(NOW + 60),
    })
    expect(issuance.orders[0]).toMatchObject({
      profile: 'workload',
      clusterId: 2,
      entryId: '',
      ttlSeconds: 77,
      dnsNames: ['a.org', '*.b.org'],
      proof: true,
    })
    expect(`${issuance.orders[0]?.spiffeId}`).toBe(WEB_URI)
  })

  test('an empty subject asks for the default one', async () => {
    const issuance = issuanceStub()
    await run(csrFor([WEB_URI]), issuance)
    expect(issuance.orders[0]).not.toHaveProperty('subject')
  })

  test.each<[string, Uint8Array, string | RegExp]>([
    ['nothing', new Uint8Array(), 'missing CSR'],
    ['garbage', Uint8Array.of(1, 2, 3), /^malformed CSR: malformed DER/],
    ['no URI', csrFor([]), 'CSR URI SAN is required'],
    ['two URIs', csrFor([WEB_URI, `${WEB_URI}2`]), 'only one URI SAN is expected'],
    ['another scheme', csrFor(['https://example.org/x']), /^CSR URI SAN is invalid: scheme/],
    [
      'another trust domain',
      csrFor(['spiffe://b.org/x']),
      'CSR URI SAN is invalid: "spiffe://b.org/x" is not a member of trust domain "example.org"',
    ],
    [
      'a reserved path',
      csrFor(['spiffe://example.org/spire/server']),
      /^CSR URI SAN is invalid: .*reserved namespace$/,
    ],
    [
      'a bad DNS name',
      csrFor([WEB_URI], ['a..b']),
      'CSR DNS name is invalid: idna error\nidna: invalid label "a..b"',
    ],
    [
      'a covered DNS name',
      csrFor([WEB_URI], ['*.b.org', 'a.b.org']),
      /^CSR DNS name contains a wildcard that covers another non-wildcard name: /,
    ],
  ])('refused: %s', async (_name, csr, message) => {
    await expect(run(csr)).rejects.toThrow(message)
    await expect(run(csr)).rejects.toMatchObject({ kind: 'invalid_argument' })
  })

  test.each([
    ['bad_csr_signature', 'invalid_argument', 'failed to verify CSR signature'],
    ['signing_failed', 'internal', 'failed to sign X509-SVID: why'],
    ['ledger', 'unavailable', 'failed to sign X509-SVID: why'],
  ] as const)('issuance that fails with %s', async (code, kind, message) => {
    const error = new SignetError(kind, code, 'why')
    const issuance = { issueX509Svids: async () => [{ ok: false, error }] }
    await expect(run(csrFor([WEB_URI]), issuance)).rejects.toMatchObject({ kind, message })
  })
})

describe('MintJWTSVID', () => {
  const id = { trustDomain: 'example.org', path: '/web' }
  const run = (request: object, change: Parameters<typeof portsWith>[0] = {}) =>
    mintJwtSvid(
      portsWith({ issuance: issuanceStub(), ...change }),
      { id, audience: ['a'], ttl: 5, ...request },
      contextOf(ADMIN),
    )

  test('without a jti', async () => {
    expect((await run({})).svid).toEqual({
      token: 'jwt.a.false',
      id,
      issuedAt: BigInt(NOW),
      expiresAt: BigInt(NOW + 5),
      hint: '',
    })
  })

  test.each<[object, Parameters<typeof portsWith>[0], string | RegExp]>([
    [{ id: undefined }, {}, 'invalid SPIFFE ID: request must specify SPIFFE ID'],
    [{ id: { ...id, path: '' } }, {}, /^invalid SPIFFE ID: .*path is empty$/],
    [{ audience: [] }, {}, 'at least one audience is required'],
    [{}, { jwtSvidsDisabled: true as never }, 'JWT functionality is disabled'],
    [
      {},
      { issuance: { issueJwtSvid: () => Promise.reject(away) } },
      'failed to sign JWT-SVID: ledger is unavailable',
    ],
  ])('refused: %#', async (request, change, message) => {
    await expect(run(request, change)).rejects.toThrow(message)
  })
})
