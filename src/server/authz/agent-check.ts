/**
 * May this certificate act as an agent (api.md §3, steps 1 to 9)? Runs on every call of an agent.
 * Denials carry the reason that decides whether the agent re-attests or shuts down.
 *
 * The cached row can allow, never deny: it may lag behind an attestation at another server, and
 * an agent told "not attested" gives up its identity. So everything but a match is read again
 * from the store; with the database away that is unavailable, which agents retry.
 */

import { toDecimal } from '../../base/bytes.ts'
import { type DenialReason, SignetError } from '../../base/error.ts'
import type { Clock, Log } from '../../base/ports.ts'
import type { AttestedAgent } from '../../spiffe/attested-agent.ts'
import type { SpiffeId } from '../../spiffe/spiffe-id.ts'
import type { Connection } from '../connection.ts'
import type { AgentLookup } from '../lookups.ts'
import type { AgentStore } from '../ports.ts'

export interface AgentCheckPorts {
  readonly clock: Clock
  readonly agents: AgentLookup
  readonly store: Pick<AgentStore, 'getAgent' | 'promoteNewSerial'>
}

/** Throws permission_denied; the caller puts the method's name into the text. */
export async function checkAgent(
  ports: AgentCheckPorts,
  connection: Connection,
  log: Log,
): Promise<AttestedAgent> {
  const leaf = connection.chain[0]
  const id = connection.spiffeId
  if (leaf === undefined || id === undefined) throw denied('no client certificate')
  if (ports.clock.nowSeconds() > leaf.notAfter) {
    log.error('Agent SVID is expired')
    throw denied(`agent "${id}" SVID is expired`, 'agent_expired')
  }
  const serial = toDecimal(leaf.serialNumber)
  const cached = await ports.agents.get(id)
  if (cached !== undefined && cached.serialNumber === serial) return cached
  return judge(ports, await readAgent(ports, id, log), id, serial, log)
}

async function readAgent(
  ports: AgentCheckPorts,
  id: SpiffeId,
  log: Log,
): Promise<AttestedAgent | undefined> {
  try {
    return await ports.store.getAgent(id)
  } catch (error) {
    log.error('Unable to look up agent information', { error })
    throw error
  }
}

async function judge(
  ports: AgentCheckPorts,
  agent: AttestedAgent | undefined,
  id: SpiffeId,
  serial: string,
  log: Log,
): Promise<AttestedAgent> {
  if (agent === undefined) {
    log.error('Agent is not attested')
    throw denied(`agent "${id}" is not attested`, 'agent_not_attested')
  }
  if (agent.serialNumber === '') {
    log.error('Agent is banned')
    throw denied(`agent "${id}" is banned`, 'agent_banned')
  }
  if (agent.serialNumber === serial) return agent
  const promoted = agent.newSerialNumber === serial ? await promote(ports, agent, log) : undefined
  if (promoted?.serialNumber === serial) return promoted
  log.error('Agent SVID is not active', {
    svid_serial_num: serial,
    serial_num: agent.serialNumber,
  })
  throw denied(
    `agent "${id}" expected to have serial number "${agent.serialNumber}"; has "${serial}"`,
    'agent_not_active',
  )
}

/** First use of a renewed certificate: from here on the old one is refused. */
async function promote(
  ports: AgentCheckPorts,
  agent: AttestedAgent,
  log: Log,
): Promise<AttestedAgent | undefined> {
  try {
    return await ports.store.promoteNewSerial(agent.id, agent.newSerialNumber)
  } catch (error) {
    log.warn('Unable to activate the new agent SVID', {
      error,
      serial_num: agent.serialNumber,
      new_serial_num: agent.newSerialNumber,
    })
    throw error
  }
}

function denied(text: string, denial?: DenialReason): SignetError {
  const options = denial === undefined ? {} : { denial }
  return new SignetError('permission_denied', denial ?? 'denied', text, options)
}
