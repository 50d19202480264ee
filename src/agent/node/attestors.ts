/** The node attestor that the configuration names. Only those listed here exist. */
import type { NodeAttestorAgent, PresentedIdentity } from '../../attestors/contract.ts'
import { createJoinTokenAgent } from '../../attestors/node/join-token/agent.ts'
import { createX509popAgent } from '../../attestors/node/x509pop/agent.ts'
import { parseX509popAgentConfig } from '../../attestors/node/x509pop/config.ts'
import { configurePlugin, type PluginContext } from '../../base/config/reconfigure.ts'
import { SignetError } from '../../base/error.ts'
import type { Random } from '../../base/ports.ts'
import type { AgentConfig } from '../config.ts'

/** A join token given on the command line or in the file wins over the plugin, as in SPIRE. */
export function createNodeAttestor(
  config: Pick<AgentConfig, 'joinToken' | 'nodeAttestor'>,
  ports: PluginContext & {
    readonly random: Random
    /** From the Workload API at this address. */
    readonly fetchSvid: (address: string) => Promise<PresentedIdentity>
  },
): NodeAttestorAgent {
  const { type } = config.nodeAttestor
  if (config.joinToken !== '' || type === 'join_token') {
    return createJoinTokenAgent(config.joinToken)
  }
  if (type === 'x509pop') {
    const log = ports.log.with({ plugin_name: type, plugin_type: 'NodeAttestor' })
    const current = configurePlugin(config.nodeAttestor, { ...ports, log }, (data) => ({
      value: createX509popAgent({ ...ports, config: parseX509popAgentConfig(data) }),
      // It reads its certificate at each attestation.
      files: [],
    }))
    return { type, attest: () => current().attest() }
  }
  throw new SignetError(
    'unimplemented',
    'unknown_node_attestor',
    `node attestor ${JSON.stringify(type)} is not supported yet`,
  )
}
