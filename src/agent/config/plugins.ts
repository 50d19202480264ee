/**
 * The agent's plugin blocks (features.md §2.1). Differs from SPIRE: no block is required. A file
 * without any gets join tokens, the `unix` attestor and keys that survive a restart.
 */
import { section, text } from '../../base/config/fields.ts'
import {
  atMostOne,
  type PluginCatalog,
  readPluginData,
  readPlugins,
} from '../../base/config/plugins.ts'
import { absolutePath } from '../../base/config/shared.ts'
import type { ConfigSources, PluginConfig } from '../../base/config/types.ts'
import type { RawDocument } from '../../base/hcl/raw.ts'
import type { AgentConfig, AgentPluginConfig } from './types.ts'

const CATALOG: PluginCatalog = {
  KeyManager: { known: ['disk', 'memory'], later: [] },
  NodeAttestor: {
    known: ['join_token', 'x509pop'],
    later: [
      'k8s_psat',
      'sshpop',
      'tpm_devid',
      'http_challenge',
      'aws_iid',
      'azure_imds',
      'azure_msi',
      'gcp_iit',
    ],
  },
  WorkloadAttestor: {
    known: ['unix'],
    later: ['k8s', 'docker', 'systemd', 'slurm', 'windows'],
  },
  SVIDStore: { known: [], later: ['aws_secretsmanager', 'gcp_secretmanager'] },
}

const DISK = section({ directory: text }).unwrap()
const MEMORY = section({}).unwrap()

export function readAgentPlugins(
  raw: unknown,
  document: RawDocument,
  context: { readonly sources: ConfigSources; readonly dataDir: string },
): Pick<AgentConfig, 'keyManager' | 'nodeAttestor' | 'workloadAttestors'> {
  const plugins = readPlugins(raw, document, CATALOG, context.sources.files)
  const workload = plugins.filter((plugin) => plugin.type === 'WorkloadAttestor')
  const node = atMostOne(plugins, 'NodeAttestor')
  return {
    keyManager: readKeyManager(atMostOne(plugins, 'KeyManager'), context),
    nodeAttestor:
      node === undefined ? { type: 'join_token', data: {}, dataFile: '' } : attestor(node),
    workloadAttestors:
      workload.length === 0 ? [{ type: 'unix', data: {}, dataFile: '' }] : workload.map(attestor),
  }
}

function attestor(plugin: PluginConfig): AgentPluginConfig {
  return { type: plugin.name, data: plugin.data, dataFile: plugin.dataFile }
}

function readKeyManager(
  plugin: PluginConfig | undefined,
  context: { readonly sources: ConfigSources; readonly dataDir: string },
): AgentConfig['keyManager'] {
  if (plugin?.name === 'memory') {
    readPluginData(plugin, MEMORY)
    return { kind: 'memory' }
  }
  const directory = plugin === undefined ? '' : (readPluginData(plugin, DISK).directory ?? '')
  if (directory === '') return { kind: 'disk', directory: context.dataDir }
  return { kind: 'disk', directory: absolutePath(directory, context.sources.workingDir) }
}
