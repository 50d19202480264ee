/**
 * AttestAgent (api.md §7.1): evidence in, challenges back and forth, an agent's certificate out.
 * Reached by anybody, so everything a stranger sends is bounded.
 *
 * PermissionDenied is final for an agent, so only a ban and the attestors' own verdicts say it;
 * every passing fault is another code.
 */
import type { NodeAttestation } from '../../../../attestors/contract.ts'
import { toDecimal } from '../../../../base/bytes.ts'
import { SignetError, toSignetError } from '../../../../base/error.ts'
import {
  ATTESTATION_BYTES_MAX,
  ATTESTATION_CHALLENGES_MAX,
  NODE_SELECTORS_MAX,
  SELECTOR_BYTES_MAX,
} from '../../../../base/limits.ts'
import type { IssuedX509Svid } from '../../../../ca/issuance.ts'
import { dedupeSelectors, type Selector, selectorKey } from '../../../../spiffe/selector.ts'
import { isAgentId } from '../../../../spiffe/spiffe-id.ts'
import { spiffeIdToProto } from '../../../../wire/convert/spiffe-id.ts'
import type {
  AttestAgentRequest,
  AttestAgentResponse,
} from '../../../../wire/gen/spire/api/server/agent/v1/agent.ts'
import type { CallContext } from '../../context.ts'
import { attempt, failed, invalidArgument } from '../../failure.ts'
import type { HandlerPorts } from '../../ports.ts'
import type { Stream } from '../../route.ts'
import { createAttestationSlots, impatient } from './attest-bounds.ts'
import { attestJoinToken, JOIN_TOKEN } from './join-token.ts'
import { signAgentSvid } from './sign.ts'

type AttestStream = Stream<AttestAgentRequest, AttestAgentResponse>

type AttestPorts = Pick<
  HandlerPorts,
  | 'trustDomain'
  | 'clock'
  | 'random'
  | 'agentStore'
  | 'joinTokenStore'
  | 'issuance'
  | 'nodeAttestors'
  | 'defaultClusterId'
  | 'agentSpiffeIdAsSelector'
>

interface AttestParams {
  readonly type: string
  readonly payload: Uint8Array
  readonly csr: Uint8Array
}

type AttestHandler = (stream: AttestStream, context: CallContext) => Promise<void>

export function createAttestHandler(ports: AttestPorts): AttestHandler {
  const slots = createAttestationSlots()
  return async (stream, context) => {
    using _slot = slots.enter(context.connection.remoteIp)
    await attestAgent(ports, impatient(stream, ports.clock), context)
  }
}

async function attestAgent(
  ports: AttestPorts,
  stream: AttestStream,
  context: CallContext,
): Promise<void> {
  const params = await receiveParams(stream)
  context.audit.add(() => ({ node_attestor_type: params.type }))
  const attestation =
    params.type === JOIN_TOKEN
      ? await attestJoinToken(ports, params.payload)
      : await attestByChallenge(ports, stream, params, context)
  const { agentId } = attestation
  checkAgentId(ports, attestation, params.type, context)
  context.audit.add(() => ({ agent_id: agentId.toString() }))
  const known = await attempt('failed to fetch agent', ports.agentStore.getAgent(agentId))
  if (known !== undefined && known.serialNumber === '') throw banned()
  const selectors = nodeSelectors(ports, attestation)
  const svid = await signAgentSvid(ports.issuance, agentId, params.csr, context)
  await record(ports, attestation, params.type, selectors, svid, context)
  await stream.send(resultMessage(attestation, svid))
  context.log.info('Agent attestation request completed', {
    node_attestor_type: params.type,
    agent_id: agentId.toString(),
    address: context.connection.peer,
  })
  context.audit.success()
}

async function receiveParams(stream: AttestStream): Promise<AttestParams> {
  const first = await stream.receive()
  if (first === undefined) throw invalidArgument('failed to receive request from stream: EOF')
  const params = first.params
  const malformed = (what: string) => invalidArgument(`malformed param: ${what}`)
  if (params === undefined) throw malformed('missing params')
  if (params.data === undefined) throw malformed('missing attestation data')
  if (params.params === undefined) throw malformed('missing X509-SVID parameters')
  if (params.params.csr.length === 0) throw malformed('missing CSR')
  if (params.data.type === '') throw malformed('missing attestation data type')
  if (params.data.payload.length === 0) throw malformed('missing attestation data payload')
  if (params.data.payload.length > ATTESTATION_BYTES_MAX) {
    throw malformed('attestation data payload is too large')
  }
  return { type: params.data.type, payload: params.data.payload, csr: params.params.csr }
}

