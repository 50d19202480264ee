/**
 * Plans one X509-SVID or downstream CA: an authorised order in, the fields of one certificate out.
 *
 * Implements SPIFFE X509-SVID §2 and §4 within RFC 5280 §4. Pure: it holds no key, does no I/O and
 * meets time and randomness only through its parameters, so fixing both fixes every field.
 */
import { assert } from '../../base/assert.ts'
import { SignetError } from '../../base/error.ts'
import {
  DNS_NAME_BYTES_MAX,
  NOT_BEFORE_BACKDATE_SECONDS,
  SVID_DNS_NAMES_BYTES_MAX,
} from '../../base/limits.ts'
import type { EpochSeconds, Random } from '../../base/ports.ts'
import { isReservedPath, type SpiffeId } from '../../spiffe/spiffe-id.ts'
import type { TrustDomain } from '../../spiffe/trust-domain.ts'
import { encodeName, isEmptyName, nameFields, normalizeName } from '../../x509/name.ts'
import { publicKeySha256 } from '../../x509/spki.ts'
import type { CertificateTemplate, Validity } from '../../x509/template.ts'
import type { IssuerFacts } from './issuer-facts.ts'
import type { Profile } from './profiles.ts'
import { newSerialNumber } from './serial-number.ts'

/** What stays the same for all plans of one (issuer, profile). */
export interface PlanContext {
  readonly trustDomain: TrustDomain
  readonly profile: Profile
  readonly issuer: IssuerFacts
  /** For orders that ask for none. */
  readonly ttlSecondsDefault: number
  /** DER Name of a certificate without names of its own. */
  readonly subject: Uint8Array
}

export interface SvidRequest {
  readonly spiffeId: SpiffeId
  /** DER, from the CSR; all that is believed of it. */
  readonly subjectPublicKeyInfo: Uint8Array
  readonly dnsNames: readonly string[]
  /** Zero or less asks for the default: SPIRE clients send 0 for "no preference". */
  readonly ttlSeconds: number
  /** DER Name instead of the default one. */
  readonly subject?: Uint8Array
}

export interface SvidPlan {
  readonly serialNumber: Uint8Array
  readonly validity: Validity
  readonly subject: Uint8Array
  readonly subjectPublicKeyInfo: Uint8Array
  /** Its leftmost 20 bytes are the key identifier. */
  readonly publicKeySha256: Uint8Array
  readonly spiffeId: string
  readonly dnsNames: readonly string[]
}

export const KEY_ID_BYTES = 20

const SVID_SUBJECT = { country: ['US'], organization: ['SPIRE'] } as const

export function planContext(
  trustDomain: TrustDomain,
  profile: Profile,
  issuer: IssuerFacts,
  ttlSecondsDefault: number,
): PlanContext {
  const subject = profile.isCa ? downstreamSubject(issuer) : encodeName(SVID_SUBJECT)
  return { trustDomain, profile, issuer, ttlSecondsDefault, subject }
}

/**
 * Throws unavailable `x509_authority_expired`, permission_denied `id_not_allowed`,
 * invalid_argument `bad_dns_name`.
 */
export function planX509Svid(
  context: PlanContext,
  ports: { readonly now: EpochSeconds; readonly random: Random },
  request: SvidRequest,
): SvidPlan {
  checkId(context, request.spiffeId)
  checkDnsNames(context.profile, request.dnsNames)
  return {
    serialNumber: newSerialNumber(ports.random),
    validity: planValidity(
      ports.now,
      context.issuer.validity,
      request.ttlSeconds > 0 ? request.ttlSeconds : context.ttlSecondsDefault,
    ),
    subject: planSubject(context, request),
    subjectPublicKeyInfo: request.subjectPublicKeyInfo,
    publicKeySha256: publicKeySha256(request.subjectPublicKeyInfo),
    spiffeId: request.spiffeId.toString(),
    dnsNames: request.dnsNames,
  }
}

