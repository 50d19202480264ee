/**
 * Who may call what (api.md §3): evaluated per call, from the list in the method's row of the
 * routing table, in the order any, local, admin by configuration, admin and downstream by entry,
 * agent. First success wins; no success is a denial.
 *
 * Differs from SPIRE: in our own trust domain an admin's or downstream's certificate must also be
 * in the ledger, so that a key taken from a cluster (a plugged-in mesh CA holds one) forges
 * neither.
 */
import { SignetError, toSignetError } from '../../base/error.ts'
import type { Log } from '../../base/ports.ts'
import type { RegistrationEntry } from '../../spiffe/registration-entry.ts'
import type { SpiffeId } from '../../spiffe/spiffe-id.ts'
import type { TrustDomain } from '../../spiffe/trust-domain.ts'
import type { Connection } from '../connection.ts'
import type { EntryLookup, LedgerLookup } from '../lookups.ts'
import type { Caller } from '../rpc/context.ts'
import { type AgentCheckPorts, checkAgent } from './agent-check.ts'

export type AllowedCaller = 'any' | 'local' | 'admin' | 'downstream' | 'agent'

export interface AuthorizePorts extends AgentCheckPorts {
  readonly trustDomain: TrustDomain
  readonly adminIds: readonly SpiffeId[]
  readonly entries: EntryLookup
  readonly ledger: LedgerLookup
}

export type Authorize = (
  allowed: readonly AllowedCaller[],
  method: string,
  connection: Connection,
  log: Log,
) => Promise<Caller>

export function createAuthorize(ports: AuthorizePorts): Authorize {
  const adminIds = new Set(ports.adminIds.map(String))
  // Certificates known to the ledger, per connection: a positive answer can't change.
  const ledgered = new WeakSet<Connection>()
  return async (allowed, method, connection, log) => {
    try {
      const caller = await evaluate(ports, adminIds, ledgered, allowed, connection, log)
      if (caller !== undefined) return caller
    } catch (thrown) {
      const error = toSignetError(thrown)
      if (error.kind !== 'permission_denied') throw error
      throw denial(method, log, error)
    }
    throw denial(method, log)
  }
}

async function evaluate(
  ports: AuthorizePorts,
  adminIds: ReadonlySet<string>,
  ledgered: WeakSet<Connection>,
  allowed: readonly AllowedCaller[],
  connection: Connection,
  log: Log,
): Promise<Caller | undefined> {
  const isLocal = connection.transport === 'uds'
  const id = connection.spiffeId
  if (allowed.includes('any')) return { kind: 'nobody', via: '', ...(id && { spiffeId: id }) }
  if (isLocal) return allowed.includes('local') ? { kind: 'local', via: 'transport' } : undefined
  if (id === undefined)
    return allowed.includes('agent') ? agentCaller(ports, connection, log) : undefined
  const privileged = privilegedCaller(ports, adminIds, allowed, id)
  if (privileged !== undefined) {
    await checkLedger(ports, ledgered, connection, id)
    return privileged
  }
  return allowed.includes('agent') ? agentCaller(ports, connection, log) : undefined
}

function privilegedCaller(
  ports: AuthorizePorts,
  adminIds: ReadonlySet<string>,
  allowed: readonly AllowedCaller[],
  spiffeId: SpiffeId,
): Caller | undefined {
  const admin = allowed.includes('admin')
  const downstream = allowed.includes('downstream')
  if (!admin && !downstream) return undefined
  if (admin && adminIds.has(spiffeId.toString())) return { kind: 'admin', via: 'config', spiffeId }
  const entries = callerEntries(ports, spiffeId)
  if (admin && entries.some((entry) => entry.admin)) {
    return { kind: 'admin', via: 'entries', spiffeId }
  }
  const downstreamEntries = entries.filter((entry) => entry.downstream)
  if (!downstream || downstreamEntries.length === 0) return undefined
  return { kind: 'downstream', via: 'entries', spiffeId, downstreamEntries }
}

function callerEntries(ports: AuthorizePorts, id: SpiffeId): readonly RegistrationEntry[] {
  try {
    const now = ports.clock.nowSeconds()
    const entries = ports.entries.entriesBySpiffeId(id)
    // Pruning takes minutes; a right ends on time.
    return entries.filter((entry) => entry.expiresAt === 0 || entry.expiresAt > now)
  } catch (cause) {
    throw new SignetError('internal', 'caller_entries', 'failed to fetch caller entries', { cause })
  }
}

async function agentCaller(
  ports: AuthorizePorts,
  connection: Connection,
  log: Log,
): Promise<Caller> {
  const agent = await checkAgent(ports, connection, log)
  return { kind: 'agent', via: 'datastore', spiffeId: agent.id, agent }
}

async function checkLedger(
  ports: AuthorizePorts,
  ledgered: WeakSet<Connection>,
  connection: Connection,
  id: SpiffeId,
): Promise<void> {
  if (!id.trustDomain.equals(ports.trustDomain) || ledgered.has(connection)) return
  const leaf = connection.chain[0]
  if (leaf === undefined || !(await ports.ledger.hasSerial(leaf.serialNumber))) {
    throw new SignetError('permission_denied', 'not_in_ledger', 'certificate is not in the ledger')
  }
  ledgered.add(connection)
}

/** Whatever the reason, the text is the same; only the detail tells an agent more. */
function denial(method: string, log: Log, cause?: SignetError): SignetError {
  const error = new SignetError(
    'permission_denied',
    cause?.code ?? 'denied',
    `authorization denied for method ${method}`,
    { cause, ...(cause?.denial !== undefined && { denial: cause.denial }) },
  )
  log.error('Failed to authenticate caller', { error: cause?.message ?? error.message })
  return error
}
