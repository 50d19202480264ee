/** A trust bundle: what peers of one trust domain trust (api.md §9). */
import type { EpochSeconds } from '../base/ports.ts'

export interface X509BundleAuthority {
  /** DER of one CA certificate. */
  readonly certificate: Uint8Array
  readonly tainted: boolean
}

export interface JwtBundleAuthority {
  readonly keyId: string
  /** DER SubjectPublicKeyInfo. */
  readonly publicKey: Uint8Array
  /** 0 when unknown. */
  readonly expiresAt: EpochSeconds
  readonly tainted: boolean
}

export interface Bundle {
  /** Bare name. */
  readonly trustDomain: string
  readonly x509Authorities: readonly X509BundleAuthority[]
  readonly jwtAuthorities: readonly JwtBundleAuthority[]
  /** 0 when unset. */
  readonly refreshHintSeconds: number
  readonly sequenceNumber: bigint
}
