/**
 * JWT-SVID validation: SPIRE's texts, then the attacks of reliability.md E23. Verdicts are those of
 * the strictest reader; jose gives the second opinion on what both must refuse or accept.
 */
import {
  constants,
  createHmac,
  generateKeyPairSync,
  type KeyObject,
  sign as nodeSign,
} from 'node:crypto'
import { compactVerify, SignJWT } from 'jose'
import { describe, expect, test } from 'vitest'
import { JWT_SVID_BYTES_MAX } from '../../../src/base/limits.ts'
import { type JwtValidation, validateJwtSvid } from '../../../src/spiffe/jwt-svid.ts'

const NOW = 1_800_000_000
const ID = 'spiffe://example.org/workload'
const CLAIMS = { aud: ['x'], exp: NOW + 300, iat: NOW, sub: ID }

const PAIRS = {
  p256: generateKeyPairSync('ec', { namedCurve: 'P-256' }),
  p384: generateKeyPairSync('ec', { namedCurve: 'P-384' }),
  p521: generateKeyPairSync('ec', { namedCurve: 'P-521' }),
  rsa: generateKeyPairSync('rsa', { modulusLength: 2048 }),
  rsa1024: generateKeyPairSync('rsa', { modulusLength: 1024 }),
  secp256k1: generateKeyPairSync('ec', { namedCurve: 'secp256k1' }),
  ed25519: generateKeyPairSync('ed25519'),
}
type KeyName = keyof typeof PAIRS

const KEYS = new Map<string, KeyObject>(
  Object.entries(PAIRS).map(([name, pair]) => [name, pair.publicKey]),
)
const VALIDATION: JwtValidation = {
  audience: ['x'],
  now: NOW,
  keysOf: (trustDomain) => (trustDomain === 'example.org' ? KEYS : undefined),
}

function b64(value: unknown): string {
  const text = typeof value === 'string' ? value : JSON.stringify(value)
  return Buffer.from(text).toString('base64url')
}

const HASHES: Record<string, string> = { '256': 'sha256', '384': 'sha384', '512': 'sha512' }

function sign(alg: string, key: KeyName, input: string): string {
  const hash = HASHES[alg.slice(2)] ?? 'sha256'
  const { privateKey } = PAIRS[key]
  if (alg.startsWith('ES')) {
    const options = { key: privateKey, dsaEncoding: 'ieee-p1363' } as const
    return nodeSign(hash, Buffer.from(input), options).toString('base64url')
  }
  if (!alg.startsWith('PS')) {
    const digest = key === 'ed25519' ? null : hash
    return nodeSign(digest, Buffer.from(input), privateKey).toString('base64url')
  }
  const options = {
    key: privateKey,
    padding: constants.RSA_PKCS1_PSS_PADDING,
    saltLength: constants.RSA_PSS_SALTLEN_DIGEST,
  }
  return nodeSign(hash, Buffer.from(input), options).toString('base64url')
}

interface Parts {
  readonly alg?: string
  readonly key?: KeyName
  /** Objects replace the default; texts are taken as they are. */
  readonly header?: object | string
  readonly claims?: object | string
}

function token({ alg = 'ES256', key = 'p256', header, claims = CLAIMS }: Parts = {}): string {
  const input = `${b64(header ?? { alg, kid: key, typ: 'JWT' })}.${b64(claims)}`
  return `${input}.${sign(alg, key, input)}`
}

function verdict(jwt: string, validation: Partial<JwtValidation> = {}): string {
  try {
    validateJwtSvid(jwt, { ...VALIDATION, ...validation })
    return 'accepted'
  } catch (error) {
    const { kind, code } = error as { kind?: string; code?: string }
    return kind === 'invalid_argument' ? String(code) : `unexpected ${String(error)}`
  }
}

function message(jwt: string, validation: Partial<JwtValidation> = {}): string {
  try {
    validateJwtSvid(jwt, { ...VALIDATION, ...validation })
  } catch (error) {
    return (error as Error).message
  }
  return 'accepted'
}

