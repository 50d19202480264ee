/** Agent half of the `join_token` node attestor: the token itself, and no challenge to answer. */
import { SignetError } from '../../../base/error.ts'
import type { NodeAttestorAgent } from '../../contract.ts'

/** `token` is a secret: it goes into the payload and nowhere else. */
export function createJoinTokenAgent(token: string): NodeAttestorAgent {
  return {
    type: 'join_token',
    async attest() {
      if (token === '') {
        throw new SignetError('failed_precondition', 'join_token_missing', 'join token is empty')
      }
      return {
        payload: new TextEncoder().encode(token),
        async respond() {
          throw new SignetError(
            'internal',
            'unexpected_challenge',
            'server sent a challenge for a join token',
          )
        },
      }
    },
  }
}
