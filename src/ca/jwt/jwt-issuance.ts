/**
 * Issues JWT-SVIDs: plan → encode → lint → (ledger row ∥ signature) → release (design.md §3).
 *
 * Nothing is released before its row is durable and its signature made. It owns no queue: the
 * signer gathers what one poll phase brought, and the ledger commits in groups.
 */
import { assert } from '../../base/assert.ts'
import { toBase64Url } from '../../base/bytes.ts'
import { SignetError } from '../../base/error.ts'
import { AUDIENCE_BYTES_MAX, AUDIENCES_MAX } from '../../base/limits.ts'
import type { Clock, EpochSeconds, Metrics, Random } from '../../base/ports.ts'
import type { Issuance, IssuanceCaller, IssuedJwtSvid, JwtSvidOrder } from '../issuance.ts'
import type { IssuerSource, JwtIssuer } from '../issuer-source.ts'
import type { Ledger, LedgerRow } from '../ledger.ts'
import { ITEM, ITEM_STATUS, ITEM_WORDS, type Signer } from '../signer/port.ts'
import { derToP1363 } from './ecdsa-signature.ts'
import { LintedJws } from './linted-jws.ts'

const TOKEN_ID_BYTES = 16
const FIELD_BYTES = { ES256: 32, ES384: 48 } as const
const NO_BYTES = new Uint8Array(0)

interface JwtIssuanceConfig {
  readonly trustDomain: string
  /** `jwt_issuer`; undefined leaves `iss` out. */
  readonly issuer: string | undefined
  /** `default_jwt_svid_ttl`, 300 unless configured (api.md §8.3). */
  readonly ttlSecondsDefault: number
}

export interface JwtIssuanceParts {
  readonly clock: Clock
  readonly random: Random
  readonly issuers: Pick<IssuerSource, 'jwtIssuer'>
  readonly signer: Pick<Signer, 'sign'>
  readonly ledger: Ledger
  readonly metrics: Metrics
  readonly config: JwtIssuanceConfig
}

export function createJwtIssuance(parts: JwtIssuanceParts): Pick<Issuance, 'issueJwtSvid'> {
  const headers = new WeakMap<JwtIssuer, string>()
  return {
    async issueJwtSvid(order, caller) {
      const issuer = parts.issuers.jwtIssuer(order.clusterId)
      const tokenId = newTokenId(parts.random)
      const plan = planJwtSvid(parts.clock.nowSeconds(), parts.config, issuer, order, tokenId)
      const headerPrefix = headers.get(issuer) ?? encodeHeader(issuer)
      headers.set(issuer, headerPrefix)
      const signingInput = headerPrefix + encodePart(encodeClaims(plan))
      const linted = LintedJws.lint(signingInput, {
        headerPrefix,
        trustDomain: parts.config.trustDomain,
        keyNotAfter: issuer.authority.notAfter,
      })
      const row = ledgerRow(plan, order, issuer, caller, tokenId, linted)
      const signature = await signRecorded(parts, issuer, linted, row)
      parts.metrics.counter('server_ca.sign.jwt_svid')
      return {
        spiffeId: order.spiffeId,
        token: `${signingInput}.${toBase64Url(signature)}`,
        issuedAt: plan.issuedAt,
        expiresAt: plan.expiresAt,
      } satisfies IssuedJwtSvid
    },
  }
}

interface JwtSvidPlan {
  readonly audience: readonly string[]
  readonly issuedAt: EpochSeconds
  readonly expiresAt: EpochSeconds
  readonly issuer: string | undefined
  readonly tokenId: string | undefined
  readonly subject: string
}

function planJwtSvid(
  now: EpochSeconds,
  config: JwtIssuanceConfig,
  issuer: JwtIssuer,
  order: JwtSvidOrder,
  tokenId: Uint8Array,
): JwtSvidPlan {
  const { notAfter } = issuer.authority
  if (now >= notAfter) {
    throw new SignetError('unavailable', 'jwt_authority_expired', 'JWT key is expired')
  }
  const ttl = order.ttlSeconds > 0 ? order.ttlSeconds : config.ttlSecondsDefault
  return {
    audience: checkAudience(order.audience),
    issuedAt: now,
    expiresAt: Math.min(now + ttl, notAfter),
    issuer: config.issuer,
    tokenId: order.includeJti ? toBase64Url(tokenId) : undefined,
    subject: order.spiffeId.toString(),
  }
}

