/** Bans, deletes and prunes agents. */
import { SignetError } from '../../../base/error.ts'
import type { EpochSeconds } from '../../../base/ports.ts'
import type { SpiffeId } from '../../../spiffe/spiffe-id.ts'
import type { Actor } from '../../ports.ts'
import { actorValues, audit, logChange } from '../context.ts'
import type { Queryable } from '../database.ts'
import { deleteAlias } from '../entry/delete-entries.ts'

/** Empty serials are the ban: no certificate of the agent is the current one any more. */
export async function banAgent(tx: Queryable, id: SpiffeId, actor: Actor): Promise<void> {
  const { rows } = await tx.query<{ serial_number: string }>(
    `with before as (
       select row_id, serial_number from signet.agent where id = $1 for update
     )
     update signet.agent as a set serial_number = '', new_serial_number = ''
     from before where a.row_id = before.row_id
     returning before.serial_number`,
    [id.toString()],
  )
  if (rows[0] === undefined) throw agentNotFound()
  await logChange(tx, 'agent', [id.toString()])
  await audit(tx, actor, { action: 'agent.ban', objectId: id.toString(), before: rows[0] })
}

interface GoneAgent {
  readonly id: string
  readonly attestation_type: string
}

const deleteWhere = (where: string, action: string) => `
  with gone as (
    delete from signet.agent where row_id = any(array(
      select row_id from signet.agent where ${where} for update)) returning *
  ), logged as (
    insert into signet.change_log (kind, ids)
    select 'agent', array_agg(id) from gone having count(*) > 0
  ), audited as (
    insert into signet.audit (actor_kind, actor_id, request_id, action, object_id, before)
    select $1, $2, $3, '${action}', id, to_json(gone) from gone
  )
  select id, attestation_type from gone`

const DELETE = deleteWhere('id = $4', 'agent.delete')

export async function deleteAgent(tx: Queryable, id: SpiffeId, actor: Actor): Promise<void> {
  const { rows } = await tx.query<GoneAgent>(DELETE, [...actorValues(actor), id.toString()])
  if (rows.length === 0) throw agentNotFound()
  await deleteAliases(tx, rows, actor)
}

/** Banned ones stay: the ban must outlive the certificate. */
const PRUNE = deleteWhere(
  `expires_at < $4 and serial_number <> '' and (can_reattest or $5)
   order by expires_at limit $6`,
  'agent.prune',
)

export async function pruneAgents(
  tx: Queryable,
  expiredBefore: EpochSeconds,
  options: { readonly tofu: boolean; readonly limit: number },
  actor: Actor,
): Promise<number> {
  const values = [...actorValues(actor), expiredBefore, options.tofu, options.limit]
  const { rows } = await tx.query<GoneAgent>(PRUNE, values)
  await deleteAliases(tx, rows, actor)
  return rows.length
}

async function deleteAliases(
  tx: Queryable,
  agents: readonly GoneAgent[],
  actor: Actor,
): Promise<void> {
  for (const agent of agents) {
    if (agent.attestation_type === 'join_token') await deleteAlias(tx, agent.id, actor)
  }
}

export function agentNotFound(): SignetError {
  return new SignetError('not_found', 'agent_not_found', 'agent not found')
}
