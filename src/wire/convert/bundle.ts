/** Trust bundles on the wire (api.md §6, §7.2). Throws invalid_argument with SPIRE's words. */
import { createPublicKey, type KeyObject } from 'node:crypto'
import { SignetError } from '../../base/error.ts'
import type { Bundle, JwtBundleAuthority, X509BundleAuthority } from '../../spiffe/bundle.ts'
import { TrustDomain } from '../../spiffe/trust-domain.ts'
import { parseCertificates } from '../../x509/certificate.ts'
import type {
  BundleMask,
  Bundle as BundleProto,
  JWTKey,
  X509Certificate as X509CertificateProto,
} from '../gen/spire/api/types/bundle.ts'
import { numberFromInt64 } from './int64.ts'
import { prefixed } from './prefixed.ts'

export function bundleToProto(bundle: Bundle, mask?: BundleMask): BundleProto {
  const keep = (bit: keyof BundleMask): boolean => mask === undefined || mask[bit]
  return {
    trustDomain: bundle.trustDomain,
    x509Authorities: keep('x509Authorities') ? x509AuthoritiesToProto(bundle.x509Authorities) : [],
    jwtAuthorities: keep('jwtAuthorities') ? jwtAuthoritiesToProto(bundle.jwtAuthorities) : [],
    refreshHint: keep('refreshHint') ? BigInt(bundle.refreshHintSeconds) : 0n,
    sequenceNumber: keep('sequenceNumber') ? bundle.sequenceNumber : 0n,
    witAuthorities: [],
  }
}

/** WIT keys are dropped: nothing here issues or checks WIT-SVIDs. */
export function bundleFromProto(proto: BundleProto): Bundle {
  return {
    trustDomain: prefixed('invalid trust domain', () => TrustDomain.parse(proto.trustDomain)).name,
    x509Authorities: prefixed('unable to parse X.509 authority', () =>
      x509AuthoritiesFromProto(proto.x509Authorities),
    ),
    jwtAuthorities: prefixed('unable to parse JWT authority', () =>
      jwtAuthoritiesFromProto(proto.jwtAuthorities),
    ),
    refreshHintSeconds: numberFromInt64(proto.refreshHint, 'refresh hint'),
    sequenceNumber: proto.sequenceNumber,
  }
}

/** What an agent or a client reads from a server it trusts: `tainted` counts here. */
export function bundleFromTrustedProto(proto: BundleProto): Bundle {
  const bundle = bundleFromProto(proto)
  const tainted = new Set(proto.jwtAuthorities.filter((key) => key.tainted).map((key) => key.keyId))
  return {
    ...bundle,
    x509Authorities: proto.x509Authorities.flatMap((authority) =>
      x509AuthoritiesFromProto([authority]).map(({ certificate }) => ({
        certificate,
        tainted: authority.tainted,
      })),
    ),
    jwtAuthorities: bundle.jwtAuthorities.map((key) => ({
      ...key,
      tainted: tainted.has(key.keyId),
    })),
  }
}

/** The parts that the mask names; no mask names everything. */
export function bundlePatchFromProto(
  proto: BundleProto,
  mask: BundleMask | undefined,
): Pick<Bundle, 'trustDomain'> & Partial<Bundle> {
  const bundle = bundleFromProto(proto)
  if (mask === undefined) return bundle
  return {
    trustDomain: bundle.trustDomain,
    ...(mask.x509Authorities && { x509Authorities: bundle.x509Authorities }),
    ...(mask.jwtAuthorities && { jwtAuthorities: bundle.jwtAuthorities }),
    ...(mask.refreshHint && { refreshHintSeconds: bundle.refreshHintSeconds }),
    ...(mask.sequenceNumber && { sequenceNumber: bundle.sequenceNumber }),
  }
}

/**
 * One authority per certificate: an element may hold several, one after the other. `tainted` is
 * for reading only, so it is dropped.
 */
export function x509AuthoritiesFromProto(
  protos: readonly X509CertificateProto[],
): X509BundleAuthority[] {
  return protos.flatMap(({ asn1 }) =>
    splitCertificates(asn1).map((certificate) => ({ certificate, tainted: false })),
  )
}

export function jwtAuthoritiesFromProto(protos: readonly JWTKey[]): JwtBundleAuthority[] {
  return protos.map((proto) => {
    checkPublicKey(proto.publicKey)
    if (proto.keyId === '') throw invalid('missing key ID')
    return {
      keyId: proto.keyId,
      publicKey: Uint8Array.from(proto.publicKey),
      expiresAt: numberFromInt64(proto.expiresAt, 'expiry'),
      tainted: false,
    }
  })
}

function x509AuthoritiesToProto(
  authorities: readonly X509BundleAuthority[],
): X509CertificateProto[] {
  return authorities.map(({ certificate, tainted }) => ({ asn1: certificate, tainted }))
}

export function jwtAuthoritiesToProto(authorities: readonly JwtBundleAuthority[]): JWTKey[] {
  return authorities.map(({ keyId, publicKey, expiresAt, tainted }) => ({
    keyId,
    publicKey,
    expiresAt: BigInt(expiresAt),
    tainted,
  }))
}

/** Copies: what is decoded from a message is a view that would keep the whole message alive. */
function splitCertificates(asn1: Uint8Array): Uint8Array[] {
  const certificates = parseCertificates(asn1).map(({ der }) => Uint8Array.from(der))
  if (certificates.length === 0) throw invalid('malformed certificate')
  return certificates
}

/** What Go reads: another key would spoil the whole bundle for its readers there. */
const KEY_TYPES: readonly (string | undefined)[] = ['rsa', 'ec', 'ed25519', 'x25519', 'dsa']

/** With the curve's name and the uncompressed point, the one form of an EC key that Go reads. */
const EC_KEY_BYTES: ReadonlyMap<string | undefined, number> = new Map([
  ['secp224r1', 80],
  ['prime256v1', 91],
  ['secp384r1', 120],
  ['secp521r1', 158],
])

function checkPublicKey(spki: Uint8Array): void {
  const key = parsedPublicKey(spki)
  const type = key.asymmetricKeyType
  if (!KEY_TYPES.includes(type)) throw invalid('unknown public key algorithm')
  if (type === 'ec') {
    const bytes = EC_KEY_BYTES.get(key.asymmetricKeyDetails?.namedCurve)
    if (bytes === undefined) throw invalid('unsupported elliptic curve')
    if (spki.length !== bytes) throw invalid('malformed public key')
  }
  // Trailing data, absent parameters and whatever else is not the one encoding.
  if (!key.export({ type: 'spki', format: 'der' }).equals(spki)) {
    throw invalid('malformed public key')
  }
}

function parsedPublicKey(spki: Uint8Array): KeyObject {
  try {
    return createPublicKey({ key: Buffer.from(spki), format: 'der', type: 'spki' })
  } catch (cause) {
    throw invalid('malformed public key', cause)
  }
}

function invalid(text: string, cause?: unknown): SignetError {
  return new SignetError('invalid_argument', 'bad_bundle', text, { cause })
}
