/**
 * Plans the deployment's own CA certificates: the root and the clusters' intermediates
 * (api.md §8.2, design.md §2). Pure, like `svid-plan.ts`.
 */
import { toDecimal } from '../../base/bytes.ts'
import type { Random } from '../../base/ports.ts'
import type { TrustDomain } from '../../spiffe/trust-domain.ts'
import { encodeName, type NameFields } from '../../x509/name.ts'
import type { SignatureAlgorithm } from '../../x509/oid.ts'
import { subjectKeyId } from '../../x509/spki.ts'
import type { CertificateTemplate, Validity } from '../../x509/template.ts'
import type { IssuerFacts } from './issuer-facts.ts'
import { PROFILES, type Profile } from './profiles.ts'
import { newSerialNumber } from './serial-number.ts'

/** `ca_subject` of the configuration. */
export interface CaSubject {
  readonly country: readonly string[]
  readonly organization: readonly string[]
  readonly commonName: string
}

export const DEFAULT_CA_SUBJECT: CaSubject = {
  country: ['US'],
  organization: ['SPIFFE'],
  commonName: '',
}

export interface CaRequest {
  readonly trustDomain: TrustDomain
  readonly subject: CaSubject
  /** DER SubjectPublicKeyInfo of the new authority. */
  readonly publicKey: Uint8Array
  /** As planned by rotation, backdate included; the linter holds it within the issuer's. */
  readonly validity: Validity
  /** An intermediate's cluster, named in its subject: the rule is in wire/transport/channel.ts. */
  readonly cluster?: string
}

/** Self-signed; `signatureAlgorithm` is its own key's. */
export function planRoot(
  random: Random,
  request: CaRequest,
  signatureAlgorithm: SignatureAlgorithm,
): CertificateTemplate {
  const serialNumber = newSerialNumber(random)
  const subject = caName(request.subject, serialNumber)
  const fields = caFields(PROFILES.root, request, serialNumber)
  return { ...fields, signatureAlgorithm, issuer: subject, subject }
}

/** Another profile (no path length) is for the `nested` cluster, which signs downstream CAs. */
export function planIntermediate(
  random: Random,
  issuer: Pick<IssuerFacts, 'name' | 'subjectKeyId' | 'validity' | 'signatureAlgorithm'>,
  request: CaRequest,
  profile: Profile = PROFILES.intermediate,
): CertificateTemplate {
  const serialNumber = newSerialNumber(random)
  return {
    ...caFields(profile, request, serialNumber),
    signatureAlgorithm: issuer.signatureAlgorithm,
    issuer: issuer.name,
    subject: caName(request.subject, serialNumber, request.cluster),
    authorityKeyId: issuer.subjectKeyId,
  }
}

function caFields(profile: Profile, request: CaRequest, serialNumber: Uint8Array) {
  return {
    serialNumber,
    validity: request.validity,
    subjectPublicKeyInfo: request.publicKey,
    isCa: true,
    ...(profile.pathLength === undefined ? {} : { pathLength: profile.pathLength }),
    keyUsage: profile.keyUsage,
    extKeyUsage: profile.extKeyUsage,
    uriNames: [request.trustDomain.id],
    dnsNames: [],
    subjectKeyId: subjectKeyId(request.publicKey),
  }
}

/**
 * The serial number in the subject makes the name unique per key: two CAs of one name and different
 * keys confuse path building and CRL lookup (SPIRE does the same for its CAs).
 */
function caName(subject: CaSubject, serialNumber: Uint8Array, cluster?: string): Uint8Array {
  const fields: NameFields = {
    country: subject.country,
    organization: subject.organization,
    organizationalUnit: cluster === undefined ? [] : [`cluster:${cluster}`],
    serialNumber: [toDecimal(serialNumber)],
  }
  return encodeName(
    subject.commonName === '' ? fields : { ...fields, commonName: [subject.commonName] },
  )
}
