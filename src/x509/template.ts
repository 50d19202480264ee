/**
 * The general TBSCertificate encoder (RFC 5280 §4.1), for every profile. Extensions come in the
 * order of Go's x509.CreateCertificate: keyUsage, extKeyUsage, basicConstraints, SKI, AKI, SAN.
 *
 * The hot path fills a prebuilt mould instead (`ca/profile/mould.ts`); a property test holds the
 * two equal byte for byte.
 */
import type { EpochSeconds } from '../base/ports.ts'
import { encodeOctetBits, encodeSmallUnsigned, encodeUnsigned, sequence, tlv } from './der.ts'
import {
  encodeAuthorityKeyId,
  encodeBasicConstraints,
  encodeExtKeyUsage,
  encodeKeyUsage,
  encodeSubjectAltName,
  encodeSubjectKeyId,
} from './extensions.ts'
import { isEmptyName } from './name.ts'
import {
  type ExtKeyUsage,
  type KeyUsage,
  SIGNATURE_ALGORITHMS,
  type SignatureAlgorithm,
} from './oid.ts'
import { encodeTime } from './time.ts'

export interface Validity {
  readonly notBefore: EpochSeconds
  readonly notAfter: EpochSeconds
}

export interface CertificateTemplate {
  /** Big-endian magnitude. */
  readonly serialNumber: Uint8Array
  /** The issuer's. */
  readonly signatureAlgorithm: SignatureAlgorithm
  /** DER Name, the issuing certificate's subject as it stands there. */
  readonly issuer: Uint8Array
  readonly validity: Validity
  /** DER Name. */
  readonly subject: Uint8Array
  /** DER. */
  readonly subjectPublicKeyInfo: Uint8Array
  readonly isCa: boolean
  /** For CAs: how many CA certificates may follow; absent means any number. */
  readonly pathLength?: number
  readonly keyUsage: readonly KeyUsage[]
  readonly extKeyUsage: readonly ExtKeyUsage[]
  readonly uriNames: readonly string[]
  readonly dnsNames: readonly string[]
  readonly subjectKeyId: Uint8Array
  /** Absent on self-signed roots. */
  readonly authorityKeyId?: Uint8Array
}

export function encodeTbsCertificate(template: CertificateTemplate): Uint8Array {
  return sequence(
    tlv(0xa0, encodeSmallUnsigned(2)),
    encodeUnsigned(template.serialNumber),
    SIGNATURE_ALGORITHMS[template.signatureAlgorithm].identifier,
    template.issuer,
    sequence(encodeTime(template.validity.notBefore), encodeTime(template.validity.notAfter)),
    template.subject,
    template.subjectPublicKeyInfo,
    tlv(0xa3, sequence(...encodeExtensions(template))),
  )
}

/** The certificate from its signed part. */
export function encodeCertificate(
  tbs: Uint8Array,
  algorithm: SignatureAlgorithm,
  signature: Uint8Array,
): Uint8Array {
  const { identifier } = SIGNATURE_ALGORITHMS[algorithm]
  return sequence(tbs, identifier, encodeOctetBits(signature))
}

function encodeExtensions(template: CertificateTemplate): Uint8Array[] {
  const extensions = [encodeKeyUsage(template.keyUsage)]
  if (template.extKeyUsage.length > 0) extensions.push(encodeExtKeyUsage(template.extKeyUsage))
  extensions.push(encodeBasicConstraints(template.isCa, template.pathLength))
  extensions.push(encodeSubjectKeyId(template.subjectKeyId))
  if (template.authorityKeyId) extensions.push(encodeAuthorityKeyId(template.authorityKeyId))
  if (template.uriNames.length + template.dnsNames.length > 0) {
    extensions.push(encodeSubjectAltName(template, isEmptyName(template.subject)))
  }
  return extensions
}
