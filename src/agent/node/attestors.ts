/** The node attestor that the configuration names. Only those listed here exist. */
import type { NodeAttestorAgent } from '../../attestors/contract.ts'
import { createJoinTokenAgent } from '../../attestors/node/join-token/agent.ts'
import { createX509popAgent } from '../../attestors/node/x509pop/agent.ts'
import { parseX509popAgentConfig } from '../../attestors/node/x509pop/config.ts'
import { SignetError } from '../../base/error.ts'
import type { Random } from '../../base/ports.ts'
import type { AgentConfig } from '../config.ts'

/** A join token given on the command line or in the file wins over the plugin, as in SPIRE. */
export function createNodeAttestor(
  config: Pick<AgentConfig, 'joinToken' | 'nodeAttestor'>,
  random: Random,
): NodeAttestorAgent {
  const { type, data } = config.nodeAttestor
  if (config.joinToken !== '' || type === 'join_token') {
    return createJoinTokenAgent(config.joinToken)
  }
  if (type === 'x509pop') {
    return createX509popAgent({ config: parseX509popAgentConfig(data), random })
  }
  throw new SignetError(
    'unimplemented',
    'unknown_node_attestor',
    `node attestor ${JSON.stringify(type)} is not supported yet`,
  )
}