describe('accepts', () => {
  test.each<[string, KeyName]>([
    ['ES256', 'p256'],
    ['ES384', 'p384'],
    ['ES512', 'p521'],
    ['RS256', 'rsa'],
    ['RS384', 'rsa'],
    ['RS512', 'rsa'],
    ['PS256', 'rsa'],
    ['PS384', 'rsa'],
    ['PS512', 'rsa'],
  ])('%s, ours and jose’s alike', async (alg, key) => {
    const ours = token({ alg, key })
    expect(verdict(ours)).toBe('accepted')
    await compactVerify(ours, PAIRS[key].publicKey, { algorithms: [alg] })
    const theirs = await new SignJWT({ ...CLAIMS })
      .setProtectedHeader({ alg, kid: key })
      .sign(PAIRS[key].privateKey)
    expect(verdict(theirs)).toBe('accepted')
  })

  test('and returns what the token says', () => {
    const claims = { ...CLAIMS, aud: 'x', exp: NOW + 300.9, custom: { deep: [1, null, true] } }
    const svid = validateJwtSvid(token({ claims }), VALIDATION)
    expect(svid.spiffeId.toString()).toBe(ID)
    expect(svid.audience).toEqual(['x'])
    expect(svid.expiresAt).toBe(NOW + 300)
    expect(svid.claims).toEqual({ ...claims, aud: ['x'] })
  })

  test.each<[string, object]>([
    ['typ JWT', { alg: 'ES256', kid: 'p256', typ: 'JWT' }],
    ['typ JOSE', { alg: 'ES256', kid: 'p256', typ: 'JOSE' }],
    ['no typ', { alg: 'ES256', kid: 'p256' }],
    ['a header it does not know', { alg: 'ES256', kid: 'p256', x: [1] }],
  ])('%s', (_name, header) => {
    expect(verdict(token({ header }))).toBe('accepted')
  })

  test.each<[string, object]>([
    ['expired 60 seconds ago', { ...CLAIMS, exp: NOW - 60 }],
    ['issued 60 seconds ahead', { ...CLAIMS, iat: NOW + 60 }],
    ['valid from 60 seconds ahead', { ...CLAIMS, nbf: NOW + 60 }],
    ['no iat', { aud: ['x'], exp: NOW + 1, sub: ID }],
    ['more audiences than ours', { ...CLAIMS, aud: ['y', 'x', 'z'] }],
    ['far future expiry', { ...CLAIMS, exp: 253_402_300_799 }],
    [
      'a claim named __proto__',
      JSON.parse(JSON.stringify(CLAIMS).replace('{', '{"__proto__":{"aud":"q"},')),
    ],
  ])('leeway and optional parts: %s', (_name, claims) => {
    expect(verdict(token({ claims }))).toBe('accepted')
  })
})

describe('says what SPIRE says', () => {
  test.each<[string, string, string]>([
    ['expired', token({ claims: { ...CLAIMS, exp: NOW - 61 } }), 'token has expired'],
    [
      'audience',
      token({ claims: { ...CLAIMS, aud: ['y'] } }),
      'expected audience in ["x"] (audience=["y"])',
    ],
    [
      'two audiences',
      token({ claims: { ...CLAIMS, aud: ['y', 'z'] } }),
      'expected audience in ["x"] (audience=["y" "z"])',
    ],
    [
      'no audience',
      token({ claims: { exp: NOW + 1, sub: ID } }),
      'expected audience in ["x"] (audience=[])',
    ],
    ['kid', token({ header: { alg: 'ES256' } }), 'token header missing key id'],
    ['sub', token({ claims: { aud: ['x'], exp: NOW + 1 } }), 'token missing subject claim'],
    ['exp', token({ claims: { aud: ['x'], sub: ID } }), 'token missing exp claim'],
    [
      'subject',
      token({ claims: { ...CLAIMS, sub: 'x' } }),
      'token has in invalid subject claim: scheme is missing or invalid',
    ],
    [
      'trust domain',
      token({ claims: { ...CLAIMS, sub: 'spiffe://example.com/w' } }),
      'no keys found for trust domain "example.com"',
    ],
    [
      'key',
      token({ header: { alg: 'ES256', kid: 'other' } }),
      'public key "other" not found in trust domain "example.org"',
    ],
    [
      'typ',
      token({ header: { alg: 'ES256', kid: 'p256', typ: 'at+jwt' } }),
      'token header type not equal to either JWT or JOSE',
    ],
  ])('%s', (_name, jwt, expected) => {
    expect(message(jwt)).toBe(expected)
  })

  test('and stays short whatever the token holds', () => {
    const aud = Array.from({ length: 1000 }, (_, i) => `${i}`.repeat(200))
    expect(message(token({ claims: { ...CLAIMS, aud } })).length).toBeLessThan(4096)
    const header = { alg: 'ES256', kid: 'k'.repeat(10_000) }
    expect(message(token({ header })).length).toBeLessThan(1024)
  })
})

