/**
 * An authority: a key with its CA certificate, or a JWT key, and its life cycle
 * prepared → active → old → tainted → revoked → pruned (I6). An *issuer* is an authority in use.
 */
import type { EpochSeconds } from '../../base/ports.ts'
import type { SealedKey, SigningKeyType } from '../signer/port.ts'

export type AuthorityKind = 'x509_root' | 'x509_intermediate' | 'jwt'

export type AuthorityState = 'prepared' | 'active' | 'old' | 'tainted' | 'revoked'

export interface Authority {
  /** Row id, stable. */
  readonly id: number
  readonly clusterId: number
  readonly kind: AuthorityKind
  /**
   * Empty: shared by all servers on the database. Else the one server process that holds it
   * (`memory`).
   */
  readonly holder: string
  readonly state: AuthorityState
  /** X.509: lower-case hex of the certificate's SKI. JWT: the kid. */
  readonly authorityId: string
  readonly keyType: SigningKeyType
  /** DER SubjectPublicKeyInfo. */
  readonly publicKey: Uint8Array
  /** DER of the CA certificate; undefined for JWT keys. */
  readonly certificate: Uint8Array | undefined
  /** Row id of the authority that signed the certificate; undefined for a root and JWT keys. */
  readonly issuerId: number | undefined
  readonly notBefore: EpochSeconds
  readonly notAfter: EpochSeconds
  readonly generation: string
  /** Undefined for keys held in memory. */
  readonly sealed: SealedKey | undefined
}

/** Cluster rows every deployment has (design.md §2). */
export const CLUSTER_CONTROL = { id: 1, name: 'control' } as const
export const CLUSTER_DEFAULT = { id: 2, name: 'default' } as const
/** The root belongs to no cluster; its rows carry this id. */
export const CLUSTER_NONE_ID = 0

/**
 * State of authorities. Every transition is a compare-and-swap on (id, state): a racing server
 * loses with `aborted` and reloads. Publication in the own bundle is part of the same transaction
 * where said, so that nothing is active before it is published (I2).
 */
export interface AuthorityStore {
  listAuthorities(): Promise<readonly Authority[]>
  /**
   * Inserts a prepared authority and, for roots and JWT keys, appends it to the own bundle in the
   * same transaction. `aborted` when another server already prepared one for this
   * (cluster, kind, holder), or has used this generation: the plan was made on rows that moved on.
   */
  insertPrepared(authority: Omit<Authority, 'id' | 'state'>): Promise<Authority>
  /**
   * prepared → active, and the active one → old, in one transaction. `aborted` when the state
   * moved.
   */
  activate(id: number): Promise<void>
  /**
   * Deletes rows that are old (or prepared) and expired before `expiredBefore`, with their bundle
   * elements.
   */
  pruneAuthorities(expiredBefore: EpochSeconds): Promise<number>
  /**
   * Deletes rows (and bundle elements) of holders that no longer live, expired or not in `holders`.
   */
  dropHolder(holder: string): Promise<void>
}
