/**
 * Plans the deployment's own CA certificates: the root and the clusters' intermediates
 * (api.md §8.2, design.md §2). Pure, like `svid-plan.ts`.
 */
import { toDecimal } from '../../base/bytes.ts'
import { NOT_BEFORE_BACKDATE_SECONDS } from '../../base/limits.ts'
import type { EpochSeconds, Random } from '../../base/ports.ts'
import type { TrustDomain } from '../../spiffe/trust-domain.ts'
import { encodeName, type NameFields } from '../../x509/name.ts'
import type { SignatureAlgorithm } from '../../x509/oid.ts'
import { subjectKeyId } from '../../x509/spki.ts'
import type { CertificateTemplate, Validity } from '../../x509/template.ts'
import type { IssuerFacts } from './issuer-facts.ts'
import { PROFILES, type Profile } from './profiles.ts'
import { newSerialNumber } from './serial-number.ts'
import { planValidity } from './svid-plan.ts'

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
  readonly ttlSeconds: number
}

interface Ports {
  readonly now: EpochSeconds
  readonly random: Random
}

/** Self-signed; `signatureAlgorithm` is its own key's. */
export function planRoot(
  ports: Ports,
  request: CaRequest,
  signatureAlgorithm: SignatureAlgorithm,
): CertificateTemplate {
  const validity = {
    notBefore: ports.now - NOT_BEFORE_BACKDATE_SECONDS,
    notAfter: ports.now + request.ttlSeconds,
  }
  const serialNumber = newSerialNumber(ports.random)
  const subject = caName(request.subject, serialNumber)
  const fields = caFields(PROFILES.root, request, serialNumber, validity)
  return { ...fields, signatureAlgorithm, issuer: subject, subject }
}

/** `pathLength` undefined is for the `nested` cluster, which signs downstream CAs. */
export function planIntermediate(
  ports: Ports,
  issuer: Pick<IssuerFacts, 'name' | 'subjectKeyId' | 'validity' | 'signatureAlgorithm'>,
  request: CaRequest,
  profile: Profile = PROFILES.intermediate,
): CertificateTemplate {
  const serialNumber = newSerialNumber(ports.random)
  const validity = planValidity(ports.now, issuer.validity, request.ttlSeconds)
  return {
    ...caFields(profile, request, serialNumber, validity),
    signatureAlgorithm: issuer.signatureAlgorithm,
    issuer: issuer.name,
    subject: caName(request.subject, serialNumber),
    authorityKeyId: issuer.subjectKeyId,
  }
}

function caFields(
  profile: Profile,
  request: CaRequest,
  serialNumber: Uint8Array,
  validity: Validity,
) {
  return {
    serialNumber,
    validity,
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
function caName(subject: CaSubject, serialNumber: Uint8Array): Uint8Array {
  const fields: NameFields = {
    country: subject.country,
    organization: subject.organization,
    serialNumber: [toDecimal(serialNumber)],
  }
  return encodeName(
    subject.commonName === '' ? fields : { ...fields, commonName: [subject.commonName] },
  )
}
