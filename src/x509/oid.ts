/**
 * Object identifiers of X.509 and PKCS#10, as tables: resolved once, no branch on an OID
 * elsewhere.
 */
import { encodeOid, sequence, TAG, tlv } from './der.ts'

export const OID = {
  keyUsage: '2.5.29.15',
  extKeyUsage: '2.5.29.37',
  basicConstraints: '2.5.29.19',
  subjectKeyId: '2.5.29.14',
  authorityKeyId: '2.5.29.35',
  subjectAltName: '2.5.29.17',
  nameConstraints: '2.5.29.30',
  certificatePolicies: '2.5.29.32',
  extensionRequest: '1.2.840.113549.1.9.14',
  ecPublicKey: '1.2.840.10045.2.1',
  rsaEncryption: '1.2.840.113549.1.1.1',
  ed25519: '1.3.101.112',
} as const

/** RFC 5280 §4.2.1.3: position in the list is the bit number. */
export const KEY_USAGES = [
  'digitalSignature',
  'contentCommitment',
  'keyEncipherment',
  'dataEncipherment',
  'keyAgreement',
  'keyCertSign',
  'cRLSign',
  'encipherOnly',
  'decipherOnly',
] as const
export type KeyUsage = (typeof KEY_USAGES)[number]

export const EXT_KEY_USAGES = {
  any: '2.5.29.37.0',
  serverAuth: '1.3.6.1.5.5.7.3.1',
  clientAuth: '1.3.6.1.5.5.7.3.2',
} as const
export type ExtKeyUsage = keyof typeof EXT_KEY_USAGES

export const CURVES = {
  'ec-p256': { oid: '1.2.840.10045.3.1.7', bits: 256, coordinateBytes: 32 },
  'ec-p384': { oid: '1.3.132.0.34', bits: 384, coordinateBytes: 48 },
  'ec-p521': { oid: '1.3.132.0.35', bits: 521, coordinateBytes: 66 },
} as const
export type CurveKeyType = keyof typeof CURVES

export type SignatureAlgorithm =
  | 'ecdsa-sha256'
  | 'ecdsa-sha384'
  | 'ecdsa-sha512'
  | 'rsa-sha256'
  | 'rsa-sha384'
  | 'rsa-sha512'
  | 'rsa-pss-sha256'
  | 'rsa-pss-sha384'
  | 'rsa-pss-sha512'
  | 'ed25519'

interface SignatureAlgorithmFacts {
  /** DER AlgorithmIdentifier, exactly as certificates carry it. */
  readonly identifier: Uint8Array
  readonly keyFamily: 'ec' | 'rsa' | 'ed25519'
  /** For node:crypto; null where the algorithm hashes itself. */
  readonly hash: 'sha256' | 'sha384' | 'sha512' | null
  readonly pss: boolean
}

const NULL = tlv(TAG.null)

/**
 * SHA-1 and MD5 are missing on purpose: nothing they sign is believed.
 * Differs from SPIRE: Go believes SHA-1 in CSRs.
 */
export const SIGNATURE_ALGORITHMS: Readonly<Record<SignatureAlgorithm, SignatureAlgorithmFacts>> = {
  'ecdsa-sha256': ecdsa('1.2.840.10045.4.3.2', 'sha256'),
  'ecdsa-sha384': ecdsa('1.2.840.10045.4.3.3', 'sha384'),
  'ecdsa-sha512': ecdsa('1.2.840.10045.4.3.4', 'sha512'),
  'rsa-sha256': rsa('1.2.840.113549.1.1.11', 'sha256'),
  'rsa-sha384': rsa('1.2.840.113549.1.1.12', 'sha384'),
  'rsa-sha512': rsa('1.2.840.113549.1.1.13', 'sha512'),
  'rsa-pss-sha256': pss('2.16.840.1.101.3.4.2.1', 'sha256', 32),
  'rsa-pss-sha384': pss('2.16.840.1.101.3.4.2.2', 'sha384', 48),
  'rsa-pss-sha512': pss('2.16.840.1.101.3.4.2.3', 'sha512', 64),
  ed25519: {
    identifier: sequence(encodeOid(OID.ed25519)),
    keyFamily: 'ed25519',
    hash: null,
    pss: false,
  },
}

const ALGORITHM_BY_IDENTIFIER: ReadonlyMap<string, SignatureAlgorithm> = new Map(
  Object.entries(SIGNATURE_ALGORITHMS).map(([name, facts]) => [
    Buffer.from(facts.identifier).toString('latin1'),
    name as SignatureAlgorithm,
  ]),
)

/** By the whole AlgorithmIdentifier, parameters included; undefined when we do not know it. */
export function signatureAlgorithmOf(identifier: Uint8Array): SignatureAlgorithm | undefined {
  const { buffer, byteOffset, length } = identifier
  return ALGORITHM_BY_IDENTIFIER.get(Buffer.from(buffer, byteOffset, length).toString('latin1'))
}

function ecdsa(oid: string, hash: 'sha256' | 'sha384' | 'sha512'): SignatureAlgorithmFacts {
  return { identifier: sequence(encodeOid(oid)), keyFamily: 'ec', hash, pss: false }
}

function rsa(oid: string, hash: 'sha256' | 'sha384' | 'sha512'): SignatureAlgorithmFacts {
  return { identifier: sequence(encodeOid(oid), NULL), keyFamily: 'rsa', hash, pss: false }
}

/** RFC 4055 §3.1 with the hash for MGF1 too and a salt of its length: the form that is in use. */
function pss(
  hashOid: string,
  hash: 'sha256' | 'sha384' | 'sha512',
  saltBytes: number,
): SignatureAlgorithmFacts {
  const hashId = sequence(encodeOid(hashOid), NULL)
  const mgf = sequence(encodeOid('1.2.840.113549.1.1.8'), hashId)
  const parameters = sequence(
    tlv(0xa0, hashId),
    tlv(0xa1, mgf),
    tlv(0xa2, tlv(TAG.integer, Uint8Array.of(saltBytes))),
  )
  return {
    identifier: sequence(encodeOid('1.2.840.113549.1.1.10'), parameters),
    keyFamily: 'rsa',
    hash,
    pss: true,
  }
}
