/**
 * Server half of the `join_token` node attestor (api.md §7.1, step 3): the payload is a token,
 * which is redeemed at most once (I7), expired or not.
 */
import { SignetError } from '../../../base/error.ts'
import type { Clock, EpochSeconds } from '../../../base/ports.ts'
import { SpiffeId } from '../../../spiffe/spiffe-id.ts'
import type { TrustDomain } from '../../../spiffe/trust-domain.ts'
import type { NodeAttestorServer } from '../../contract.ts'

/** Longest token taken: it becomes a path segment of the agent's ID. */
const TOKEN_BYTES_MAX = 1024

/** The store's part in it: whoever gets the row has the token, nobody else ever will. */
export interface JoinTokenSource {
  redeemJoinToken(value: string): Promise<
    | {
        readonly value: string
        readonly expiresAt: EpochSeconds
        readonly clusterId: number
      }
    | undefined
  >
}

export function createJoinTokenServer(parts: {
  readonly tokens: JoinTokenSource
  readonly clock: Pick<Clock, 'nowSeconds'>
  readonly trustDomain: TrustDomain
}): NodeAttestorServer {
  return {
    type: 'join_token',
    async attest({ payload }) {
      const text = decodeToken(payload)
      const token = text === undefined ? undefined : await parts.tokens.redeemJoinToken(text)
      if (!token) {
        throw invalid(
          'join_token_unknown',
          'failed to attest: join token does not exist or has already been used',
        )
      }
      if (token.expiresAt < parts.clock.nowSeconds()) {
        throw invalid('join_token_expired', 'join token expired')
      }
      return {
        // The stored value, not the received one, names the agent (SPI-01-007).
        agentId: SpiffeId.of(parts.trustDomain, `/spire/agent/join_token/${token.value}`),
        selectors: [],
        canReattest: false,
        clusterId: token.clusterId,
      }
    },
  }
}

/** Undefined for what no store can hold: then there is nothing to ask it. */
function decodeToken(payload: Uint8Array): string | undefined {
  if (payload.length === 0 || payload.length > TOKEN_BYTES_MAX) return undefined
  // Tokens are path segments of SPIFFE IDs. Bytes outside ASCII have no single text form.
  if (payload.some((byte) => byte < 0x21 || byte > 0x7e)) return undefined
  return Buffer.from(payload).toString('latin1')
}

function invalid(code: string, text: string): SignetError {
  return new SignetError('invalid_argument', code, text)
}
