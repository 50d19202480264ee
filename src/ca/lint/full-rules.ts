/**
 * All rules for one certificate, read from its unsigned DER: run once when a profile is loaded
 * for an issuer, and on every CA certificate. Each rule names its source and is proved by a
 * fixture with just that fault (`test/conformance/ca/`).
 *
 * Reads bytes only; what the planner meant is not asked.
 */
import { bytesEqual } from '../../base/bytes.ts'
import type { TrustDomain } from '../../spiffe/trust-domain.ts'
import { parseTbsCertificate, type TbsCertificate } from '../../x509/certificate.ts'
import { derCursor, enter, expectEnd, peekTag, readElement, readOid, TAG } from '../../x509/der.ts'
import { isEmptyName } from '../../x509/name.ts'
import { EXT_KEY_USAGES, OID, SIGNATURE_ALGORITHMS } from '../../x509/oid.ts'
import { subjectKeyId } from '../../x509/spki.ts'
import { type CertificateTemplate, encodeTbsCertificate } from '../../x509/template.ts'
import type { IssuerFacts } from '../profile/issuer-facts.ts'
import type { IdClass, Profile } from '../profile/profiles.ts'
import { lintFailure } from './lint-error.ts'

export interface LintExpectation {
  readonly trustDomain: TrustDomain
  readonly profile: Profile
  readonly signatureAlgorithm: IssuerFacts['signatureAlgorithm']
  /** Undefined for a self-signed root. */
  readonly issuer:
    | Pick<IssuerFacts, 'name' | 'subjectKeyId' | 'validity' | 'pathLength'>
    | undefined
  /** Which leaves the issuer may sign; CAs are bounded by its path length instead. */
  readonly leafIdClass: IssuerFacts['leafIdClass'] | undefined
}

interface Examined {
  readonly tbs: TbsCertificate
  readonly der: Uint8Array
  /** OIDs in order, and which of them are critical. */
  readonly extensions: readonly string[]
  readonly critical: ReadonlySet<string>
  readonly expected: LintExpectation
}

interface Rule {
  readonly name: string
  readonly source: string
  holds(examined: Examined): boolean
}

export const FULL_RULES: readonly Rule[] = [
  {
    name: 'version_is_3',
    source: 'RFC 5280 §4.1.2.1',
    holds: ({ tbs }) => tbs.version === 3,
  },
  {
    name: 'serial_is_128_bits_with_leading_01',
    source: 'RFC 5280 §4.1.2.2; reliability.md I1',
    holds: ({ tbs }) => tbs.serialNumber.length === 16 && tbs.serialNumber[0]! >> 6 === 1,
  },
  {
    name: 'signature_algorithm_is_the_issuer_keys',
    source: 'api.md §8.1',
    holds: ({ tbs, expected }) =>
      bytesEqual(tbs.algorithm, SIGNATURE_ALGORITHMS[expected.signatureAlgorithm].identifier),
  },
  {
    name: 'issuer_is_the_issuers_subject',
    source: 'RFC 5280 §4.1.2.4',
    holds: ({ tbs, expected }) =>
      !isEmptyName(tbs.issuer) && bytesEqual(tbs.issuer, expected.issuer?.name ?? tbs.subject),
  },
  {
    name: 'subject_is_not_empty',
    source: 'RFC 5280 §4.1.2.6; SPIRE #1387',
    holds: ({ tbs }) => !isEmptyName(tbs.subject),
  },
  {
    name: 'ca_subject_differs_from_the_issuers',
    source: 'RFC 5280 §3.2: self-issued means something else',
    holds: ({ tbs, expected }) =>
      expected.issuer === undefined || !bytesEqual(tbs.subject, expected.issuer.name),
  },
  {
    name: 'validity_is_not_empty',
    source: 'RFC 5280 §4.1.2.5',
    holds: ({ tbs }) => tbs.notBefore < tbs.notAfter,
  },
  {
    name: 'validity_is_within_the_issuers',
    source: 'api.md §8.1',
    holds: ({ tbs, expected: { issuer } }) =>
      issuer === undefined ||
      (tbs.notBefore >= issuer.validity.notBefore && tbs.notAfter <= issuer.validity.notAfter),
  },
  {
    name: 'basic_constraints_are_critical_and_the_profiles',
    source: 'RFC 5280 §4.2.1.9; X509-SVID §4.1',
    holds: ({ tbs, critical, expected: { profile } }) =>
      critical.has(OID.basicConstraints) &&
      tbs.isCa === profile.isCa &&
      tbs.pathLength === profile.pathLength,
  },
  {
    name: 'issuer_may_sign_a_ca',
    source: 'RFC 5280 §4.2.1.9',
    holds: ({ tbs, expected: { issuer } }) =>
      !tbs.isCa || issuer === undefined || issuer.pathLength !== 0,
  },
  {
    name: 'key_usage_is_critical_and_the_profiles',
    source: 'RFC 5280 §4.2.1.3; X509-SVID §4.3',
    holds: ({ tbs, critical, expected: { profile } }) =>
      critical.has(OID.keyUsage) && sameSet(tbs.keyUsage ?? new Set(), profile.keyUsage),
  },
  {
    name: 'ext_key_usage_is_the_profiles',
    source: 'X509-SVID §4.4',
    holds: ({ tbs, critical, expected: { profile } }) =>
      !critical.has(OID.extKeyUsage) &&
      sameSet(
        new Set(tbs.extKeyUsage),
        profile.extKeyUsage.map((usage) => EXT_KEY_USAGES[usage]),
      ),
  },
  {
    name: 'subject_key_identifier_is_the_keys',
    source: 'RFC 5280 §4.2.1.2; RFC 7093 §2',
    holds: ({ tbs, critical }) =>
      !critical.has(OID.subjectKeyId) && bytesEqual(tbs.subjectKeyId, subjectKeyId(tbs.publicKey)),
  },
  {
    name: 'authority_key_identifier_is_the_issuers',
    source: 'RFC 5280 §4.2.1.1',
    holds: ({ tbs, critical, expected: { issuer } }) =>
      !critical.has(OID.authorityKeyId) &&
      bytesEqual(tbs.authorityKeyId, issuer?.subjectKeyId ?? new Uint8Array()),
  },
  {
    name: 'one_uri_name',
    source: 'X509-SVID §2',
    holds: ({ tbs }) => tbs.uriNames.length === 1,
  },
  {
    name: 'uri_name_is_of_the_profiles_class',
    source: 'X509-SVID §3; design.md §2',
    holds: ({ tbs, expected: { trustDomain, profile } }) =>
      isOfClass(tbs.uriNames[0] ?? '', trustDomain.id, profile.idClass),
  },
  {
    name: 'issuer_may_sign_the_class',
    source: 'design.md §2',
    holds: ({ expected: { profile, leafIdClass } }) =>
      profile.isCa || profile.idClass === leafIdClass,
  },
  {
    name: 'dns_names_by_the_profile',
    source: 'api.md §8.2',
    holds: ({ tbs, expected }) => expected.profile.allowsDnsNames || tbs.dnsNames.length === 0,
  },
  {
    name: 'alternative_name_is_not_critical',
    source: 'RFC 5280 §4.2.1.6: the subject is not empty',
    holds: ({ critical }) => !critical.has(OID.subjectAltName),
  },
  {
    name: 'extensions_are_the_profiles',
    source: 'api.md §8.1',
    holds: ({ extensions, expected: { profile, issuer } }) =>
      extensions.join() ===
      [
        OID.keyUsage,
        ...(profile.extKeyUsage.length > 0 ? [OID.extKeyUsage] : []),
        OID.basicConstraints,
        OID.subjectKeyId,
        ...(issuer ? [OID.authorityKeyId] : []),
        OID.subjectAltName,
      ].join(),
  },
  {
    // Catches what no rule above names: other kinds of names, unique identifiers, odd time forms.
    name: 'encodes_again_to_the_same_bytes',
    source: 'X.690 §10: DER is one encoding',
    holds: ({ tbs, der, expected }) =>
      bytesEqual(encodeTbsCertificate(templateFrom(tbs, expected)), der),
  },
]

