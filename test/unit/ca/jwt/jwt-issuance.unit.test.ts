import { createPublicKey, hash, type KeyObject } from 'node:crypto'
import { decodeProtectedHeader, jwtVerify } from 'jose'
import { beforeEach, describe, expect, test } from 'vitest'
import { SignetError } from '../../../../src/base/error.ts'
import { AUDIENCE_BYTES_MAX, AUDIENCES_MAX } from '../../../../src/base/limits.ts'
import type { Authority } from '../../../../src/ca/authority/authority.ts'
import type { JwtSvidOrder } from '../../../../src/ca/issuance.ts'
import type { JwtIssuer } from '../../../../src/ca/issuer-source.ts'
import { createJwtIssuance } from '../../../../src/ca/jwt/jwt-issuance.ts'
import { createMemoryCustody } from '../../../../src/ca/signer/custody.ts'
import { createSigner } from '../../../../src/ca/signer/custody-signer.ts'
import { gathering } from '../../../../src/ca/signer/gather.ts'
import type { SigningKeyType } from '../../../../src/ca/signer/port.ts'
import { SpiffeId } from '../../../../src/spiffe/spiffe-id.ts'
import { FakeClock } from '../../../fakes/fake-clock.ts'
import { createMemoryLedger, type MemoryLedger } from '../../../fakes/memory-ledger.ts'
import { createMemoryMetrics, type MemoryMetrics } from '../../../fakes/memory-log.ts'
import { createSeededRandom } from '../../../fakes/seeded-random.ts'
import { createSimpleEngine, type SimpleEngine } from '../../../fakes/simple-engine.ts'

const NOW = 1_800_000_000
const KEY_NOT_AFTER = NOW + 3600
const KID = 'abcdefghijklmnopqrstuvwxyz012345'
const CALLER = { callerId: 'spiffe://example.org/spire/agent/a', requestId: 'request-1' }
const ALGS = { 'ec-p256': 'ES256', 'ec-p384': 'ES384', 'rsa-2048': 'RS256' } as const

let engine: SimpleEngine
let ledger: MemoryLedger
let clock: FakeClock
let metrics: MemoryMetrics
beforeEach(() => {
  metrics = createMemoryMetrics()
  engine = createSimpleEngine()
  ledger = createMemoryLedger()
  clock = new FakeClock(NOW)
})

async function rig(keyType: keyof typeof ALGS = 'ec-p256', jwtIssuer?: string) {
  const signer = createSigner({ engine: gathering(engine), custody: createMemoryCustody() })
  const binding = {
    trustDomain: 'example.org',
    clusterId: 2,
    kind: 'jwt',
    generation: KID,
  } as const
  const made = await signer.generateKey(keyType as SigningKeyType, binding)
  const authority: Authority = {
    id: 7,
    clusterId: 2,
    kind: 'jwt',
    holder: '',
    state: 'active',
    authorityId: KID,
    keyType,
    publicKey: made.publicKey,
    certificate: undefined,
    issuerId: undefined,
    notBefore: NOW,
    notAfter: KEY_NOT_AFTER,
    generation: KID,
    sealed: undefined,
  }
  const issuer: JwtIssuer = { authority, keyHandle: made.handle, alg: ALGS[keyType] }
  const issuance = createJwtIssuance({
    clock,
    random: createSeededRandom(),
    issuers: { jwtIssuer: () => issuer },
    signer,
    ledger,
    metrics,
    config: { trustDomain: 'example.org', issuer: jwtIssuer, ttlSecondsDefault: 300 },
  })
  const publicKey = createPublicKey({
    key: Buffer.from(made.publicKey),
    format: 'der',
    type: 'spki',
  })
  return {
    issue: (changes: Partial<JwtSvidOrder> = {}) => issuance.issueJwtSvid(order(changes), CALLER),
    publicKey,
  }
}

function order(changes: Partial<JwtSvidOrder>): JwtSvidOrder {
  return {
    clusterId: 2,
    spiffeId: SpiffeId.parse('spiffe://example.org/workload'),
    entryId: 'entry-1',
    audience: ['db'],
    ttlSeconds: 0,
    includeJti: false,
    ...changes,
  }
}

