/** `AgentStore` on PostgreSQL (server/ports.ts). */
import { LOAD_PAGE_ROWS } from '../../../base/limits.ts'
import type { AttestedAgent } from '../../../spiffe/attested-agent.ts'
import type { AgentFilter, AgentStore } from '../../ports.ts'
import type { StoreContext } from '../context.ts'
import { createInterned } from '../entry/row.ts'
import { Conditions, queryCount, queryPage } from '../paging.ts'
import { recordAttestation } from './record-attestation.ts'
import { banAgent, deleteAgent, pruneAgents } from './remove-agents.ts'
import { promoteNewSerial, setAgentVersion, setNewSerial } from './renew-agent.ts'
import { AGENT_COLUMNS, type AgentRow, toAgent } from './row.ts'

const SOURCE = { table: 'signet.agent', columns: AGENT_COLUMNS }

/** What the entry cache reads besides: node selectors of all agents, then of those that changed. */
export interface AgentFeed {
  loadAllAgents(): AsyncIterable<readonly AttestedAgent[]>
  getAgents(ids: readonly string[]): Promise<readonly AttestedAgent[]>
}

export function createAgentStore(context: StoreContext): AgentStore & AgentFeed {
  const { db } = context
  return {
    recordAttestation: (attestation, actor) =>
      db.transaction((tx) => recordAttestation(tx, attestation, actor)),
    getAgent: async (id) => (await getAgents(context, [id.toString()]))[0],
    getAgents: (ids) => getAgents(context, ids),
    loadAllAgents: () => loadAllAgents(context),
    listAgents: (filter, page) => queryPage(db, SOURCE, conditions(filter), page, toAgent1),
    countAgents: (filter) => queryCount(db, SOURCE.table, conditions(filter)),
    setNewSerial: (id, serialNumber, expiresAt) =>
      db.transaction((tx) => setNewSerial(tx, id, serialNumber, expiresAt)),
    promoteNewSerial: (id, serialNumber) =>
      db.transaction((tx) => promoteNewSerial(tx, id, serialNumber)),
    setAgentVersion: (id, version) => db.transaction((tx) => setAgentVersion(tx, id, version)),
    banAgent: (id, actor) => db.transaction((tx) => banAgent(tx, id, actor)),
    deleteAgent: (id, actor) => db.transaction((tx) => deleteAgent(tx, id, actor)),
    pruneAgents: (expiredBefore, options, actor) =>
      db.transaction((tx) => pruneAgents(tx, expiredBefore, options, actor)),
  }
}

const toAgent1 = (row: AgentRow) => toAgent(row)

function conditions(filter: AgentFilter): Conditions {
  const out = new Conditions()
  if (filter.attestationType !== undefined) out.add('attestation_type = $', filter.attestationType)
  if (filter.selectors !== undefined) out.addSet('selectors', filter.selectors)
  if (filter.banned !== undefined) out.add("(serial_number = '') = $", filter.banned)
  if (filter.canReattest !== undefined) out.add('can_reattest = $', filter.canReattest)
  if (filter.expiresBefore !== undefined) out.add('expires_at < $', filter.expiresBefore)
  return out
}

async function getAgents(
  { db }: StoreContext,
  ids: readonly string[],
): Promise<readonly AttestedAgent[]> {
  const { rows } = await db.query<AgentRow>(
    `select ${AGENT_COLUMNS} from signet.agent where id = any($1)`,
    [ids],
  )
  return rows.map(toAgent1)
}

async function* loadAllAgents({
  db,
}: StoreContext): AsyncGenerator<readonly AttestedAgent[], void> {
  const shared = createInterned()
  for (let after = 0; ; ) {
    const { rows } = await db.query<AgentRow>(
      `select ${AGENT_COLUMNS} from signet.agent where row_id > $1 order by row_id limit $2`,
      [after, LOAD_PAGE_ROWS],
    )
    if (rows.length > 0) yield rows.map((row) => toAgent(row, shared))
    if (rows.length < LOAD_PAGE_ROWS) return
    after = rows.at(-1)!.row_id
  }
}
