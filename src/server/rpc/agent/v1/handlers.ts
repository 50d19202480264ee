/**
 * The Agent service (api.md §7.1): administration of agents, join tokens, and what agents ask for
 * themselves.
 */
import { toDecimal } from '../../../../base/bytes.ts'
import { SignetError } from '../../../../base/error.ts'
import { AGENT_VERSION_LENGTH_MAX } from '../../../../base/limits.ts'
import type { LogFields } from '../../../../base/ports.ts'
import type { SpiffeId } from '../../../../spiffe/spiffe-id.ts'
import { agentToProto } from '../../../../wire/convert/agent.ts'
import { prefixed } from '../../../../wire/convert/prefixed.ts'
import { agentIdFromProto, spiffeIdToProto } from '../../../../wire/convert/spiffe-id.ts'
import type { Empty } from '../../../../wire/gen/google/protobuf/empty.ts'
import type {
  BanAgentRequest,
  CountAgentsRequest,
  CountAgentsResponse,
  DeleteAgentRequest,
  GetAgentRequest,
  ListAgentsRequest,
  ListAgentsRequest_Filter,
  ListAgentsResponse,
  PostStatusRequest,
  PostStatusResponse,
  RenewAgentRequest,
  RenewAgentResponse,
} from '../../../../wire/gen/spire/api/server/agent/v1/agent.ts'
import type { Agent } from '../../../../wire/gen/spire/api/types/agent.ts'
import type { SPIFFEID } from '../../../../wire/gen/spire/api/types/spiffeid.ts'
import { matchField } from '../../audit.ts'
import { type CallContext, callingAgent } from '../../context.ts'
import { attempt, attemptOn, filterFor, invalidArgument, notFound } from '../../failure.ts'
import { pageOf } from '../../page.ts'
import type { HandlerPorts } from '../../ports.ts'
import { agentFilterFromProto } from './filter.ts'
import { csrAuditFields, signAgentSvid } from './sign.ts'

type AgentPorts = Pick<
  HandlerPorts,
  'trustDomain' | 'agentStore' | 'connections' | 'issuance' | 'clock'
>

export function createAgentHandlers(ports: AgentPorts) {
  return {
    countAgents: (request: CountAgentsRequest, context: CallContext) =>
      countAgents(ports, request, context),
    listAgents: (request: ListAgentsRequest, context: CallContext) =>
      listAgents(ports, request, context),
    getAgent: (request: GetAgentRequest, context: CallContext) => getAgent(ports, request, context),
    deleteAgent: (request: DeleteAgentRequest, context: CallContext) =>
      deleteAgent(ports, request, context),
    banAgent: (request: BanAgentRequest, context: CallContext) => banAgent(ports, request, context),
    renewAgent: (request: RenewAgentRequest, context: CallContext) =>
      renewAgent(ports, request, context),
    postStatus: (request: PostStatusRequest, context: CallContext) =>
      postStatus(ports, request, context),
  }
}

async function countAgents(
  ports: AgentPorts,
  request: CountAgentsRequest,
  context: CallContext,
): Promise<CountAgentsResponse> {
  context.audit.add(() => filterFields(request.filter))
  const what = 'failed to count agents'
  const filter = filterFor(what, () => agentFilterFromProto(request.filter))
  const count = await attempt(what, ports.agentStore.countAgents(filter))
  context.audit.success()
  return { count }
}

async function listAgents(
  ports: AgentPorts,
  request: ListAgentsRequest,
  context: CallContext,
): Promise<ListAgentsResponse> {
  context.audit.add(() => filterFields(request.filter))
  const what = 'failed to list agents'
  const filter = filterFor(what, () => agentFilterFromProto(request.filter))
  const page = await attempt(what, ports.agentStore.listAgents(filter, pageOf(request)))
  context.audit.success()
  const agents = page.rows.map((agent) => agentToProto(agent, request.outputMask))
  return { agents, nextPageToken: page.nextToken }
}

async function getAgent(
  ports: AgentPorts,
  request: GetAgentRequest,
  context: CallContext,
): Promise<Agent> {
  const id = agentId(ports, request.id, context)
  const agent = await attempt('failed to fetch agent', ports.agentStore.getAgent(id))
  if (agent === undefined) throw notFound('agent not found')
  context.audit.success()
  return agentToProto(agent, request.outputMask)
}