describe('refuses algorithms', () => {
  test('none, in any spelling', () => {
    for (const alg of ['none', 'None', 'NONE', '']) {
      const input = `${b64({ alg, kid: 'p256' })}.${b64(CLAIMS)}`
      expect(verdict(`${input}.`)).toBe('jwt_bad_algorithm')
      expect(verdict(`${input}.AAAA`)).toBe('jwt_bad_algorithm')
    }
  })

  test('HMAC with the public key as secret', () => {
    for (const format of ['pem', 'der'] as const) {
      const secret = PAIRS.rsa.publicKey.export({ type: 'spki', format })
      const input = `${b64({ alg: 'HS256', kid: 'rsa' })}.${b64(CLAIMS)}`
      const mac = createHmac('sha256', secret).update(input).digest('base64url')
      expect(verdict(`${input}.${mac}`)).toBe('jwt_bad_algorithm')
    }
  })

  test.each([
    ['EdDSA'],
    ['Ed25519'],
    ['ES256K'],
    ['RS1'],
    ['HS256'],
    ['es256'],
    ['ES256 '],
    [null],
    [256],
  ])('outside the list: %s', (alg) => {
    expect(verdict(token({ header: { alg, kid: 'p256' } }))).toBe('jwt_bad_algorithm')
  })

  test.each<[string, KeyName]>([
    ['RS256', 'p256'],
    ['PS256', 'p256'],
    ['ES256', 'rsa'],
    ['ES256', 'p384'],
    ['ES384', 'p256'],
    ['ES512', 'p256'],
    ['ES256', 'secp256k1'],
    ['RS256', 'rsa1024'],
    ['ES256', 'ed25519'],
    ['RS256', 'ed25519'],
  ])('that do not go with the key: %s and %s', (claimed, key) => {
    // The signature is one that the key itself made, in whatever form it makes.
    const family = key.startsWith('rsa') ? 'RS256' : key === 'ed25519' ? 'Ed' : 'ES256'
    const input = `${b64({ alg: claimed, kid: key })}.${b64(CLAIMS)}`
    expect(verdict(`${input}.${sign(family, key, input)}`)).toBe('jwt_bad_signature')
  })

  test('PSS for PKCS#1 and the other way round', () => {
    for (const [claimed, used] of [
      ['PS256', 'RS256'],
      ['RS256', 'PS256'],
    ] as const) {
      const input = `${b64({ alg: claimed, kid: 'rsa' })}.${b64(CLAIMS)}`
      expect(verdict(`${input}.${sign(used, 'rsa', input)}`)).toBe('jwt_bad_signature')
    }
  })
})

describe('refuses signatures', () => {
  const input = `${b64({ alg: 'ES256', kid: 'p256' })}.${b64(CLAIMS)}`
  const order = Buffer.from(
    'ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551',
    'hex',
  )
  const one = Buffer.alloc(32)
  one[31] = 1
  const zero = Buffer.alloc(32)

  test.each<[string, Buffer]>([
    ['in DER', nodeSign('sha256', Buffer.from(input), PAIRS.p256.privateKey)],
    ['r = s = 0', Buffer.concat([zero, zero])],
    ['r = 0', Buffer.concat([zero, one])],
    ['s = 0', Buffer.concat([one, zero])],
    ['r = n', Buffer.concat([order, one])],
    ['s = n', Buffer.concat([one, order])],
    ['r = n, s = n', Buffer.concat([order, order])],
    ['too short', Buffer.alloc(63, 1)],
    ['too long', Buffer.alloc(65, 1)],
    ['empty', Buffer.alloc(0)],
  ])('%s', (_name, signature) => {
    expect(verdict(`${input}.${signature.toString('base64url')}`)).toBe('jwt_bad_signature')
  })

  test('of another key, over another payload, and every flipped bit', () => {
    const [header, claims, signature] = token().split('.')
    const other = b64({ ...CLAIMS, aud: ['x', 'y'] })
    expect(verdict(`${header}.${other}.${signature}`)).toBe('jwt_bad_signature')
    expect(verdict(`${input}.${sign('ES256', 'secp256k1', input)}`)).toBe('jwt_bad_signature')
    const bytes = Buffer.from(signature!, 'base64url')
    for (let bit = 0; bit < bytes.length * 8; bit += 7) {
      const flipped = Buffer.from(bytes)
      flipped[bit >> 3]! ^= 1 << (bit & 7)
      expect(verdict(`${header}.${claims}.${flipped.toString('base64url')}`)).toBe(
        'jwt_bad_signature',
      )
    }
  })

  test('made by a key that the header brings along', () => {
    const attacker = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    const jwk = attacker.publicKey.export({ format: 'jwk' })
    for (const extra of [
      { jwk },
      { x5c: ['MIIB'] },
      { jku: 'https://evil.example/keys' },
      { x5u: 'https://evil.example/cert' },
    ]) {
      const forged = `${b64({ alg: 'ES256', kid: 'p256', ...extra })}.${b64(CLAIMS)}`
      const options = { key: attacker.privateKey, dsaEncoding: 'ieee-p1363' } as const
      const signature = nodeSign('sha256', Buffer.from(forged), options).toString('base64url')
      expect(verdict(`${forged}.${signature}`)).toBe('jwt_bad_signature')
    }
  })
})

