/** The server halves of the node attestors that the configuration enables, by type. */
import type { NodeAttestorServer } from '../attestors/contract.ts'
import { createJoinTokenServer, type JoinTokenSource } from '../attestors/node/join-token/server.ts'
import { parseX509popServerConfig } from '../attestors/node/x509pop/config.ts'
import { createX509popServer } from '../attestors/node/x509pop/server.ts'
import { loadTrustFiles } from '../attestors/node/x509pop/trust-files.ts'
import { configurePlugin, type PluginContext } from '../base/config/reconfigure.ts'
import { SignetError } from '../base/error.ts'
import type { Clock, Random } from '../base/ports.ts'
import { CLUSTER_CONTROL, CLUSTER_DEFAULT } from '../ca/authority/authority.ts'
import type { TrustDomain } from '../spiffe/trust-domain.ts'
import { splitCluster } from './config/plugins.ts'
import type { NodeAttestorConfig } from './config/types.ts'

export interface NodeAttestorParts extends PluginContext {
  readonly trustDomain: TrustDomain
  readonly clock: Clock
  readonly random: Random
  readonly joinTokens: JoinTokenSource
  /** DER of the own bundle's roots at this moment. */
  readonly ownRoots: () => readonly Uint8Array[]
}

/** Throws invalid_argument for plugin data or a cluster that is not understood: the start fails. */
export function createNodeAttestors(
  configs: readonly NodeAttestorConfig[],
  parts: NodeAttestorParts,
): ReadonlyMap<string, NodeAttestorServer> {
  return new Map(configs.map((config) => [config.type, createOne(config, parts)]))
}

function createOne(config: NodeAttestorConfig, parts: NodeAttestorParts): NodeAttestorServer {
  checkCluster(config.cluster)
  const log = parts.log.with({
    subsystem_name: 'catalog',
    plugin_name: config.type,
    plugin_type: 'NodeAttestor',
  })
  switch (config.type) {
    case 'join_token':
      return createJoinTokenServer({ ...parts, tokens: parts.joinTokens })
    case 'x509pop': {
      const current = configurePlugin(config, { ...parts, log }, (pluginData) => {
        const { data, cluster } = splitCluster(config.type, pluginData)
        checkCluster(cluster)
        const x509pop = parseX509popServerConfig(data)
        const files = loadTrustFiles(x509pop.caBundlePaths)
        const roots = async () => (x509pop.mode === 'spiffe' ? parts.ownRoots() : files)
        return { value: createX509popServer({ ...parts, log, config: x509pop, roots }), files }
      })
      return { type: config.type, attest: (context) => current().attest(context) }
    }
    default:
      throw new SignetError(
        'unimplemented',
        'not_supported_yet',
        `node attestor "${config.type}" is not supported yet`,
      )
  }
}

/** The attestor's `cluster` counts where the evidence itself names none. */
function checkCluster(cluster: string): void {
  if (cluster === '' || cluster === CLUSTER_DEFAULT.name) return
  // `control` signs servers and agents, never workloads; others can't be made yet.
  const why = cluster === CLUSTER_CONTROL.name ? 'can hold no agents' : 'is not known'
  throw new SignetError('invalid_argument', 'bad_cluster', `cluster "${cluster}" ${why}`)
}
