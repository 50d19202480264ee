/** The two serials of an agent: the current certificate, and the renewed one until its first use. */
import { SignetError } from '../../../base/error.ts'
import type { EpochSeconds } from '../../../base/ports.ts'
import type { AttestedAgent } from '../../../spiffe/attested-agent.ts'
import type { SpiffeId } from '../../../spiffe/spiffe-id.ts'
import { logChange } from '../context.ts'
import type { Queryable } from '../database.ts'
import { agentNotFound } from './remove-agents.ts'
import { AGENT_COLUMNS, type AgentRow, toAgent } from './row.ts'

/** The renewal's record is the certificate's row in the ledger: agents renew by the hour. */
export async function setNewSerial(
  tx: Queryable,
  id: SpiffeId,
  serialNumber: string,
  expiresAt: EpochSeconds,
): Promise<void> {
  const { rows } = await tx.query<{ banned: boolean }>(
    `update signet.agent set
       new_serial_number = case when serial_number = '' then '' else $2 end,
       new_expires_at = case when serial_number = '' then 0 else $3::bigint end
     where id = $1 returning serial_number = '' as banned`,
    [id.toString(), serialNumber, expiresAt],
  )
  if (rows[0] === undefined) throw agentNotFound()
  // A banned agent gets nothing that a later promotion could revive.
  if (rows[0].banned) {
    const denial = 'agent_banned'
    throw new SignetError('permission_denied', denial, 'agent is banned', { denial })
  }
  await logChange(tx, 'agent', [id.toString()])
}

/** Undefined when there is no such agent; unchanged when another call has promoted already. */
export async function promoteNewSerial(
  tx: Queryable,
  id: SpiffeId,
  serialNumber: string,
): Promise<AttestedAgent | undefined> {
  const { count } = await tx.query(
    `update signet.agent set serial_number = new_serial_number, expires_at = new_expires_at,
       new_serial_number = '', new_expires_at = 0
     where id = $1 and new_serial_number = $2 and $2 <> '' and serial_number <> ''`,
    [id.toString(), serialNumber],
  )
  if (count > 0) await logChange(tx, 'agent', [id.toString()])
  const { rows } = await tx.query<AgentRow>(
    `select ${AGENT_COLUMNS} from signet.agent where id = $1`,
    [id.toString()],
  )
  return rows[0] && toAgent(rows[0])
}

export async function setAgentVersion(tx: Queryable, id: SpiffeId, version: string): Promise<void> {
  const { rows } = await tx.query<{ agent_version: string }>(
    'select agent_version from signet.agent where id = $1 for update',
    [id.toString()],
  )
  const stored = rows[0]
  if (stored === undefined) throw agentNotFound()
  if (stored.agent_version === version) return
  await tx.query('update signet.agent set agent_version = $2 where id = $1', [
    id.toString(),
    version,
  ])
  await logChange(tx, 'agent', [id.toString()])
}
