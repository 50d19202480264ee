/** What profiles need to know of an issuer, read once from its certificate. */
import { assert } from '../../base/assert.ts'
import { bytesEqual } from '../../base/bytes.ts'
import { parseCertificate } from '../../x509/certificate.ts'
import type { SignatureAlgorithm } from '../../x509/oid.ts'
import type { Validity } from '../../x509/template.ts'
import { CLUSTER_CONTROL } from '../authority/authority.ts'
import type { X509Issuer } from '../issuer-source.ts'
import type { SigningKeyType } from '../signer/port.ts'

export interface IssuerFacts {
  readonly clusterId: number
  /**
   * Which leaves it may sign: the control cluster everything under `/spire/`, any other the rest.
   */
  readonly leafIdClass: 'reserved' | 'workload'
  /** DER Name. */
  readonly name: Uint8Array
  readonly subjectKeyId: Uint8Array
  readonly validity: Validity
  readonly pathLength: number | undefined
  readonly signatureAlgorithm: SignatureAlgorithm
  /** Certificates from the issuer up, roots left out: SPIRE writes it into downstream subjects. */
  readonly chainLength: number
}

export function issuerFacts(issuer: X509Issuer): IssuerFacts {
  const { authority, chain } = issuer
  assert(authority.certificate !== undefined, 'an X.509 authority has a certificate')
  const certificate = parseCertificate(authority.certificate)
  assert(certificate.isCa && certificate.subjectKeyId.length > 0, 'an issuer is a CA with an SKI')
  assert(
    bytesEqual(certificate.publicKey, authority.publicKey),
    'an authority certificate is for the authority key',
  )
  return {
    clusterId: authority.clusterId,
    leafIdClass: authority.clusterId === CLUSTER_CONTROL.id ? 'reserved' : 'workload',
    name: certificate.subject,
    subjectKeyId: certificate.subjectKeyId,
    validity: { notBefore: certificate.notBefore, notAfter: certificate.notAfter },
    pathLength: certificate.pathLength,
    signatureAlgorithm: signatureAlgorithmOfKey(authority.keyType),
    chainLength: Math.max(chain.length, 1),
  }
}

/** api.md §8.1: by the CA key. The signing engine hashes accordingly. */
export function signatureAlgorithmOfKey(type: SigningKeyType): SignatureAlgorithm {
  switch (type) {
    case 'ec-p256':
      return 'ecdsa-sha256'
    case 'ec-p384':
      return 'ecdsa-sha384'
    case 'rsa-2048':
    case 'rsa-4096':
      return 'rsa-sha256'
  }
}
