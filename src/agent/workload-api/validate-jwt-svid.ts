/**
 * ValidateJWTSVID (api.md §12.2): a token for an audience against the bundles the caller may use.
 * Claims of foreign trust domains are cut down to what the configuration allows.
 */
import type { KeyObject } from 'node:crypto'
import type { Clock } from '../../base/ports.ts'
import { importSpki } from '../../spiffe/jwks.ts'
import { validateJwtSvid } from '../../spiffe/jwt-svid.ts'
import type { TrustDomain } from '../../spiffe/trust-domain.ts'
import type { ValidateJWTSVIDResponse } from '../../wire/gen/workload.ts'
import type { TrustBundle } from '../svid-cache/trust-bundles.ts'

export interface JwtSvidValidator {
  /** Throws invalid_argument with the reason. */
  validate(
    token: string,
    audience: string,
    bundles: readonly TrustBundle[],
  ): ValidateJWTSVIDResponse
}

/** Claims every relying party needs, whatever the configuration says. */
const FOREIGN_CLAIMS_ALWAYS = ['sub', 'exp', 'aud']

export function createJwtSvidValidator(
  clock: Clock,
  trustDomain: TrustDomain,
  allowedForeignClaims: readonly string[],
): JwtSvidValidator {
  const allowed = new Set([...FOREIGN_CLAIMS_ALWAYS, ...allowedForeignClaims])
  const keysOf = keyImporter()
  return {
    validate(token, audience, bundles) {
      const byTrustDomain = new Map(bundles.map((bundle) => [bundle.trustDomain, bundle]))
      const { spiffeId, claims } = validateJwtSvid(withoutLineEnds(token), {
        audience: [audience],
        now: clock.nowSeconds(),
        keysOf(name) {
          const bundle = byTrustDomain.get(name)
          return bundle === undefined ? undefined : keysOf(bundle)
        },
      })
      const own = spiffeId.trustDomain.equals(trustDomain)
      const visible = Object.entries(claims).filter(([name]) => own || allowed.has(name))
      return {
        spiffeId: spiffeId.toString(),
        claims: Object.fromEntries(visible.map(([name, value]) => [name, toStructValue(value)])),
      }
    },
  }
}

/**
 * A token read from a file or a pipe has a line end that is no part of it. Differs from SPIRE,
 * which passes over line ends within the token too: two readers could read those differently.
 */
function withoutLineEnds(token: string): string {
  let start = 0
  let end = token.length
  while (start < end && isLineEnd(token[start]!)) start++
  while (end > start && isLineEnd(token[end - 1]!)) end--
  return token.slice(start, end)
}

function isLineEnd(char: string): boolean {
  return char === '\n' || char === '\r'
}

/** Keys are imported once per bundle, which is immutable. */
function keyImporter(): (bundle: TrustBundle) => ReadonlyMap<string, KeyObject> {
  const imported = new WeakMap<TrustBundle, ReadonlyMap<string, KeyObject>>()
  return (bundle) => {
    const known = imported.get(bundle)
    if (known !== undefined) return known
    const keys = new Map(
      bundle.jwtAuthorities.map(({ keyId, publicKey }) => [keyId, importSpki(publicKey)]),
    )
    imported.set(bundle, keys)
    return keys
  }
}

/** A Struct knows doubles only. */
function toStructValue(value: unknown): unknown {
  if (typeof value === 'bigint') return Number(value)
  if (Array.isArray(value)) return value.map(toStructValue)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([name, one]) => [name, toStructValue(one)]))
}
