/** The node attestor that the configuration names. Only those listed here exist. */
import type { NodeAttestorAgent } from '../../attestors/contract.ts'
import { utf8 } from '../../base/bytes.ts'
import { SignetError } from '../../base/error.ts'
import type { AgentConfig } from '../config.ts'

/** A join token given on the command line or in the file wins over the plugin, as in SPIRE. */
export function createNodeAttestor(config: AgentConfig): NodeAttestorAgent {
  if (config.joinToken !== '') return joinTokenAttestor(config.joinToken)
  throw new SignetError('invalid_argument', 'unknown_node_attestor', config.nodeAttestor.type)
}

function joinTokenAttestor(token: string): NodeAttestorAgent {
  return {
    type: 'join_token',
    async attest() {
      return {
        payload: utf8(token),
        async respond() {
          throw new SignetError('internal', 'unexpected_challenge', 'unexpected challenge')
        },
      }
    },
  }
}
