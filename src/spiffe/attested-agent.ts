/** A node agent as the server knows it after attestation. */
import type { EpochSeconds } from '../base/ports.ts'
import type { Selector } from './selector.ts'
import type { SpiffeId } from './spiffe-id.ts'

export interface AttestedAgent {
  readonly id: SpiffeId
  readonly attestationType: string
  /** Decimal; empty when banned. */
  readonly serialNumber: string
  readonly expiresAt: EpochSeconds
  /** The renewed certificate, active from its first use on; empty when there is none. */
  readonly newSerialNumber: string
  readonly newExpiresAt: EpochSeconds
  readonly canReattest: boolean
  readonly agentVersion: string
  readonly selectors: readonly Selector[]
  /** Which cluster's intermediate signs for this agent's workloads; fixed at first attestation. */
  readonly clusterId: number
}
