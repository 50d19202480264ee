/**
 * The ledger: one row per SVID that may exist, durable before anything is released (I3). The CA
 * declares the port; the datastore implements it with group commits of binary COPY.
 */
import type { EpochSeconds } from '../base/ports.ts'

export type LedgerKind = 'x509_workload' | 'x509_agent' | 'x509_server' | 'x509_ca' | 'jwt'

export interface LedgerRow {
  readonly kind: LedgerKind
  readonly clusterId: number
  /** Row id of the issuing authority. */
  readonly authorityId: number
  /** X.509: 16 bytes. JWT: 16 random bytes, the jti when one is included. */
  readonly serialNumber: Uint8Array
  readonly spiffeId: string
  /** Empty when there is none (agents, servers, minted ones). */
  readonly entryId: string
  /** SPIFFE ID of the caller (agent, admin) or `uid:N`: with the request id this is the audit record. */
  readonly callerId: string
  readonly requestId: string
  readonly notBefore: EpochSeconds
  readonly notAfter: EpochSeconds
  /** SHA-256 of the SubjectPublicKeyInfo; empty for JWT. */
  readonly publicKeySha256: Uint8Array
  /** SHA-256 of the linted TBSCertificate or JWS signing input. */
  readonly tbsSha256: Uint8Array
}

export interface Ledger {
  /** Resolves when all rows are committed. unavailable when they can't be. */
  record(rows: readonly LedgerRow[]): Promise<void>
  /** A second row: the SVID recorded before was not released. Best effort, never throws. */
  recordFailure(rows: readonly LedgerRow[], reason: string): void
}