describe('refuses forms', () => {
  const [header, claims, signature] = token().split('.') as [string, string, string]
  const inner = token()
  const json = JSON.stringify({ protected: header, payload: claims, signature })
  const stray = `${signature.slice(0, -1)}${signature.endsWith('A') ? 'B' : String.fromCharCode(signature.charCodeAt(signature.length - 1) + 1)}`

  test.each<[string, string]>([
    ['empty', ''],
    ['one part', header],
    ['two parts', `${header}.${claims}`],
    ['four parts', `${header}.${claims}.${signature}.`],
    ['five parts', `${header}.${claims}.${signature}.a.b`],
    ['JSON serialization', json],
    ['a leading space', ` ${header}.${claims}.${signature}`],
    ['a line end', `${header}.${claims}.${signature}\n`],
    ['space inside', `${header}. ${claims}.${signature}`],
    ['padding', `${header}.${claims}.${signature}==`],
    ['standard base64', `${header}.${claims}.${'+/'.repeat(43)}`],
    ['stray bits in the last character', `${header}.${claims}.${stray}`],
    ['another alphabet’s dot', `${header}\u3002${claims}.${signature}`],
    ['a NUL', `${header}.${claims}.${signature}\0`],
    ['header is no object', `${b64('[]')}.${claims}.${signature}`],
    ['header is null', `${b64('null')}.${claims}.${signature}`],
    ['claims are a text', `${header}.${b64('"x"')}.${signature}`],
    ['claims are a token (nested)', `${header}.${b64(inner)}.${signature}`],
    ['claims are empty', `${header}..${signature}`],
    ['detached', `${header}..`],
    [
      'not UTF-8',
      `${header}.${Buffer.from('{"a":"\xff"}', 'latin1').toString('base64url')}.${signature}`,
    ],
    ['a byte order mark', `${header}.${b64('\ufeff{}')}.${signature}`],
    ['too deep', `${header}.${b64(`{"a":${'['.repeat(100)}${']'.repeat(100)}}`)}.${signature}`],
    ['oversize', `${header}.${'A'.repeat(JWT_SVID_BYTES_MAX)}.${signature}`],
  ])('%s', (_name, jwt) => {
    expect(verdict(jwt)).toBe('jwt_malformed')
  })

  test.each<[string, Parts]>([
    ['in the header', { header: '{"alg":"ES256","alg":"ES256","kid":"p256"}' }],
    ['kid twice', { header: '{"alg":"ES256","kid":"p256","kid":"p256"}' }],
    ['in the claims', { claims: JSON.stringify(CLAIMS).replace('{', `{"sub":"${ID}",`) }],
    ['escaped', { claims: JSON.stringify(CLAIMS).replace('{', `{"s\\u0075b":"${ID}",`) }],
    ['deep inside', { claims: JSON.stringify(CLAIMS).replace('{', '{"a":{"b":1,"b":2},') }],
  ])('duplicate names: %s', (_name, parts) => {
    expect(verdict(token(parts))).toBe('jwt_malformed')
  })

  test('a token at the size limit is read', () => {
    const filler = (n: number) => token({ claims: { ...CLAIMS, pad: 'a'.repeat(n) } })
    const n = Math.floor((JWT_SVID_BYTES_MAX - filler(0).length) / 4) * 3
    expect(filler(n).length).toBeLessThanOrEqual(JWT_SVID_BYTES_MAX)
    expect(filler(n).length).toBeGreaterThan(JWT_SVID_BYTES_MAX - 8)
    expect(verdict(filler(n))).toBe('accepted')
    expect(verdict(filler(n + 12))).toBe('jwt_malformed')
  })
})

