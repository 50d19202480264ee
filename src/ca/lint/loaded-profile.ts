/**
 * A profile loaded for an issuer: its mould, and the linter's reference, which was cut from a
 * sample that this very mould made and that passed all rules. A profile that would make bad
 * certificates cannot be loaded, so nothing can be issued with it.
 */
import type { EpochSeconds } from '../../base/ports.ts'
import { encodeName } from '../../x509/name.ts'
import { publicKeySha256 } from '../../x509/spki.ts'
import { createMould, type Mould } from '../profile/mould.ts'
import type { PlanContext, SvidPlan } from '../profile/svid-plan.ts'
import { KEY_ID_BYTES } from '../profile/svid-plan.ts'
import { lintFully } from './full-rules.ts'
import { lintSvid, referenceFrom, type SvidReference } from './svid-rules.ts'

export interface LoadedProfile {
  readonly context: PlanContext
  readonly mould: Mould
  readonly reference: SvidReference
}

/** P-256's base point as a key: nobody's, and never signed. */
const SAMPLE_KEY = new Uint8Array(
  Buffer.from(
    '3059301306072a8648ce3d020106082a8648ce3d03010703420004' +
      '6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296' +
      '4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5',
    'hex',
  ),
)

/**
 * Throws internal `lint_failed` naming the rule. `mould` is a parameter for the tests of the
 * linter.
 */
export function loadProfile(
  context: PlanContext,
  mould: Mould = createMould(context),
): LoadedProfile {
  const { trustDomain, profile, issuer } = context
  const reference = lintSample(context, mould, [])
  if (profile.allowsDnsNames) lintSample(context, mould, ['a.example.org', 'b.example.org'])
  return {
    context,
    mould,
    reference: referenceFrom(reference, {
      idClass: profile.isCa ? 'trust_domain' : issuer.leafIdClass,
      trustDomainId: trustDomain.id,
      issuerValidity: issuer.validity,
    }),
  }
}

/** Lints one planned and encoded certificate. */
export function lintPlanned(
  loaded: LoadedProfile,
  bytes: Buffer,
  range: { readonly start: number; readonly end: number },
  plan: SvidPlan,
  ordered: { readonly now: EpochSeconds; readonly ttlSeconds: number },
): void {
  const { ttlSeconds, now } = ordered
  const ttlSecondsMax = ttlSeconds > 0 ? ttlSeconds : loaded.context.ttlSecondsDefault
  lintSvid(loaded.reference, bytes, range.start, range.end, {
    now,
    ttlSecondsMax,
    spiffeId: plan.spiffeId,
    dnsNames: plan.dnsNames,
    subject: plan.subject,
    subjectPublicKeyInfo: plan.subjectPublicKeyInfo,
    publicKeySha256: plan.publicKeySha256,
  })
}

function lintSample(context: PlanContext, mould: Mould, dnsNames: readonly string[]): Uint8Array {
  const { trustDomain, profile, issuer } = context
  const path = { reserved: '/spire/sample', workload: '/sample', trust_domain: '' }
  const first = dnsNames[0]
  const plan: SvidPlan = {
    serialNumber: new Uint8Array(16).fill(0x55),
    validity: issuer.validity,
    subject: first === undefined ? context.subject : encodeName({ commonName: [first] }),
    subjectPublicKeyInfo: SAMPLE_KEY,
    publicKeySha256: publicKeySha256(SAMPLE_KEY),
    spiffeId: `${trustDomain.id}${path[profile.idClass]}`,
    dnsNames,
  }
  const arena = Buffer.alloc(mould.sizeMax(plan) + KEY_ID_BYTES)
  const der = new Uint8Array(arena.subarray(0, mould.write(plan, arena, 0)))
  lintFully(der, {
    trustDomain,
    profile,
    signatureAlgorithm: issuer.signatureAlgorithm,
    issuer,
    leafIdClass: issuer.leafIdClass,
  })
  return der
}
