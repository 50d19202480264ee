/** Agent half of the `join_token` node attestor: the token itself, and no challenge to answer. */
import { SignetError } from '../../../base/error.ts'
import type { NodeAttestorAgent } from '../../contract.ts'

const NOT_PROVIDED =
  'nodeattestor(join_token): join token was not provided: set join_token, join_token_file or -joinToken'

/** `token` is a secret: it goes into the payload and nowhere else. */
export function createJoinTokenAgent(token: string): NodeAttestorAgent {
  return {
    type: 'join_token',
    async attest() {
      if (token === '') {
        throw new SignetError('invalid_argument', 'join_token_missing', NOT_PROVIDED)
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