/** Throws internal `lint_failed` with the first rule broken, or malformed_der. */
export function lintFully(der: Uint8Array, expected: LintExpectation): void {
  const examined = { ...examine(der), der, expected }
  for (const rule of FULL_RULES) if (!rule.holds(examined)) throw lintFailure(rule.name)
}

/** Text in, text compared: `id` comes from the certificate. */
export function isOfClass(id: string, trustDomainId: string, idClass: IdClass): boolean {
  if (idClass === 'trust_domain') return id === trustDomainId
  if (!id.startsWith(trustDomainId) || id.charCodeAt(trustDomainId.length) !== 0x2f) return false
  const reservedStart = trustDomainId.length + 1
  const reserved =
    id.startsWith('spire', reservedStart) &&
    (id.length === reservedStart + 5 || id.charCodeAt(reservedStart + 5) === 0x2f)
  return id.length > reservedStart && reserved === (idClass === 'reserved')
}

function examine(der: Uint8Array) {
  const tbs = parseTbsCertificate(der)
  const extensions: string[] = []
  const critical = new Set<string>()
  if (tbs.extensions.length > 0) {
    const list = enter(enter(derCursor(tbs.extensions), 0xa3), TAG.sequence)
    while (list.pos < list.end) {
      const item = enter(list, TAG.sequence)
      const oid = readOid(item)
      extensions.push(oid)
      if (peekTag(item) === TAG.boolean) critical.add(oid)
      while (item.pos < item.end) readElement(item)
      expectEnd(item)
    }
  }
  return { tbs, extensions, critical }
}

function templateFrom(tbs: TbsCertificate, expected: LintExpectation): CertificateTemplate {
  const { profile } = expected
  return {
    serialNumber: tbs.serialNumber,
    signatureAlgorithm: expected.signatureAlgorithm,
    issuer: tbs.issuer,
    validity: { notBefore: tbs.notBefore, notAfter: tbs.notAfter },
    subject: tbs.subject,
    subjectPublicKeyInfo: tbs.publicKey,
    isCa: tbs.isCa,
    ...(tbs.pathLength === undefined ? {} : { pathLength: tbs.pathLength }),
    keyUsage: profile.keyUsage,
    extKeyUsage: profile.extKeyUsage,
    uriNames: tbs.uriNames,
    dnsNames: tbs.dnsNames,
    subjectKeyId: tbs.subjectKeyId,
    ...(tbs.authorityKeyId.length === 0 ? {} : { authorityKeyId: tbs.authorityKeyId }),
  }
}

function sameSet(set: ReadonlySet<string>, list: readonly string[]): boolean {
  return set.size === list.length && list.every((item) => set.has(item))
}
