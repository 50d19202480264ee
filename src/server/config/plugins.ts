/**
 * The server's plugin blocks (features.md §2.1, §2.5). Differs from SPIRE: no block is required. A
 * file without any gets the embedded PostgreSQL, sealed keys and join tokens.
 */
import { join } from 'node:path'
import { refuse } from '../../base/config/document.ts'
import { section, text, texts } from '../../base/config/fields.ts'
import {
  atMostOne,
  type PluginCatalog,
  readPluginData,
  readPlugins,
} from '../../base/config/plugins.ts'
import { absolutePath } from '../../base/config/shared.ts'
import type { ConfigSources, PluginConfig } from '../../base/config/types.ts'
import type { RawDocument } from '../../base/hcl/raw.ts'
import { type DataStoreContext, readDataStore } from './datastore.ts'
import type { KeyManagerConfig, NodeAttestorConfig, ServerConfig } from './types.ts'

const CATALOG: PluginCatalog = {
  DataStore: { known: ['sql'], later: [] },
  KeyManager: {
    known: ['sealed', 'disk', 'memory'],
    later: ['aws_kms', 'gcp_kms', 'azure_key_vault', 'hashicorp_vault'],
  },
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
  UpstreamAuthority: {
    known: [],
    later: ['disk', 'spire', 'vault', 'aws_pca', 'awssecret', 'gcp_cas', 'cert-manager', 'ejbca'],
  },
  CredentialComposer: { known: [], later: ['uniqueid'] },
  Notifier: { known: [], later: ['k8sbundle', 'gcs_bundle'] },
  BundlePublisher: {
    known: [],
    later: [
      'k8s_configmap',
      'aws_s3',
      'gcp_cloudstorage',
      'azure_blob',
      'aws_rolesanywhere_trustanchor',
    ],
  },
}

const SEALED = section({ key_files: texts }).unwrap()
const DISK = section({ keys_path: text }).unwrap()
const MEMORY = section({}).unwrap()

export interface PluginContext {
  readonly dataDir: string
  readonly sources: ConfigSources
  readonly fresh: boolean
}

export function readServerPlugins(
  raw: unknown,
  document: RawDocument,
  context: PluginContext,
  notices: string[],
): Pick<ServerConfig, 'dataStore' | 'keyManager' | 'nodeAttestors'> {
  const plugins = readPlugins(raw, document, CATALOG, context.sources.files)
  return {
    dataStore: readDataStore(oneDataStore(plugins), dataStoreContext(context), notices),
    keyManager: readKeyManager(atMostOne(plugins, 'KeyManager'), context, notices),
    nodeAttestors: readNodeAttestors(plugins),
  }
}

function oneDataStore(plugins: readonly PluginConfig[]): PluginConfig | undefined {
  const found = plugins.filter((plugin) => plugin.type === 'DataStore')
  if (found.length > 1) throw refuse('only one DataStore plugin is allowed')
  return found[0]
}

function dataStoreContext(context: PluginContext): DataStoreContext {
  const { files, workingDir } = context.sources
  return {
    fresh: context.fresh,
    // The embedded database makes this file when it first starts (`datastore/embedded.ts`).
    isStarted: () => files.size(join(context.dataDir, 'postgres', 'password')) > 0,
    sizeOf: (path) => files.size(absolutePath(path, workingDir)),
  }
}

function readKeyManager(
  plugin: PluginConfig | undefined,
  context: PluginContext,
  notices: string[],
): KeyManagerConfig {
  switch (plugin?.name) {
    case 'memory':
      readPluginData(plugin, MEMORY)
      return { kind: 'memory' }
    case 'disk':
      readPluginData(plugin, DISK)
      notices.push(
        'KeyManager "disk" means "sealed" here: keys are kept in the database under a key-encryption key in data_dir; keys_path is ignored',
      )
      return { kind: 'sealed', keyFiles: [] }
    case 'sealed': {
      const files = readPluginData(plugin, SEALED).key_files ?? []
      if (files.includes(''))
        throw refuse('plugins.KeyManager.sealed.plugin_data.key_files: empty path')
      return {
        kind: 'sealed',
        keyFiles: files.map((file) => absolutePath(file, context.sources.workingDir)),
      }
    }
    default:
      return { kind: 'sealed', keyFiles: [] }
  }
}

/** `join_token` is there without a block, as in SPIRE; an explicit one keeps its place. */
function readNodeAttestors(plugins: readonly PluginConfig[]): NodeAttestorConfig[] {
  const attestors = plugins
    .filter((plugin) => plugin.type === 'NodeAttestor')
    .map(({ name, data, dataFile }) => ({ type: name, dataFile, ...splitCluster(name, data) }))
  if (attestors.some((attestor) => attestor.type === 'join_token')) return attestors
  return [{ type: 'join_token', data: {}, dataFile: '', cluster: '' }, ...attestors]
}

/** `cluster` is ours and for every attestor; the rest is the attestor's own. */
export function splitCluster(
  attestor: string,
  pluginData: PluginConfig['data'],
): Pick<NodeAttestorConfig, 'data' | 'cluster'> {
  const { cluster = '', ...data } = pluginData
  if (typeof cluster !== 'string') {
    throw refuse(`plugins.NodeAttestor.${attestor}.plugin_data.cluster: must be a string`)
  }
  return { data, cluster }
}
