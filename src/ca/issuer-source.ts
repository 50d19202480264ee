/** Which authority issues now: the port between the issuance pipeline and the authorities' life cycle. */
import type { Authority } from './authority/authority.ts'
import type { KeyHandle } from './signer/port.ts'

export interface X509Issuer {
  readonly authority: Authority
  readonly keyHandle: KeyHandle
  /** What follows the leaf in its chain: own intermediate first, roots left out (DER each). */
  readonly chain: readonly Uint8Array[]
}

export interface JwtIssuer {
  readonly authority: Authority
  readonly keyHandle: KeyHandle
  readonly alg: 'ES256' | 'ES384' | 'RS256'
}

export interface IssuerSource {
  /**
   * The active issuer of a cluster. Throws unavailable: `server is initializing` before the first
   * activation, `x509_authority_expired` / `jwt_authority_expired` when it has run out (SPIRE #1542
   * kept minting with one).
   */
  x509Issuer(clusterId: number): X509Issuer
  jwtIssuer(clusterId: number): JwtIssuer
}
