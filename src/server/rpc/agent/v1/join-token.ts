/**
 * Join tokens (api.md §7.1): made for an operator, redeemed once by an agent that attests with
 * them. The node attestor `join_token` is built into the server, since its evidence is the
 * server's own row.
 */
import type { NodeAttestation } from '../../../../attestors/contract.ts'
import { SignetError } from '../../../../base/error.ts'
import { JOIN_TOKEN_BYTES_MAX } from '../../../../base/limits.ts'
import { newUuid } from '../../../../base/uuid.ts'
import { SpiffeId } from '../../../../spiffe/spiffe-id.ts'
import type { TrustDomain } from '../../../../spiffe/trust-domain.ts'
import { prefixed } from '../../../../wire/convert/prefixed.ts'
import { workloadIdFromProto } from '../../../../wire/convert/spiffe-id.ts'
import type { CreateJoinTokenRequest } from '../../../../wire/gen/spire/api/server/agent/v1/agent.ts'
import type { JoinToken } from '../../../../wire/gen/spire/api/types/jointoken.ts'
import { joinTokenAlias } from '../../../join-token-alias.ts'
import type { CallContext } from '../../context.ts'
import { attempt, failed, invalidArgument } from '../../failure.ts'
import type { HandlerPorts } from '../../ports.ts'

export const JOIN_TOKEN = 'join_token'

type JoinTokenPorts = Pick<
  HandlerPorts,
  'trustDomain' | 'clock' | 'random' | 'joinTokenStore' | 'defaultClusterId'
>

export async function createJoinToken(
  ports: JoinTokenPorts,
  request: CreateJoinTokenRequest,
  context: CallContext,
): Promise<JoinToken> {
  context.audit.add(() => (request.ttl > 0 ? { ttl: request.ttl } : {}))
  if (request.ttl < 1) throw invalidArgument('ttl is required, you must provide one')
  const alias = request.agentId
  const aliasId =
    alias === undefined
      ? undefined
      : prefixed('invalid agent ID', () => workloadIdFromProto(alias, ports.trustDomain))
  if (aliasId !== undefined) context.audit.add(() => ({ spiffe_id: aliasId.toString() }))
  const value = request.token === '' ? newUuid(ports.random) : request.token
  const parentId = prefixed('invalid token', () => joinTokenAgentId(ports.trustDomain, value))
  const expiresAt = ports.clock.nowSeconds() + request.ttl
  try {
    await ports.joinTokenStore.createJoinToken(
      { value, expiresAt, clusterId: ports.defaultClusterId },
      aliasId && joinTokenAlias(parentId, aliasId),
      context.actor,
    )
  } catch (thrown) {
    throw creationError(thrown)
  }
  context.audit.success()
  return { value, expiresAt: BigInt(expiresAt) }
}

/** SPIRE answers a taken token with Internal; its CLI prints the text. */
function creationError(thrown: unknown): SignetError {
  const error = failed('failed to create token', thrown)
  if (error.kind !== 'already_exists') return error
  return new SignetError('internal', error.code, error.message, { cause: error })
}

/** At most one caller ever gets the token; it is gone even when it had expired. */
export async function attestJoinToken(
  ports: JoinTokenPorts,
  payload: Uint8Array,
): Promise<NodeAttestation> {
  const value = Buffer.from(payload).toString('utf8')
  const redemption = ports.joinTokenStore.redeemJoinToken(value)
  const token = await attempt('failed to fetch join token', redemption)
  if (token === undefined) {
    throw invalidArgument('failed to attest: join token does not exist or has already been used')
  }
  if (token.expiresAt < ports.clock.nowSeconds()) throw invalidArgument('join token expired')
  const agentId = joinTokenAgentId(ports.trustDomain, value)
  return { agentId, selectors: [], canReattest: false, clusterId: token.clusterId }
}

/** The token is one path segment; a slash would name an agent of another attestor. */
function joinTokenAgentId(trustDomain: TrustDomain, value: string): SpiffeId {
  if (value.includes('/') || Buffer.byteLength(value) > JOIN_TOKEN_BYTES_MAX) {
    throw invalidArgument('token must be one path segment of at most 255 bytes')
  }
  return SpiffeId.of(trustDomain, `/spire/agent/${JOIN_TOKEN}/${value}`)
}