/** The attestor's verdict keeps its code and text. */
async function attestByChallenge(
  ports: AttestPorts,
  stream: AttestStream,
  params: AttestParams,
  context: CallContext,
): Promise<NodeAttestation> {
  const attestor = ports.nodeAttestors.get(params.type)
  if (attestor === undefined) {
    const type = JSON.stringify(params.type)
    throw new SignetError(
      'failed_precondition',
      'unknown_node_attestor',
      `error getting node attestor: could not find node attestor type ${type}`,
    )
  }
  let challenges = 0
  return attestor.attest({
    payload: params.payload,
    remoteIp: context.connection.remoteIp,
    challenge: async (challenge) => {
      challenges++
      if (challenges > ATTESTATION_CHALLENGES_MAX) throw invalidArgument('too many challenges')
      await stream.send({ challenge })
      return receiveResponse(stream)
    },
  })
}

/** A response may be empty, as SPIRE's agents send it; an ended stream is none. */
async function receiveResponse(stream: AttestStream): Promise<Uint8Array> {
  const message = await stream.receive()
  if (message === undefined) {
    const text = 'failed to receive challenge from agent: EOF'
    throw new SignetError('internal', 'stream_ended', text)
  }
  const response = message.challengeResponse ?? new Uint8Array()
  if (response.length > ATTESTATION_BYTES_MAX) {
    throw invalidArgument('challenge response is too large')
  }
  return response
}

function checkAgentId(
  ports: AttestPorts,
  { agentId }: NodeAttestation,
  type: string,
  context: CallContext,
): void {
  if (agentId.path === '/spire/server') {
    const text = 'agent ID cannot collide with the server ID'
    throw new SignetError('internal', 'bad_agent_id', text)
  }
  if (!isAgentId(agentId, ports.trustDomain)) {
    const text = `invalid agent ID: "${agentId}" is not in the agent namespace`
    throw new SignetError('internal', 'bad_agent_id', text)
  }
  if (!agentId.path.startsWith(`/spire/agent/${type}/`)) {
    context.log.warn('Node attestor produced an agent ID outside its namespace', {
      agent_id: agentId.toString(),
      node_attestor_type: type,
    })
  }
}

function nodeSelectors(ports: AttestPorts, attestation: NodeAttestation): Selector[] {
  const own = { type: 'spiffe_id', value: attestation.agentId.toString() }
  const selectors = dedupeSelectors([
    ...attestation.selectors,
    ...(ports.agentSpiffeIdAsSelector ? [own] : []),
  ])
  if (selectors.length > NODE_SELECTORS_MAX) {
    throw invalidArgument(`too many node selectors, the maximum is ${NODE_SELECTORS_MAX}`)
  }
  if (selectors.some((one) => Buffer.byteLength(selectorKey(one)) > SELECTOR_BYTES_MAX)) {
    throw invalidArgument(`node selector is too long, the maximum is ${SELECTOR_BYTES_MAX} bytes`)
  }
  return selectors
}

async function record(
  ports: AttestPorts,
  attestation: NodeAttestation,
  attestationType: string,
  selectors: readonly Selector[],
  svid: IssuedX509Svid,
  context: CallContext,
): Promise<void> {
  const row = {
    id: attestation.agentId,
    attestationType,
    serialNumber: toDecimal(svid.serialNumber),
    expiresAt: svid.notAfter,
    canReattest: attestation.canReattest,
    selectors,
    clusterId: attestation.clusterId ?? ports.defaultClusterId,
  }
  try {
    await ports.agentStore.recordAttestation(row, context.actor)
  } catch (thrown) {
    // Banned between the check above and now: the store decides.
    if (toSignetError(thrown).kind === 'permission_denied') throw banned()
    throw failed('failed to update attested agent', thrown)
  }
}

/** Without a detail, as SPIRE sends it: AttestAgent's PermissionDenied is final by itself. */
function banned(): SignetError {
  const text = 'failed to attest: agent is banned'
  return new SignetError('permission_denied', 'agent_banned', text)
}

function resultMessage(attestation: NodeAttestation, svid: IssuedX509Svid): AttestAgentResponse {
  return {
    result: {
      svid: {
        id: spiffeIdToProto(attestation.agentId),
        certChain: [...svid.chain],
        expiresAt: BigInt(svid.notAfter),
        hint: '',
      },
      reattestable: attestation.canReattest,
    },
  }
}
