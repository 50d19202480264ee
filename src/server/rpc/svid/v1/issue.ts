/**
 * SVIDs for agents (api.md §7.4): the hot path. The entry decides everything but the key; the
 * CSRs stay views on the received message until the signer has read them.
 */
import { type Outcome, SignetError } from '../../../../base/error.ts'
import { CSR_BATCH_SIZE_MAX } from '../../../../base/limits.ts'
import type { LogFields } from '../../../../base/ports.ts'
import type { IssuedJwtSvid, IssuedX509Svid, X509SvidOrder } from '../../../../ca/issuance.ts'
import type { AttestedAgent } from '../../../../spiffe/attested-agent.ts'
import type { RegistrationEntry } from '../../../../spiffe/registration-entry.ts'
import type {
  BatchNewX509SvidRequest,
  NewX509SvidParams,
} from '../../../../wire/hot/batch-new-x509-svid.ts'
import type { NewJwtSvidRequest } from '../../../../wire/hot/new-jwt-svid.ts'
import { sha256Field } from '../../audit.ts'
import { runBatch } from '../../batch.ts'
import { type CallContext, callingAgent, issuanceCaller } from '../../context.ts'
import {
  attempt,
  failed,
  invalidArgument,
  logFailure,
  notFound,
  withRequestId,
} from '../../failure.ts'
import type { HandlerPorts } from '../../ports.ts'

type IssuePorts = Pick<HandlerPorts, 'entries' | 'issuance' | 'jwtSvidsDisabled'>

/** Missing and foreign entries look alike, so an agent can't probe for ids. */
const NOT_AUTHORIZED = 'entry not found or not authorized'

export async function batchNewX509Svid(
  ports: IssuePorts,
  request: BatchNewX509SvidRequest,
  context: CallContext,
): Promise<readonly Outcome<IssuedX509Svid>[]> {
  const { message, params } = request
  if (params.length === 0) throw invalidArgument('missing parameters')
  // The rate limit says the same, but it can be switched off.
  if (params.length > CSR_BATCH_SIZE_MAX) throw tooMany(params.length)
  const agent = callingAgent(context)
  const caller = issuanceCaller(context)
  const outcomes = await runBatch(
    params,
    (item) => orderOf(ports, agent, item),
    async (orders) => {
      const issued = await ports.issuance.issueX509Svids(orders, caller, message)
      return issued.map(explained)
    },
  )
  return outcomes.map((outcome, i) => reported(outcome, params[i]!, context))
}

function orderOf(
  ports: IssuePorts,
  agent: AttestedAgent,
  { entryId, csr }: NewX509SvidParams,
): X509SvidOrder {
  if (entryId === '') throw invalidArgument('missing entry ID')
  if (csr.length === 0) throw invalidArgument('missing CSR')
  const entry = authorizedEntry(ports, agent, entryId)
  return {
    profile: 'workload',
    clusterId: agent.clusterId,
    spiffeId: entry.spiffeId,
    entryId,
    ttlSeconds: entry.x509SvidTtlSeconds,
    dnsNames: entry.dnsNames,
    csr,
    proof: true,
  }
}

function authorizedEntry(
  ports: IssuePorts,
  agent: AttestedAgent,
  entryId: string,
): RegistrationEntry {
  const entry = ports.entries.authorizedEntry(agent.id, entryId)
  if (entry === undefined) throw notFound(NOT_AUTHORIZED)
  return entry
}

function explained(outcome: Outcome<IssuedX509Svid>): Outcome<IssuedX509Svid> {
  if (outcome.ok || outcome.error.kind === 'invalid_argument') return outcome
  return { ok: false, error: failed('failed to sign X509-SVID', outcome.error) }
}

/** The ledger row is the record of issuance; the audit log repeats it when it is switched on. */
function reported(
  outcome: Outcome<IssuedX509Svid>,
  item: NewX509SvidParams,
  context: CallContext,
): Outcome<IssuedX509Svid> {
  const error = outcome.ok ? undefined : withRequestId(outcome.error, context.requestId)
  context.audit.item(error, () => ({
    csr: sha256Field(item.csr),
    entry_id: item.entryId,
    spiffe_id: outcome.ok ? outcome.value.spiffeId.toString() : '',
    ...(outcome.ok && { expires_at: outcome.value.notAfter }),
  }))
  if (error === undefined) return outcome
  logFailure(context.log.with({ entry_id: item.entryId }), error)
  return { ok: false, error }
}

function tooMany(count: number): SignetError {
  const text = `rate (${count}) exceeds burst size (${CSR_BATCH_SIZE_MAX})`
  return new SignetError('resource_exhausted', 'batch_too_large', text)
}

export function jwtAuditFields({ entryId, audience }: NewJwtSvidRequest): LogFields {
  return { entry_id: entryId, audience: audience.join(',') }
}

export async function newJwtSvid(
  ports: IssuePorts,
  request: NewJwtSvidRequest,
  context: CallContext,
): Promise<IssuedJwtSvid> {
  const { entryId, audience } = request
  context.audit.add(() => jwtAuditFields(request))
  if (ports.jwtSvidsDisabled) throw jwtDisabled()
  const agent = callingAgent(context)
  const entry = authorizedEntry(ports, agent, entryId)
  context.audit.add(() => ({ spiffe_id: entry.spiffeId.toString() }))
  if (audience.length === 0) throw invalidArgument('at least one audience is required')
  const order = {
    clusterId: agent.clusterId,
    spiffeId: entry.spiffeId,
    entryId,
    audience,
    ttlSeconds: entry.jwtSvidTtlSeconds,
    includeJti: entry.jwtSvidIncludeJti,
  }
  const signing = ports.issuance.issueJwtSvid(order, issuanceCaller(context))
  const svid = await attempt('failed to sign JWT-SVID', signing)
  context.audit.success(() => ({ ttl: entry.jwtSvidTtlSeconds }))
  return svid
}

export function jwtDisabled(): SignetError {
  return new SignetError('unimplemented', 'jwt_disabled', 'JWT functionality is disabled')
}
