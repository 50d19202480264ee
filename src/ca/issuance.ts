/** What is asked of the issuance pipeline and what it answers (design.md §3). */
import type { Outcome } from '../base/error.ts'
import type { EpochSeconds } from '../base/ports.ts'
import type { SpiffeId } from '../spiffe/spiffe-id.ts'

/** Who asks: goes to the ledger row, which is the audit record of issuance. */
export interface IssuanceCaller {
  readonly callerId: string
  readonly requestId: string
}

export interface X509SvidOrder {
  readonly profile: 'workload' | 'agent' | 'server' | 'downstream_ca'
  readonly clusterId: number
  readonly spiffeId: SpiffeId
  /** Empty when no entry stands behind it. */
  readonly entryId: string
  /** Zero or less: the profile's default. */
  readonly ttlSeconds: number
  readonly dnsNames: readonly string[]
  /** DER PKCS#10. Only its public key is used; its self-signature is checked when `proof` is set. */
  readonly csr: Uint8Array
  readonly proof: boolean
  /** MintX509SVID alone: DER Name that replaces the default subject. */
  readonly subject?: Uint8Array
}

export interface IssuedX509Svid {
  readonly spiffeId: SpiffeId
  /** DER, leaf first, roots left out. */
  readonly chain: readonly Uint8Array[]
  /** Big-endian, as in the certificate. */
  readonly serialNumber: Uint8Array
  readonly notBefore: EpochSeconds
  readonly notAfter: EpochSeconds
}

export interface JwtSvidOrder {
  readonly clusterId: number
  readonly spiffeId: SpiffeId
  readonly entryId: string
  readonly audience: readonly string[]
  readonly ttlSeconds: number
  readonly includeJti: boolean
}

export interface IssuedJwtSvid {
  readonly spiffeId: SpiffeId
  readonly token: string
  readonly issuedAt: EpochSeconds
  readonly expiresAt: EpochSeconds
}

export interface Issuance {
  /**
   * One outcome per order, in order. CSR errors are invalid_argument `malformed_csr` /
   * `bad_csr_signature` / `weak_key`; no authority or no ledger is unavailable. `requests`, when
   * given, is the buffer that all `csr` views lie in, so that nothing is copied on its way to the signer.
   */
  issueX509Svids(
    orders: readonly X509SvidOrder[],
    caller: IssuanceCaller,
    requests?: Uint8Array,
  ): Promise<Outcome<IssuedX509Svid>[]>
  issueJwtSvid(order: JwtSvidOrder, caller: IssuanceCaller): Promise<IssuedJwtSvid>
}
