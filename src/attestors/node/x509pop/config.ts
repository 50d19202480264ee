/**
 * `plugin_data` of the two halves of x509pop (features.md §2.2). Values come from HCL or JSON, so
 * numbers and booleans may be quoted and a list of one may stand as its element.
 */
import { z } from 'zod'
import { SignetError } from '../../../base/error.ts'
import { CHAIN_LENGTH_MAX } from '../../../base/limits.ts'

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
  readonly privateKeyPath: string
  readonly certificatePath: string
  /** Empty when there is none. */
  readonly intermediatesPath: string
}

const integer = z.preprocess(
  (value) => (typeof value === 'string' && /^[+-]?\d+$/.test(value) ? Number(value) : value),
  z.int(),
)
const boolean = z.preprocess(
  (value) => (value === 'true' ? true : value === 'false' ? false : value),
  z.boolean(),
)
const strings = z.preprocess(
  (value) => (typeof value === 'string' ? [value] : value),
  z.array(z.string()),
)

const serverSchema = z.strictObject({
  mode: z.string().default(''),
  spiffe_prefix: z.string().optional(),
  svid_prefix: z.string().optional(),
  ca_bundle_path: z.string().default(''),
  ca_bundle_paths: strings.default([]),
  agent_path_template: z.string().default(''),
  max_intermediates: integer.default(MAX_INTERMEDIATES_DEFAULT),
  max_rsa_key_size: integer.default(MAX_RSA_KEY_SIZE_DEFAULT),
  verify_client_ip: boolean.default(false),
})

const agentSchema = z.strictObject({
  private_key_path: z.string().default(''),
  certificate_path: z.string().default(''),
  intermediates_path: z.string().default(''),
  spiffe_endpoint_socket: z.string().default(''),
})

/** Throws invalid_argument `bad_plugin_data` with SPIRE's texts. */
export function parseX509popServerConfig(
  pluginData: Readonly<Record<string, unknown>>,
): X509popServerConfig {
  const raw = parse(serverSchema, pluginData)
  const mode = raw.mode === '' ? 'external_pki' : raw.mode
  if (mode !== 'external_pki' && mode !== 'spiffe') {
    throw bad('mode can only be either spiffe or external_pki')
  }
  if (raw.max_intermediates <= 0) throw bad('max_intermediates must be greater than 0')
  if (raw.max_intermediates >= CHAIN_LENGTH_MAX) {
    // Differs from SPIRE: it has no upper bound; ours is that of every chain we verify.
    throw bad(`max_intermediates must be less than ${CHAIN_LENGTH_MAX}`)
  }
  if (raw.max_rsa_key_size <= 0) throw bad('max_rsa_key_size must be greater than 0')
  return {
    mode,
    spiffePrefix: prefixOf(raw),
    caBundlePaths: bundlePaths(mode, raw),
    agentPathTemplate: raw.agent_path_template,
    maxIntermediates: raw.max_intermediates,
    maxRsaKeySize: raw.max_rsa_key_size,
    verifyClientIp: raw.verify_client_ip,
  }
}

/** Throws invalid_argument `bad_plugin_data` with SPIRE's texts. */
export function parseX509popAgentConfig(
  pluginData: Readonly<Record<string, unknown>>,
): X509popAgentConfig {
  const raw = parse(agentSchema, pluginData)
  if (raw.spiffe_endpoint_socket !== '') throw bad('spiffe_endpoint_socket is not supported yet')
  if (raw.private_key_path === '') throw bad('private_key_path is required')
  if (raw.certificate_path === '') throw bad('certificate_path is required')
  return {
    privateKeyPath: raw.private_key_path,
    certificatePath: raw.certificate_path,
    intermediatesPath: raw.intermediates_path.trim(),
  }
}

function bundlePaths(mode: string, raw: z.infer<typeof serverSchema>): string[] {
  const { ca_bundle_path: one, ca_bundle_paths: many } = raw
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
function prefixOf(raw: z.infer<typeof serverSchema>): string {
  if (raw.spiffe_prefix !== undefined && raw.svid_prefix !== undefined) {
    throw bad('only one of spiffe_prefix or svid_prefix can be configured, not both')
  }
  const prefix = raw.spiffe_prefix ?? raw.svid_prefix ?? SPIFFE_PREFIX_DEFAULT
  return prefix.endsWith('/') ? prefix : `${prefix}/`
}

function parse<T>(schema: z.ZodType<T>, pluginData: Readonly<Record<string, unknown>>): T {
  const result = schema.safeParse(pluginData)
  if (result.success) return result.data
  const issue = result.error.issues[0]
  const path = issue?.path.join('.') ?? ''
  throw bad(`unable to decode configuration: ${path === '' ? '' : `${path}: `}${issue?.message}`)
}

function bad(text: string): SignetError {
  return new SignetError('invalid_argument', 'bad_plugin_data', text)
}
