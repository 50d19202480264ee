/** `plugin_data` of the two halves of x509pop (features.md §2.2). */
import type { z } from 'zod'
import { flag, lenientSection, text, texts, whole } from '../../../base/config/fields.ts'
import { CHAIN_LENGTH_MAX } from '../../../base/limits.ts'
import { badPluginData as bad, decodePluginData } from '../../plugin-data.ts'

const MAX_INTERMEDIATES_DEFAULT = 4
const MAX_RSA_KEY_SIZE_DEFAULT = 8192
const SPIFFE_PREFIX_DEFAULT = '/spire-exchange/'

export interface X509popServerConfig {
  readonly mode: 'external_pki' | 'spiffe'
  /** Starts and ends with a slash. */
  readonly spiffePrefix: string
  readonly caBundlePaths: readonly string[]
  /** Empty: the mode's default. */
  readonly agentPathTemplate: string
  readonly maxIntermediates: number
  readonly maxRsaKeySize: number
  readonly verifyClientIp: boolean
}

export interface X509popAgentConfig {
  /** Of the Workload API whose X509-SVID is presented; empty: the files are. */
  readonly endpointSocket: string
  readonly privateKeyPath: string
  readonly certificatePath: string
  /** Empty when there is none. */
  readonly intermediatesPath: string
}

const SERVER = lenientSection({
  mode: text,
  spiffe_prefix: text,
  svid_prefix: text,
  ca_bundle_path: text,
  ca_bundle_paths: texts,
  agent_path_template: text,
  max_intermediates: whole,
  max_rsa_key_size: whole,
  verify_client_ip: flag,
}).unwrap()

const AGENT = lenientSection({
  private_key_path: text,
  certificate_path: text,
  intermediates_path: text,
  spiffe_endpoint_socket: text,
}).unwrap()

const UNDECODED = 'unable to decode configuration'

/** Throws invalid_argument `bad_plugin_data` with SPIRE's texts. */
export function parseX509popServerConfig(
  pluginData: Readonly<Record<string, unknown>>,
): X509popServerConfig {
  const raw = decodePluginData(SERVER, pluginData, UNDECODED)
  const mode = raw.mode || 'external_pki'
  if (mode !== 'external_pki' && mode !== 'spiffe') {
    throw bad('mode can only be either spiffe or external_pki')
  }
  const maxIntermediates = raw.max_intermediates ?? MAX_INTERMEDIATES_DEFAULT
  if (maxIntermediates <= 0) throw bad('max_intermediates must be greater than 0')
  if (maxIntermediates >= CHAIN_LENGTH_MAX) {
    // Differs from SPIRE: it has no upper bound; ours is that of every chain we verify.
    throw bad(`max_intermediates must be less than ${CHAIN_LENGTH_MAX}`)
  }
  const maxRsaKeySize = raw.max_rsa_key_size ?? MAX_RSA_KEY_SIZE_DEFAULT
  if (maxRsaKeySize <= 0) throw bad('max_rsa_key_size must be greater than 0')
  return {
    mode,
    spiffePrefix: prefixOf(raw),
    caBundlePaths: bundlePaths(mode, raw),
    agentPathTemplate: raw.agent_path_template ?? '',
    maxIntermediates,
    maxRsaKeySize,
    verifyClientIp: raw.verify_client_ip ?? false,
  }
}

/** Throws invalid_argument `bad_plugin_data` with SPIRE's texts. */
export function parseX509popAgentConfig(
  pluginData: Readonly<Record<string, unknown>>,
): X509popAgentConfig {
  const raw = decodePluginData(AGENT, pluginData, UNDECODED)
  const endpointSocket = raw.spiffe_endpoint_socket ?? ''
  if (endpointSocket === '') {
    if (!raw.private_key_path) throw bad('private_key_path is required')
    if (!raw.certificate_path) throw bad('certificate_path is required')
  } else if (!/^(unix:(\/\/)?\/[^?#]+|tcp:\/\/[0-9a-fA-F.:[\]]+:\d+)$/.test(endpointSocket)) {
    throw bad('spiffe_endpoint_socket must be unix:///path or tcp://ip:port')
  }
  return {
    endpointSocket,
    privateKeyPath: raw.private_key_path ?? '',
    certificatePath: raw.certificate_path ?? '',
    intermediatesPath: (raw.intermediates_path ?? '').trim(),
  }
}

function bundlePaths(mode: string, raw: z.output<typeof SERVER>): string[] {
  const { ca_bundle_path: one = '', ca_bundle_paths: many = [] } = raw
  if (mode === 'spiffe') {
    if (one !== '' || many.length > 0) {
      throw bad('you can not use ca_bundle_path or ca_bundle_paths in spiffe mode')
    }
    return []
  }
  if (one !== '' && many.length > 0) {
    throw bad('only one of ca_bundle_path or ca_bundle_paths can be configured, not both')
  }
  const paths = one === '' ? many : [one]
  if (paths.length === 0) throw bad('one of ca_bundle_path or ca_bundle_paths must be configured')
  return paths
}

/** SPIRE's code reads `spiffe_prefix`, its documentation says `svid_prefix`: both are taken. */
function prefixOf(raw: z.output<typeof SERVER>): string {
  if (raw.spiffe_prefix !== undefined && raw.svid_prefix !== undefined) {
    throw bad('only one of spiffe_prefix or svid_prefix can be configured, not both')
  }
  const prefix = raw.spiffe_prefix ?? raw.svid_prefix ?? SPIFFE_PREFIX_DEFAULT
  return prefix.endsWith('/') ? prefix : `${prefix}/`
}
