/**
 * Certificates of any shape for tests, made by a library that is not ours, so that what we read and
 * verify was not written by us.
 */
import './reflect.ts'
import { createPrivateKey, type KeyObject, webcrypto } from 'node:crypto'
import * as x509 from '@peculiar/x509'

const ALGORITHM = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' }
const DAY_MS = 86_400_000

x509.cryptoProvider.set(webcrypto as unknown as Crypto)

export interface TestAuthority {
  readonly certificate: x509.X509Certificate
  readonly keys: webcrypto.CryptoKeyPair
  readonly der: Uint8Array
}

export interface TestLeaf {
  readonly der: Uint8Array
  /** With intermediates, as presented. */
  readonly chain: readonly Uint8Array[]
  readonly keyPem: string
  readonly key: KeyObject
}

export interface LeafShape {
  readonly uris?: readonly string[]
  readonly isCa?: boolean
  readonly keyUsage?: number
  readonly notBefore?: Date
  readonly notAfter?: Date
  readonly intermediates?: readonly TestAuthority[]
}

export const USAGE = x509.KeyUsageFlags

async function newKeys(): Promise<webcrypto.CryptoKeyPair> {
  return (await webcrypto.subtle.generateKey(ALGORITHM, true, [
    'sign',
    'verify',
  ])) as webcrypto.CryptoKeyPair
}

let serial = 0
const nextSerial = () => (0x4000 + ++serial).toString(16)

/** A root, or an intermediate of `parent`. */
export async function makeAuthority(
  name: string,
  uri: string,
  parent?: TestAuthority,
): Promise<TestAuthority> {
  const keys = await newKeys()
  const certificate = await x509.X509CertificateGenerator.create({
    serialNumber: nextSerial(),
    subject: `CN=${name}`,
    issuer: parent?.certificate.subject ?? `CN=${name}`,
    notBefore: new Date(Date.now() - DAY_MS),
    notAfter: new Date(Date.now() + DAY_MS),
    publicKey: keys.publicKey as unknown as CryptoKey,
    signingKey: (parent?.keys.privateKey ?? keys.privateKey) as unknown as CryptoKey,
    signingAlgorithm: ALGORITHM,
    extensions: [
      new x509.BasicConstraintsExtension(true, undefined, true),
      new x509.KeyUsagesExtension(USAGE.keyCertSign | USAGE.cRLSign, true),
      new x509.SubjectAlternativeNameExtension([{ type: 'url', value: uri }]),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey as unknown as CryptoKey),
    ],
  })
  return { certificate, keys, der: new Uint8Array(certificate.rawData) }
}

export async function makeLeaf(issuer: TestAuthority, shape: LeafShape): Promise<TestLeaf> {
  const keys = await newKeys()
  const uris = shape.uris ?? []
  const certificate = await x509.X509CertificateGenerator.create({
    serialNumber: nextSerial(),
    subject: 'C=US, O=SPIRE',
    issuer: issuer.certificate.subject,
    notBefore: shape.notBefore ?? new Date(Date.now() - 60_000),
    notAfter: shape.notAfter ?? new Date(Date.now() + 3_600_000),
    publicKey: keys.publicKey as unknown as CryptoKey,
    signingKey: issuer.keys.privateKey as unknown as CryptoKey,
    signingAlgorithm: ALGORITHM,
    extensions: [
      new x509.BasicConstraintsExtension(shape.isCa ?? false, undefined, true),
      new x509.KeyUsagesExtension(shape.keyUsage ?? USAGE.digitalSignature, true),
      ...(uris.length > 0
        ? [
            new x509.SubjectAlternativeNameExtension(
              uris.map((value) => ({ type: 'url' as const, value })),
            ),
          ]
        : []),
    ],
  })
  const pkcs8 = Buffer.from(await webcrypto.subtle.exportKey('pkcs8', keys.privateKey))
  const key = createPrivateKey({ key: pkcs8, format: 'der', type: 'pkcs8' })
  const der = new Uint8Array(certificate.rawData)
  return {
    der,
    chain: [der, ...(shape.intermediates ?? []).map((authority) => authority.der)],
    keyPem: key.export({ type: 'pkcs8', format: 'pem' }).toString(),
    key,
  }
}
