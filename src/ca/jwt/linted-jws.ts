/**
 * The linter of JWT-SVIDs (JWT-SVID §2–§3, api.md §8.3). It reads the encoded bytes, not the plan
 * they came from, so a slip in the encoder cannot pass. `LintedJws` is made here alone, and JWT
 * issuance gives the signer nothing else (design.md §3).
 */
import { hash } from 'node:crypto'
import { assert } from '../../base/assert.ts'
import type { EpochSeconds } from '../../base/ports.ts'
import { SpiffeId } from '../../spiffe/spiffe-id.ts'

const CLAIMS_IN_ORDER = ['aud', 'exp', 'iat', 'iss', 'jti', 'sub']
const REQUIRED = ['aud', 'exp', 'iat', 'sub']

export interface JwsRules {
  /** The first part of every token of this issuer, its dot included. */
  readonly headerPrefix: string
  readonly trustDomain: string
  /** No token outlives its key (SPIRE #1542). */
  readonly keyNotAfter: EpochSeconds
}

export class LintedJws {
  readonly bytes: Uint8Array
  /** SHA-256 of `bytes`: what the ledger keeps and the signer compares. */
  readonly digest: Uint8Array

  private constructor(bytes: Uint8Array) {
    this.bytes = bytes
    // From Node's pool, as publicKeySha256.
    this.digest = Buffer.from(hash('sha256', bytes, 'latin1'), 'latin1')
  }

  /** Throws AssertionError: what reaches the linter was encoded here. */
  static lint(signingInput: string, rules: JwsRules): LintedJws {
    const { headerPrefix } = rules
    assert(signingInput.startsWith(headerPrefix), 'a token starts with its issuer’s header')
    const payload = signingInput.slice(headerPrefix.length)
    assert(/^[A-Za-z0-9_-]+$/.test(payload), 'claims are base64url')
    lintClaims(Buffer.from(payload, 'base64url').toString('utf8'), rules)
    return new LintedJws(Buffer.from(signingInput, 'latin1'))
  }
}

function lintClaims(json: string, rules: JwsRules): void {
  const claims = JSON.parse(json) as Record<string, unknown>
  assert(JSON.stringify(claims) === json, 'claims are compact JSON without duplicates')
  const names = Object.keys(claims)
  assert(
    CLAIMS_IN_ORDER.filter((name) => names.includes(name)).join() === names.join() &&
      REQUIRED.every((name) => names.includes(name)),
    'claims are the known ones, in order',
  )
  const { aud, exp, iat, iss, jti, sub } = claims
  assert(Array.isArray(aud) && aud.length > 0 && aud.every(isText), 'aud is a list of texts')
  assert(Number.isSafeInteger(exp) && Number.isSafeInteger(iat), 'times are whole seconds')
  assert((iat as number) < (exp as number), 'a token expires after it was issued')
  assert((exp as number) <= rules.keyNotAfter, 'no token outlives its key')
  assert(iss === undefined || isText(iss), 'iss is a text')
  assert(jti === undefined || (isText(jti) && /^[\w-]{22}$/.test(jti)), 'jti is 16 bytes')
  assert(isText(sub), 'sub is a text')
  const id = SpiffeId.parse(sub)
  assert(id.trustDomain.name === rules.trustDomain && id.path !== '', 'sub is one of our members')
}

function isText(value: unknown): value is string {
  return typeof value === 'string' && value !== ''
}
