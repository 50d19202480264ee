/** Rows of `signet.agent` and the agents they are. */
import type { EpochSeconds } from '../../../base/ports.ts'
import type { AttestedAgent } from '../../../spiffe/attested-agent.ts'
import { SpiffeId } from '../../../spiffe/spiffe-id.ts'
import { createInterned, type Interned } from '../entry/row.ts'

export const AGENT_COLUMNS = `row_id, id, attestation_type, serial_number, expires_at,
  new_serial_number, new_expires_at, can_reattest, agent_version, to_json(selectors) as selectors,
  cluster_id`

export interface AgentRow {
  readonly row_id: number
  readonly id: string
  readonly attestation_type: string
  readonly serial_number: string
  readonly expires_at: EpochSeconds
  readonly new_serial_number: string
  readonly new_expires_at: EpochSeconds
  readonly can_reattest: boolean
  readonly agent_version: string
  readonly selectors: readonly string[]
  readonly cluster_id: number
}

export function toAgent(row: AgentRow, shared: Interned = createInterned()): AttestedAgent {
  return {
    id: SpiffeId.parse(row.id),
    attestationType: row.attestation_type,
    serialNumber: row.serial_number,
    expiresAt: row.expires_at,
    newSerialNumber: row.new_serial_number,
    newExpiresAt: row.new_expires_at,
    canReattest: row.can_reattest,
    agentVersion: row.agent_version,
    selectors: row.selectors.map(shared.selector),
    clusterId: row.cluster_id,
  }
}