/** The agent may attest again: deleting is also how a ban is lifted. */
async function deleteAgent(
  ports: AgentPorts,
  request: DeleteAgentRequest,
  context: CallContext,
): Promise<Empty> {
  const id = agentId(ports, request.id, context)
  const deletion = ports.agentStore.deleteAgent(id, context.actor)
  await attemptOn('failed to remove agent', 'agent not found', deletion)
  closeConnections(ports, id)
  context.log.info('Agent deleted', { spiffe_id: id.toString() })
  context.audit.success()
  return {}
}

async function banAgent(
  ports: AgentPorts,
  request: BanAgentRequest,
  context: CallContext,
): Promise<Empty> {
  const id = agentId(ports, request.id, context)
  const ban = ports.agentStore.banAgent(id, context.actor)
  await attemptOn('failed to ban agent', 'agent not found', ban)
  closeConnections(ports, id)
  context.log.info('Agent banned', { spiffe_id: id.toString() })
  context.audit.success()
  return {}
}

function agentId(ports: AgentPorts, proto: SPIFFEID | undefined, context: CallContext): SpiffeId {
  const id = prefixed('invalid agent ID', () => agentIdFromProto(proto, ports.trustDomain))
  context.audit.add(() => ({ spiffe_id: id.toString() }))
  return id
}

/**
 * What the agent does on its next connection tells it why. Other servers learn by the change log.
 */
function closeConnections(ports: AgentPorts, id: SpiffeId): void {
  ports.connections.closeWhere((connection) => connection.spiffeId?.equals(id) ?? false)
}

export function renewalAuditFields({ params }: RenewAgentRequest): LogFields {
  return params === undefined || params.csr.length === 0 ? {} : csrAuditFields(params.csr)
}

/** The old certificate stays active until the new one is first used (api.md §3 step 8). */
async function renewAgent(
  ports: AgentPorts,
  request: RenewAgentRequest,
  context: CallContext,
): Promise<RenewAgentResponse> {
  const { id } = callingAgent(context)
  const csr = request.params?.csr ?? new Uint8Array()
  context.audit.add(() => renewalAuditFields(request))
  const agent = await attempt('failed to fetch agent', ports.agentStore.getAgent(id))
  if (agent === undefined) throw notFound('agent not found')
  if (agent.canReattest) throw mustReattest()
  context.log.info('Renewing agent SVID')
  if (request.params === undefined) throw invalidArgument('params cannot be nil')
  if (csr.length === 0) throw invalidArgument('missing CSR')
  const svid = await signAgentSvid(ports.issuance, id, csr, context)
  const serial = toDecimal(svid.serialNumber)
  const update = ports.agentStore.setNewSerial(id, serial, svid.notAfter)
  await attemptOn('failed to update agent', 'agent not found', update)
  context.audit.success()
  return {
    svid: {
      id: spiffeIdToProto(id),
      certChain: [...svid.chain],
      expiresAt: BigInt(svid.notAfter),
      hint: '',
    },
  }
}

function mustReattest(): SignetError {
  return new SignetError(
    'permission_denied',
    'agent_must_reattest',
    'agent must reattest instead of renew',
    { denial: 'agent_must_reattest' },
  )
}

/** `currentBundleSerial` is accepted and ignored, as in SPIRE. */
async function postStatus(
  ports: AgentPorts,
  request: PostStatusRequest,
  context: CallContext,
): Promise<PostStatusResponse> {
  const { id } = callingAgent(context)
  const version = request.agentVersion
  context.audit.add(() => ({ spiffe_id: id.toString() }))
  // SPIRE says characters and counts bytes.
  if (Buffer.byteLength(version) > AGENT_VERSION_LENGTH_MAX) {
    throw invalidArgument(`agent version is too long (max ${AGENT_VERSION_LENGTH_MAX} characters)`)
  }
  if (version !== '') {
    context.audit.add(() => ({ agent_version: version }))
    const update = ports.agentStore.setAgentVersion(id, version)
    await attemptOn('failed to update agent', 'agent not found', update)
    context.log.debug('Agent status updated', { spiffe_id: id.toString(), agent_version: version })
  }
  context.audit.success()
  return {}
}

function filterFields(filter: ListAgentsRequest_Filter | undefined): LogFields {
  if (filter === undefined) return {}
  const { byAttestationType, byBanned, byCanReattest, bySelectorMatch } = filter
  return {
    ...(byAttestationType !== '' && { node_attestor_type: byAttestationType }),
    ...(byBanned !== undefined && { by_banned: byBanned }),
    ...(byCanReattest !== undefined && { by_can_reattest: byCanReattest }),
    ...(bySelectorMatch && {
      by_selector_match: matchField(bySelectorMatch.match),
      by_selectors: bySelectorMatch.selectors.map(({ type, value }) => `${type}:${value}`).join(),
    }),
  }
}