function part(token: string, index: number): string {
  return Buffer.from(token.split('.')[index]!, 'base64url').toString()
}

async function verifyWithJose(token: string, key: KeyObject, audience = 'db') {
  return jwtVerify(token, key, { audience, currentDate: new Date(NOW * 1000) })
}

describe('the token', () => {
  test('has SPIRE’s header and claims, sorted', async () => {
    const { issue } = await rig()
    const svid = await issue()
    expect(part(svid.token, 0)).toBe(`{"alg":"ES256","kid":"${KID}","typ":"JWT"}`)
    expect(part(svid.token, 1)).toBe(
      `{"aud":["db"],"exp":${NOW + 300},"iat":${NOW},"sub":"spiffe://example.org/workload"}`,
    )
    expect(svid).toMatchObject({ issuedAt: NOW, expiresAt: NOW + 300 })
    expect(metrics.counters.get('server_ca.sign.jwt_svid')).toBe(1)
  })

  test('has iss when configured and jti when the entry asks for it', async () => {
    const { issue } = await rig('ec-p256', 'https://oidc.example.org')
    const claims = JSON.parse(part((await issue({ includeJti: true })).token, 1))
    expect(Object.keys(claims)).toEqual(['aud', 'exp', 'iat', 'iss', 'jti', 'sub'])
    expect(claims.iss).toBe('https://oidc.example.org')
    const id = Buffer.from(claims.jti, 'base64url')
    expect(id).toHaveLength(16)
    expect([id[6]! >> 4, id[8]! >> 6]).toEqual([4, 2])
    expect(Buffer.from(ledger.rows[0]!.serialNumber)).toEqual(id)
  })

  test.each(Object.keys(ALGS) as (keyof typeof ALGS)[])(
    'jose verifies it, key %s',
    async (type) => {
      const { issue, publicKey } = await rig(type)
      // Many, so that short r and s, which DER writes in fewer bytes, come up.
      for (let i = 0; i < (type === 'ec-p256' ? 300 : 10); i++) {
        const { token } = await issue({ audience: ['other', 'db'] })
        expect(decodeProtectedHeader(token).alg).toBe(ALGS[type])
        expect((await verifyWithJose(token, publicKey)).payload.sub).toBe(
          'spiffe://example.org/workload',
        )
      }
    },
  )

  test.each([
    ['the default without one', 0, 300],
    ['the default for a negative one', -5, 300],
    ['as asked', 60, 60],
    ['at most its key’s', 100_000, 3600],
  ])('lives %s', async (_name, ttlSeconds, expected) => {
    const { issue } = await rig()
    expect((await issue({ ttlSeconds })).expiresAt - NOW).toBe(expected)
  })

  test('any audience text survives', async () => {
    const { issue, publicKey } = await rig()
    for (const audience of ['"quoted"\\', 'ünï👍', '<a>&b', '\u2028', '__proto__', 'a\nb\u0000']) {
      const { token } = await issue({ audience: [audience] })
      expect((await verifyWithJose(token, publicKey, audience)).payload.aud).toEqual([audience])
    }
  })
})

