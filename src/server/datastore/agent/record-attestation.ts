/**
 * Stores an attestation: one statement decides under the row's lock whether the agent is banned, so
 * that a ban that commits first always wins (T-S1).
 */
import { SignetError } from '../../../base/error.ts'
import type { AttestedAgent } from '../../../spiffe/attested-agent.ts'
import { selectorKey } from '../../../spiffe/selector.ts'
import type { Actor, AgentAttestation } from '../../ports.ts'
import { audit, logChange } from '../context.ts'
import type { Queryable } from '../database.ts'
import { AGENT_COLUMNS, type AgentRow, toAgent } from './row.ts'

export async function recordAttestation(
  tx: Queryable,
  attestation: AgentAttestation,
  actor: Actor,
): Promise<AttestedAgent> {
  const { rows } = await tx.query<AgentRow>(
    `insert into signet.agent as a (id, attestation_type, serial_number, expires_at, can_reattest,
       selectors, cluster_id)
     values ($1, $2, $3, $4, $5, $6, $7)
     on conflict (id) do update set
       attestation_type = excluded.attestation_type, serial_number = excluded.serial_number,
       expires_at = excluded.expires_at, new_serial_number = '', new_expires_at = 0,
       can_reattest = excluded.can_reattest, selectors = excluded.selectors
     where a.serial_number <> ''
     returning ${AGENT_COLUMNS}`,
    [
      attestation.id.toString(),
      attestation.attestationType,
      attestation.serialNumber,
      attestation.expiresAt,
      attestation.canReattest,
      [...new Set(attestation.selectors.map(selectorKey))],
      attestation.clusterId,
    ],
  )
  const row = rows[0]
  if (row === undefined) {
    // No typed detail: SPIRE sends none with a refused attestation (api.md §7.1).
    throw new SignetError('permission_denied', 'agent_banned', 'failed to attest: agent is banned')
  }
  await logChange(tx, 'agent', [row.id])
  const { row_id: _, ...after } = row
  await audit(tx, actor, { action: 'agent.attest', objectId: row.id, after })
  return toAgent(row)
}