describe('refuses headers', () => {
  test.each<[string, object, string]>([
    ['crit', { crit: ['exp'], exp: 1 }, 'jwt_critical_header'],
    ['empty crit', { crit: [] }, 'jwt_critical_header'],
    ['b64 false', { b64: false }, 'jwt_critical_header'],
    ['typ at+jwt', { typ: 'at+jwt' }, 'jwt_bad_type'],
    ['typ jwt', { typ: 'jwt' }, 'jwt_bad_type'],
    ['typ wit+jwt', { typ: 'wit+jwt' }, 'jwt_bad_type'],
    ['typ application/jwt', { typ: 'application/jwt' }, 'jwt_bad_type'],
    ['typ null', { typ: null }, 'jwt_bad_type'],
    ['typ a list', { typ: ['JWT'] }, 'jwt_bad_type'],
    ['kid empty', { kid: '' }, 'jwt_no_key_id'],
    ['kid a number', { kid: 1 }, 'jwt_no_key_id'],
    ['kid with SQL', { kid: "' OR 1=1 --" }, 'jwt_unknown_key'],
    ['kid with a path', { kid: '../../etc/passwd' }, 'jwt_unknown_key'],
    ['kid __proto__', { kid: '__proto__' }, 'jwt_unknown_key'],
    ['kid constructor', { kid: 'constructor' }, 'jwt_unknown_key'],
  ])('%s', (_name, extra, code) => {
    expect(verdict(token({ header: { alg: 'ES256', kid: 'p256', ...extra } }))).toBe(code)
  })
})

describe('refuses claims', () => {
  test.each<[string, object | string, string]>([
    ['exp null', { ...CLAIMS, exp: null }, 'jwt_bad_claims'],
    ['exp a text', { ...CLAIMS, exp: String(NOW + 300) }, 'jwt_bad_claims'],
    ['exp negative', { ...CLAIMS, exp: -1 }, 'jwt_bad_claims'],
    ['exp 1e300', { ...CLAIMS, exp: 1e300 }, 'jwt_bad_claims'],
    [
      'exp 2^63',
      JSON.stringify(CLAIMS).replace(/"exp":\d+/, '"exp":9223372036854775808'),
      'jwt_bad_claims',
    ],
    ['exp 1e999', JSON.stringify(CLAIMS).replace(/"exp":\d+/, '"exp":1e999'), 'jwt_malformed'],
    ['exp zero', { ...CLAIMS, exp: 0 }, 'jwt_expired'],
    ['exp true', { ...CLAIMS, exp: true }, 'jwt_bad_claims'],
    ['expired', { ...CLAIMS, exp: NOW - 61 }, 'jwt_expired'],
    ['nbf ahead', { ...CLAIMS, nbf: NOW + 61 }, 'jwt_not_yet_valid'],
    ['nbf a text', { ...CLAIMS, nbf: '1' }, 'jwt_bad_claims'],
    ['iat ahead', { ...CLAIMS, iat: NOW + 61 }, 'jwt_issued_in_future'],
    ['aud of another', { ...CLAIMS, aud: 'y' }, 'jwt_bad_audience'],
    ['aud contains ours as a part', { ...CLAIMS, aud: ['xx', 'x '] }, 'jwt_bad_audience'],
    ['aud in capitals', { ...CLAIMS, aud: ['X'] }, 'jwt_bad_audience'],
    ['aud empty', { ...CLAIMS, aud: [] }, 'jwt_bad_audience'],
    ['aud an object', { ...CLAIMS, aud: { x: 1 } }, 'jwt_bad_claims'],
    ['aud with numbers', { ...CLAIMS, aud: ['x', 1] }, 'jwt_bad_claims'],
    ['sub empty', { ...CLAIMS, sub: '' }, 'jwt_no_subject'],
    ['sub a list', { ...CLAIMS, sub: [ID] }, 'jwt_no_subject'],
    ['sub not canonical', { ...CLAIMS, sub: 'spiffe://EXAMPLE.org/w' }, 'jwt_bad_subject'],
    ['sub with dots', { ...CLAIMS, sub: 'spiffe://example.org/a/../b' }, 'jwt_bad_subject'],
    ['sub with a query', { ...CLAIMS, sub: `${ID}?a` }, 'jwt_bad_subject'],
    ['another trust domain', { ...CLAIMS, sub: 'spiffe://other/w' }, 'jwt_untrusted_domain'],
  ])('%s', (_name, claims, code) => {
    expect(verdict(token({ claims }))).toBe(code)
  })

  test('a key of one trust domain vouches for no other', () => {
    const jwt = token({ claims: { ...CLAIMS, sub: 'spiffe://federated.example/w' } })
    const keysOf = (name: string) => (name === 'example.org' ? KEYS : new Map<string, KeyObject>())
    expect(verdict(jwt, { keysOf })).toBe('jwt_unknown_key')
  })

  test('no expected audience accepts nothing', () => {
    expect(verdict(token(), { audience: [] })).toBe('jwt_bad_audience')
  })
})
