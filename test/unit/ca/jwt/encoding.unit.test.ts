import { generateKeyPairSync, sign, verify } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { derToP1363 } from '../../../../src/ca/jwt/ecdsa-signature.ts'
import { LintedJws } from '../../../../src/ca/jwt/linted-jws.ts'

/** DER of two integers, written independently of the code under test. */
function der(r: bigint, s: bigint): Uint8Array {
  const integer = (value: bigint) => {
    let hex = value.toString(16)
    if (hex.length % 2 === 1) hex = `0${hex}`
    if (Number.parseInt(hex.slice(0, 2), 16) >= 0x80) hex = `00${hex}`
    return Buffer.concat([Buffer.from([2, hex.length / 2]), Buffer.from(hex, 'hex')])
  }
  const body = Buffer.concat([integer(r), integer(s)])
  return Buffer.concat([Buffer.from([0x30, body.length]), body])
}

describe('ECDSA signatures', () => {
  // Method: any r and s of the field, short ones on purpose.
  test.each([32, 48])('of %i bytes become r ‖ s', (size) => {
    const scalar = fc.bigInt({ min: 1n, max: 2n ** BigInt(size * 8) - 1n })
    const short = fc.bigInt({ min: 1n, max: 2n ** 70n })
    fc.assert(
      fc.property(fc.oneof(scalar, short), fc.oneof(scalar, short), (r, s) => {
        const hex = Buffer.from(derToP1363(der(r, s), size)).toString('hex')
        expect(BigInt(`0x${hex.slice(0, size * 2)}`)).toBe(r)
        expect(BigInt(`0x${hex.slice(size * 2)}`)).toBe(s)
      }),
    )
  })

  test.each(['P-256', 'P-384'])('of OpenSSL verify in both forms, %s', (namedCurve) => {
    const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve })
    const message = Buffer.from('message')
    for (let i = 0; i < 50; i++) {
      const signature = derToP1363(
        sign('sha256', message, privateKey),
        namedCurve === 'P-256' ? 32 : 48,
      )
      const key = { key: publicKey, dsaEncoding: 'ieee-p1363' } as const
      expect(verify('sha256', message, key, signature)).toBe(true)
    }
  })

  test.each([
    ['empty', ''],
    ['not a sequence', '31060201010201 01'],
    ['sequence too long', '30070201010201 01'],
    ['trailing byte', '3007020101020101 00'],
    ['byte after the sequence', '3006020101020101 00'],
    ['one integer', '3003020101'],
    ['integer without bytes', '30050200 020101'],
    ['negative', '3006020181 020101'],
    ['zero', '3006020100 020101'],
    ['padded without need', '300702020001 020101'],
    ['wider than the field', `3027022201${'00'.repeat(33)}020101`],
    ['integer past the end', '300602010102 7f01'],
    ['another tag', '3006030101 020101'],
  ])('that are malformed are a broken promise: %s', (_name, hex) => {
    const bytes = Buffer.from(hex.replaceAll(' ', ''), 'hex')
    expect(() => derToP1363(bytes, 32)).toThrow('broken promise')
  })
})

describe('the linter', () => {
  const HEADER = 'eyJhbGciOiJFUzI1NiJ9.'
  const rules = { headerPrefix: HEADER, trustDomain: 'example.org', keyNotAfter: 2000 }
  const good = { aud: ['a'], exp: 1500, iat: 1000, sub: 'spiffe://example.org/w' }
  const lint = (claims: object | string, header = HEADER) => {
    const json = typeof claims === 'string' ? claims : JSON.stringify(claims)
    return LintedJws.lint(header + Buffer.from(json).toString('base64url'), rules)
  }

  test('passes what is right', () => {
    expect(lint(good).digest).toHaveLength(32)
    expect(lint({ ...good, exp: 2000 }).bytes.length).toBeGreaterThan(50)
    const { aud, exp, iat, sub } = good
    lint({ aud, exp, iat, iss: 'https://i', jti: 'AAAAAAAAQACAAAAAAAAAAA', sub })
  })

  test.each<[string, object | string]>([
    ['outlives its key', { ...good, exp: 2001 }],
    ['expired when issued', { ...good, exp: 1000 }],
    ['aud is a text', { ...good, aud: 'a' }],
    ['aud is empty', { ...good, aud: [] }],
    ['aud holds an empty text', { ...good, aud: [''] }],
    ['exp is a text', { ...good, exp: '1500' }],
    ['exp is a fraction', { ...good, exp: 1500.5 }],
    ['exp is missing', { aud: ['a'], iat: 1000, sub: good.sub }],
    ['names out of order', { exp: 1500, aud: ['a'], iat: 1000, sub: good.sub }],
    ['an unknown claim', { ...good, zzz: 1 }],
    ['nbf', { aud: ['a'], exp: 1500, iat: 1000, nbf: 1, sub: good.sub }],
    ['foreign subject', { ...good, sub: 'spiffe://example.com/w' }],
    ['subject without path', { ...good, sub: 'spiffe://example.org' }],
    ['subject that is no SPIFFE ID', { ...good, sub: 'https://example.org/w' }],
    ['bad jti', { aud: ['a'], exp: 1500, iat: 1000, jti: 'x', sub: good.sub }],
    ['empty iss', { aud: ['a'], exp: 1500, iat: 1000, iss: '', sub: good.sub }],
    ['duplicate names', JSON.stringify(good).replace('{', '{"aud":["b"],')],
    ['spaces', JSON.stringify(good, null, 1)],
    ['no JSON', '{'],
    ['no object', '[]'],
  ])('refuses: %s', (_name, claims) => {
    expect(() => lint(claims)).toThrow()
  })

  test('refuses another header and other characters', () => {
    expect(() => lint(good, 'eyJhbGciOiJub25lIn0.')).toThrow('broken promise')
    expect(() => LintedJws.lint(`${HEADER}e30=`, rules)).toThrow('broken promise')
    expect(() => LintedJws.lint(`${HEADER}e30.e30`, rules)).toThrow('broken promise')
  })
})
