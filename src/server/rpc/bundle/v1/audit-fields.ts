/** What the audit log tells of a bundle (features.md §4.6): hashes instead of keys. */
import type { LogFields } from '../../../../base/ports.ts'
import type {
  Bundle,
  BundleMask,
  JWTKey,
  X509Certificate,
} from '../../../../wire/gen/spire/api/types/bundle.ts'
import { integerField, sha256Field } from '../../audit.ts'

export function bundleAuditFields(bundle: Bundle, mask?: BundleMask): LogFields {
  const keep = (bit: keyof BundleMask): boolean => mask === undefined || mask[bit]
  return {
    trust_domain_id: bundle.trustDomain,
    ...(keep('refreshHint') && { refresh_hint: integerField(bundle.refreshHint) }),
    ...(keep('sequenceNumber') && { sequence_number: integerField(bundle.sequenceNumber) }),
    ...(keep('jwtAuthorities') && jwtAuthoritiesFields(bundle.jwtAuthorities)),
    ...(keep('x509Authorities') && x509AuthoritiesFields(bundle.x509Authorities)),
  }
}

export function jwtAuthoritiesFields(keys: readonly JWTKey[]): LogFields {
  const fields: Record<string, unknown> = {}
  for (const [i, key] of keys.entries()) {
    for (const [name, value] of Object.entries(jwtAuthorityFields(key))) {
      fields[`${name}.${i}`] = value
    }
  }
  return fields
}

export function jwtAuthorityFields(key: JWTKey): LogFields {
  return {
    jwt_authority_expires_at: integerField(key.expiresAt),
    jwt_authority_key_id: key.keyId,
    jwt_authority_public_key_sha256: sha256Field(key.publicKey),
  }
}

export function x509AuthoritiesFields(authorities: readonly X509Certificate[]): LogFields {
  return Object.fromEntries(
    authorities.map(({ asn1 }, i) => [`x509_authorities_asn1_sha256.${i}`, sha256Field(asn1)]),
  )
}
