/**
 * How the agent first learns whom to trust (features.md §1.3): exactly one source, or insecurely by
 * explicit word. Texts are SPIRE's.
 */
import { refuse } from '../../base/config/document.ts'
import { absolutePath, readDurationMs } from '../../base/config/shared.ts'
import type { RawAgent } from './raw.ts'
import type { AgentConfig, BootstrapConfig } from './types.ts'

const DEFAULT_REBOOTSTRAP_DELAY = '10m'

type Bootstrap = Pick<AgentConfig, 'bootstrap' | 'rebootstrapMode' | 'rebootstrapDelayMs'>

export function readBootstrap(agent: RawAgent, workingDir: string): Bootstrap {
  checkSources(agent)
  const format = readFormat(agent)
  checkUrl(agent)
  const mode = readMode(agent)
  const delay = agent.rebootstrap_delay || DEFAULT_REBOOTSTRAP_DELAY
  return {
    bootstrap: sourceOf(agent, format, workingDir),
    rebootstrapMode: mode,
    rebootstrapDelayMs: readDurationMs('error parsing rebootstrap delay duration', delay),
  }
}

function checkSources(agent: RawAgent): void {
  const url = Boolean(agent.trust_bundle_url)
  const path = Boolean(agent.trust_bundle_path)
  if (agent.trust_bundle_spiffe_workload_api) {
    const or = 'or trust_bundle_spiffe_workload_api can be specified, not both'
    if (agent.insecure_bootstrap) throw refuse(`only one of insecure_bootstrap ${or}`)
    if (url) throw refuse(`only one of trust_bundle_url ${or}`)
    if (path) throw refuse(`only one of trust_bundle_path ${or}`)
    if (agent.trust_bundle_unix_socket) {
      throw refuse('trust_bundle_unix_socket can not be used with trust_bundle_spiffe_workload_api')
    }
    checkWorkloadApiAddress(agent.trust_bundle_spiffe_workload_api)
  }
  if (agent.insecure_bootstrap) {
    if (url && path) {
      throw refuse(
        'only one of insecure_bootstrap, trust_bundle_url, or trust_bundle_path can be specified, not the three options',
      )
    }
    if (url) {
      throw refuse('only one of insecure_bootstrap or trust_bundle_url can be specified, not both')
    }
    if (path) {
      throw refuse('only one of insecure_bootstrap or trust_bundle_path can be specified, not both')
    }
  } else if (!path && !url && !agent.trust_bundle_spiffe_workload_api) {
    throw refuse(
      'trust_bundle_path, trust_bundle_url, or trust_bundle_spiffe_workload_api must be configured unless insecure_bootstrap is set',
    )
  }
  if (url && path) {
    throw refuse('only one of trust_bundle_url or trust_bundle_path can be specified, not both')
  }
}

function checkWorkloadApiAddress(address: string): void {
  if (/^unix:\/\/\/[^?#]+$|^unix:\/[^/?#][^?#]*$|^tcp:\/\/[0-9a-fA-F.:[\]]+:\d+$/.test(address))
    return
  throw refuse(
    'trust_bundle_spiffe_workload_api is not a valid SPIFFE Workload API endpoint address: it must be unix:///path or tcp://ip:port',
  )
}

function readFormat(agent: RawAgent): 'pem' | 'spiffe' {
  const format = agent.trust_bundle_format || 'pem'
  if (format === 'pem' || format === 'spiffe') return format
  throw refuse('invalid value for trust_bundle_format, expected "pem" or "spiffe"')
}

function checkUrl(agent: RawAgent): void {
  if (agent.trust_bundle_unix_socket && !agent.trust_bundle_url) {
    throw refuse('if trust_bundle_unix_socket is specified, so must be trust_bundle_url')
  }
  if (!agent.trust_bundle_url) return
  if (!URL.canParse(agent.trust_bundle_url)) throw refuse('unable to parse trust bundle URL')
  const url = new URL(agent.trust_bundle_url)
  if (!agent.trust_bundle_unix_socket) {
    if (url.protocol !== 'https:') throw refuse('trust bundle URL must start with https://')
    return
  }
  if (url.protocol !== 'http:') {
    throw refuse('trust bundle URL must start with http:// when used with trust bundle unix socket')
  }
  for (const key of url.searchParams.keys()) {
    for (const prefix of ['spiffe-', 'spire-']) {
      if (key.startsWith(prefix)) {
        throw refuse(`trust_bundle_url query params can not start with ${prefix}`)
      }
    }
  }
}

function readMode(agent: RawAgent): Bootstrap['rebootstrapMode'] {
  const mode = agent.rebootstrap_mode || 'never'
  if (mode !== 'never' && mode !== 'auto' && mode !== 'always') {
    throw refuse(`unknown rebootstrap mode specified: ${mode}`)
  }
  if (mode !== 'never' && agent.insecure_bootstrap) {
    throw refuse('insecure_bootstrap option can not be used with rebootstrapping')
  }
  return mode
}

function sourceOf(agent: RawAgent, format: 'pem' | 'spiffe', workingDir: string): BootstrapConfig {
  if (agent.insecure_bootstrap) return { kind: 'insecure' }
  if (agent.trust_bundle_spiffe_workload_api) {
    return { kind: 'workload_api', address: agent.trust_bundle_spiffe_workload_api }
  }
  if (agent.trust_bundle_url) {
    const socket = agent.trust_bundle_unix_socket
    return {
      kind: 'url',
      url: agent.trust_bundle_url,
      unixSocket: socket ? absolutePath(socket, workingDir) : '',
      format,
    }
  }
  return { kind: 'path', path: absolutePath(agent.trust_bundle_path!, workingDir), format }
}