/** The same certificate for the general encoder: profile loading and tests go through it. */
export function templateOf(context: PlanContext, plan: SvidPlan): CertificateTemplate {
  const { profile, issuer } = context
  return {
    serialNumber: plan.serialNumber,
    signatureAlgorithm: issuer.signatureAlgorithm,
    issuer: issuer.name,
    validity: plan.validity,
    subject: plan.subject,
    subjectPublicKeyInfo: plan.subjectPublicKeyInfo,
    isCa: profile.isCa,
    ...(profile.pathLength === undefined ? {} : { pathLength: profile.pathLength }),
    keyUsage: profile.keyUsage,
    extKeyUsage: profile.extKeyUsage,
    uriNames: [plan.spiffeId],
    dnsNames: plan.dnsNames,
    subjectKeyId: plan.publicKeySha256.subarray(0, KEY_ID_BYTES),
    authorityKeyId: issuer.subjectKeyId,
  }
}

function planValidity(now: EpochSeconds, issuer: Validity, ttlSeconds: number): Validity {
  assert(Number.isSafeInteger(ttlSeconds) && ttlSeconds > 0, 'a lifetime is a positive integer')
  if (now < issuer.notBefore || now >= issuer.notAfter) {
    throw new SignetError('unavailable', 'x509_authority_expired', 'X.509 authority is not usable')
  }
  // Capped, not refused: an agent that renews late in an authority's life must still get an
  // identity, and rotation replaces the authority before the cap starts to hurt.
  const notAfter = Math.min(now + ttlSeconds, issuer.notAfter)
  const notBefore = Math.max(now - NOT_BEFORE_BACKDATE_SECONDS, issuer.notBefore)
  assert(notBefore < notAfter, 'a certificate has a non-empty validity')
  return { notBefore, notAfter }
}

/**
 * Differs from SPIRE: the issuer bounds the class of ID, so that a cluster's key can make neither a
 * server nor an agent (design.md §2). The linter checks the same on the encoded bytes.
 */
function checkId(context: PlanContext, id: SpiffeId): void {
  const { profile, issuer, trustDomain } = context
  const reserved = isReservedPath(id.path)
  const isClass =
    profile.idClass === 'trust_domain'
      ? id.path === ''
      : id.path !== '' && reserved === (profile.idClass === 'reserved')
  const byIssuer = profile.isCa
    ? issuer.pathLength === undefined || issuer.pathLength > 0
    : issuer.leafIdClass === profile.idClass
  if (!isClass || !byIssuer || !id.trustDomain.equals(trustDomain)) {
    throw new SignetError(
      'permission_denied',
      'id_not_allowed',
      `SPIFFE ID ${JSON.stringify(id.toString())} is not allowed for this issuer`,
    )
  }
}

/** Entries were checked when they were written; what the encoder relies on is checked again. */
function checkDnsNames(profile: Profile, names: readonly string[]): void {
  if (names.length === 0) return
  assert(profile.allowsDnsNames, 'only workloads have DNS names')
  let total = 0
  for (const name of names) {
    if (name.length > DNS_NAME_BYTES_MAX || !/^[\x21-\x7e]+$/.test(name)) {
      throw new SignetError('invalid_argument', 'bad_dns_name', 'invalid DNS name')
    }
    total += name.length
  }
  if (total > SVID_DNS_NAMES_BYTES_MAX) {
    throw new SignetError('invalid_argument', 'too_many_dns_names', 'too many DNS names')
  }
}

/** api.md §8.2: the first DNS name is the common name, also over a subject from a CSR. */
function planSubject(context: PlanContext, request: SvidRequest): Uint8Array {
  const first = request.dnsNames[0]
  if (request.subject && !isEmptyName(request.subject)) {
    const subject = normalizeName(request.subject, first)
    // Attributes we do not carry over may have been all there was.
    if (!isEmptyName(subject)) return subject
  }
  if (first === undefined) return context.subject
  return encodeName({ ...SVID_SUBJECT, commonName: [first] })
}

/** api.md §8.2: the parent's subject, its organizational unit replaced. */
function downstreamSubject(issuer: IssuerFacts): Uint8Array {
  const organizationalUnit = [`DOWNSTREAM-${issuer.chainLength}`]
  return encodeName({ ...nameFields(issuer.name), organizationalUnit })
}
