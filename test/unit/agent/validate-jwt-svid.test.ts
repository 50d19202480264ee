/** What the agent tells a workload about a valid JWT-SVID. */
import { sign } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import { createJwtSvidValidator } from '../../../src/agent/workload-api/validate-jwt-svid.ts'
import { TrustDomain } from '../../../src/spiffe/trust-domain.ts'
import { FakeClock } from '../../fakes/fake-clock.ts'
import { newKey } from '../../rigs/issuing.ts'

const NOW = 1_800_000_000
const key = newKey()

function token(spiffeId: string): string {
  const claims = { sub: spiffeId, aud: 'x', exp: NOW + 60, iat: NOW, email: 'e', deep: { a: [1] } }
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url')
  const signed = `${part({ alg: 'ES256', kid: 'k' })}.${part(claims)}`
  const signature = sign('sha256', Buffer.from(signed), {
    key: key.privateKey,
    dsaEncoding: 'ieee-p1363',
  })
  return `${signed}.${signature.toString('base64url')}`
}

const bundleOf = (trustDomain: string) =>
  ({ trustDomain, jwtAuthorities: [{ keyId: 'k', publicKey: key.publicKey }] }) as never

function validate(text: string, allowed: readonly string[] = []) {
  const own = TrustDomain.parse('example.org')
  const validator = createJwtSvidValidator(new FakeClock(NOW), own, allowed)
  return validator.validate(text, 'x', [bundleOf('example.org'), bundleOf('other.org')])
}

const claimsOf = (trustDomain: string, allowed?: readonly string[]) =>
  validate(token(`spiffe://${trustDomain}/w`), allowed).claims

// What SPIRE's agent accepts and refuses, but for line ends within the token.
describe('white space around a token', () => {
  const text = token('spiffe://example.org/w')

  test.each(['\n', '\r\n', '\n\n'])('%j is no part of it', (lineEnd) => {
    for (const one of [text + lineEnd, lineEnd + text, lineEnd + text + lineEnd]) {
      expect(validate(one).spiffeId).toBe('spiffe://example.org/w')
    }
  })

  test.each([
    `${text} `,
    ` ${text}`,
    `${text}\t`,
    `${text.slice(0, 5)}\n${text.slice(5)}`,
    text.replace('.', '\n.'),
    '\n',
  ])('%j is refused', (one) => {
    expect(() => validate(one)).toThrow('unable to parse JWT token')
  })
})

test('of our own trust domain every claim is told, aud as a list', () => {
  expect(claimsOf('example.org')).toEqual({
    sub: 'spiffe://example.org/w',
    aud: ['x'],
    exp: NOW + 60,
    iat: NOW,
    email: 'e',
    deep: { a: [1] },
  })
})

test('of a foreign one sub, exp and aud, and what allowed_foreign_jwt_claims names', () => {
  expect(Object.keys(claimsOf('other.org')!).sort()).toEqual(['aud', 'exp', 'sub'])
  expect(claimsOf('other.org', ['email', 'none'])).toEqual({
    sub: 'spiffe://other.org/w',
    aud: ['x'],
    exp: NOW + 60,
    email: 'e',
  })
})