/** Go's encoder sorts the names; `JSON.stringify` leaves out what is undefined. */
function encodeClaims(plan: JwtSvidPlan): string {
  return JSON.stringify({
    aud: plan.audience,
    exp: plan.expiresAt,
    iat: plan.issuedAt,
    iss: plan.issuer,
    jti: plan.tokenId,
    sub: plan.subject,
  })
}

/** Empty texts are dropped, as SPIRE drops them; that none is left is internal there. */
function checkAudience(audience: readonly string[]): string[] {
  const named = audience.filter((text) => text !== '')
  if (named.length === 0) {
    const text = 'invalid JWT-SVID audience: cannot be empty'
    throw new SignetError('internal', 'no_audience', text)
  }
  if (named.length > AUDIENCES_MAX) throw bad('too many audiences')
  for (const text of named) {
    if (Buffer.byteLength(text) > AUDIENCE_BYTES_MAX) throw bad('audience is too long')
    // A lone surrogate has no UTF-8: the token would name another audience than was asked for.
    if (!text.isWellFormed()) throw bad('audience is not valid text')
  }
  return named
}

/** The first part of each of an issuer's tokens, its dot included. */
function encodeHeader(issuer: JwtIssuer): string {
  const header = { alg: issuer.alg, kid: issuer.authority.authorityId, typ: 'JWT' }
  return `${encodePart(JSON.stringify(header))}.`
}

function encodePart(json: string): string {
  return Buffer.from(json).toString('base64url')
}

/** A version 4 UUID in bytes: the ledger's serial, and the `jti` of tokens that carry one. */
function newTokenId(random: Random): Uint8Array {
  const bytes = random.bytes(TOKEN_ID_BYTES)
  bytes[6] = (bytes[6]! & 0x0f) | 0x40
  bytes[8] = (bytes[8]! & 0x3f) | 0x80
  return bytes
}

function ledgerRow(
  plan: JwtSvidPlan,
  order: JwtSvidOrder,
  issuer: JwtIssuer,
  caller: IssuanceCaller,
  tokenId: Uint8Array,
  linted: LintedJws,
): LedgerRow {
  return {
    kind: 'jwt',
    clusterId: order.clusterId,
    authorityId: issuer.authority.id,
    serialNumber: tokenId,
    spiffeId: plan.subject,
    entryId: order.entryId,
    callerId: caller.callerId,
    requestId: caller.requestId,
    notBefore: plan.issuedAt,
    notAfter: plan.expiresAt,
    publicKeySha256: NO_BYTES,
    tbsSha256: linted.digest,
  }
}

/** The signature in JWS form, once the row is durable (I3). */
async function signRecorded(
  { signer, ledger }: JwtIssuanceParts,
  issuer: JwtIssuer,
  linted: LintedJws,
  row: LedgerRow,
): Promise<Uint8Array> {
  const [recorded, signed] = await Promise.allSettled([
    ledger.record([row]),
    signer.sign(singleBatch(issuer, linted)),
  ])
  if (recorded.status === 'rejected') throw recorded.reason
  const signature = signed.status === 'fulfilled' ? signed.value.signatures[0] : undefined
  if (signed.status === 'rejected' || signed.value.status[0] !== ITEM_STATUS.ok || !signature) {
    ledger.recordFailure([row], 'signing failed')
    const cause = signed.status === 'rejected' ? signed.reason : undefined
    throw new SignetError('internal', 'jwt_signing_failed', 'failed to sign JWT SVID', { cause })
  }
  if (issuer.alg === 'RS256') return signature
  const jws = derToP1363(signature, FIELD_BYTES[issuer.alg])
  assert(jws.length === 2 * FIELD_BYTES[issuer.alg], 'a JWS signature has the size of its curve')
  return jws
}

function singleBatch(issuer: JwtIssuer, linted: LintedJws) {
  const items = new Uint32Array(ITEM_WORDS)
  items[ITEM.keyHandle] = issuer.keyHandle
  items[ITEM.messageLength] = linted.bytes.length
  return { requests: NO_BYTES, messages: linted.bytes, items, digests: linted.digest }
}

function bad(message: string): SignetError {
  return new SignetError('invalid_argument', 'bad_audience', message)
}