describe('refusals', () => {
  test.each([
    ['too many', Array.from({ length: AUDIENCES_MAX + 1 }, (_, i) => `a${i}`)],
    ['a long one', ['a'.repeat(AUDIENCE_BYTES_MAX + 1)]],
    ['half a character', ['\ud800']],
  ])('%s is the caller’s fault', async (_name, audience) => {
    const { issue } = await rig()
    await expect(issue({ audience })).rejects.toMatchObject({
      kind: 'invalid_argument',
      code: 'bad_audience',
    })
    expect(ledger.rows).toEqual([])
  })

  test.each([[[]], [['', '']]])('audiences %j are internal, as in SPIRE', async (audience) => {
    const { issue } = await rig()
    await expect(issue({ audience })).rejects.toMatchObject({
      kind: 'internal',
      message: 'invalid JWT-SVID audience: cannot be empty',
    })
    expect(ledger.rows).toEqual([])
  })

  test('the limits themselves are allowed, empty audiences are dropped', async () => {
    const { issue } = await rig()
    const audience = Array.from({ length: AUDIENCES_MAX }, (_, i) => `${i}`)
    const long = 'a'.repeat(AUDIENCE_BYTES_MAX)
    const svid = await issue({ audience: ['', ...audience] })
    expect(JSON.parse(part(svid.token, 1)).aud).toEqual(audience)
    expect(JSON.parse(part((await issue({ audience: [long] })).token, 1)).aud).toEqual([long])
  })

  test('an expired key signs nothing', async () => {
    const { issue } = await rig()
    clock.advanceSeconds(3599)
    expect((await issue()).expiresAt).toBe(KEY_NOT_AFTER)
    clock.advanceSeconds(1)
    await expect(issue()).rejects.toMatchObject({
      kind: 'unavailable',
      code: 'jwt_authority_expired',
    })
    expect(ledger.rows).toHaveLength(1)
  })

  test('a foreign trust domain and an ID without path never get a signature', async () => {
    const { issue } = await rig()
    for (const id of ['spiffe://example.com/workload', 'spiffe://example.org']) {
      await expect(issue({ spiffeId: SpiffeId.parse(id) })).rejects.toThrow('broken promise')
    }
    expect(engine.batches).toBe(0)
    expect(ledger.rows).toEqual([])
  })
})

describe('the ledger', () => {
  test('has the row, with the hash of what was signed', async () => {
    const { issue } = await rig()
    const { token } = await issue()
    const input = token.slice(0, token.lastIndexOf('.'))
    expect(ledger.rows).toEqual([
      {
        kind: 'jwt',
        clusterId: 2,
        authorityId: 7,
        serialNumber: expect.any(Uint8Array),
        spiffeId: 'spiffe://example.org/workload',
        entryId: 'entry-1',
        callerId: CALLER.callerId,
        requestId: CALLER.requestId,
        notBefore: NOW,
        notAfter: NOW + 300,
        publicKeySha256: new Uint8Array(0),
        tbsSha256: hash('sha256', input, 'buffer'),
      },
    ])
  })

  test('holds the release back until the row is durable', async () => {
    const { issue } = await rig()
    const release = ledger.hold()
    let released = false
    const issuing = issue().then(() => {
      released = true
    })
    while (engine.batches === 0) await new Promise((resolve) => setImmediate(resolve))
    await new Promise((resolve) => setImmediate(resolve))
    expect(released).toBe(false)
    release()
    await issuing
    expect(ledger.rows).toHaveLength(1)
  })

  test('down: nothing is released', async () => {
    const { issue } = await rig()
    ledger.down = true
    await expect(issue()).rejects.toMatchObject({ kind: 'unavailable', retryAfterSeconds: 1 })
    expect(ledger.failures).toEqual([])
  })

  test('hears of a signature that failed', async () => {
    const { issue } = await rig()
    engine.tamper = (results) => ({ ...results, status: new Uint8Array([3]) })
    await expect(issue()).rejects.toMatchObject({ kind: 'internal', code: 'jwt_signing_failed' })
    expect(ledger.failures).toEqual([{ rows: [ledger.rows[0]], reason: 'signing failed' }])
    engine.tamper = () => {
      throw new SignetError('internal', 'engine_gone', 'signer is gone')
    }
    await expect(issue()).rejects.toMatchObject({ code: 'jwt_signing_failed' })
    expect(ledger.failures).toHaveLength(2)
  })
})

test('requests of one turn go to the engine together', async () => {
  const { issue, publicKey } = await rig()
  const svids = await Promise.all(Array.from({ length: 5 }, (_, i) => issue({ ttlSeconds: i + 1 })))
  expect(engine.batches).toBe(1)
  for (const [i, svid] of svids.entries()) {
    expect(svid.expiresAt).toBe(NOW + i + 1)
    await verifyWithJose(svid.token, publicKey)
  }
})
