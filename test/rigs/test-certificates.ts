/** Certificates for tests that only need some: made by the general encoder, signed by node:crypto. */
import { createPublicKey, type KeyObject, sign } from 'node:crypto'
import { encodeName } from '../../src/x509/name.ts'
import { subjectKeyId } from '../../src/x509/spki.ts'
import { encodeCertificate, encodeTbsCertificate } from '../../src/x509/template.ts'

export interface TestCertificateOptions {
  readonly commonName?: string
  readonly isCa?: boolean
  readonly notBefore?: number
  readonly notAfter?: number
  readonly uri?: string
  /** Another name than its own: then the signature is nobody's, for what looks at names only. */
  readonly issuer?: Uint8Array
}

/** Self-signed, by an EC P-256 or RSA key. */
export function selfSignedCertificate(
  privateKey: KeyObject,
  options: TestCertificateOptions = {},
): Uint8Array {
  const { commonName = 'test', isCa = true, notBefore = 0, notAfter = 4_000_000_000 } = options
  const spki = new Uint8Array(createPublicKey(privateKey).export({ type: 'spki', format: 'der' }))
  const algorithm = privateKey.asymmetricKeyType === 'rsa' ? 'rsa-sha256' : 'ecdsa-sha256'
  const name = encodeName({ commonName: [commonName] })
  const tbs = encodeTbsCertificate({
    serialNumber: Uint8Array.of(0x41, ...Buffer.from(commonName).subarray(0, 8)),
    signatureAlgorithm: algorithm,
    issuer: options.issuer ?? name,
    validity: { notBefore, notAfter },
    subject: name,
    subjectPublicKeyInfo: spki,
    isCa,
    keyUsage: isCa ? ['keyCertSign', 'cRLSign'] : ['digitalSignature'],
    extKeyUsage: [],
    uriNames: [options.uri ?? 'spiffe://example.org'],
    dnsNames: [],
    subjectKeyId: subjectKeyId(spki),
  })
  return encodeCertificate(tbs, algorithm, sign('sha256', tbs, privateKey))
}
