/**
 * The first trust bundle, before the server has been talked to (features.md §1.3): from a file,
 * from a URL, from another Workload API, or none at all when bootstrap is declared insecure.
 */
import { readFile } from 'node:fs/promises'
import { request as httpRequest } from 'node:http'
import { request as httpsRequest } from 'node:https'
import { getCACertificates } from 'node:tls'
import { SignetError } from '../../base/error.ts'
import { BOOTSTRAP_BUNDLE_BYTES_MAX } from '../../base/limits.ts'
import { errorText } from '../../base/log-text.ts'
import { parseBundleDocument } from '../../spiffe/bundle-document.ts'
import type { TrustDomain } from '../../spiffe/trust-domain.ts'
import { parseCertificate } from '../../x509/certificate.ts'
import { parsePemOf } from '../../x509/pem.ts'
import type { BootstrapConfig } from '../config.ts'

const DOWNLOAD_TIMEOUT_MS = 30_000

/** The X.509 authorities that another agent's Workload API gives for the trust domain. */
export type FetchWorkloadApiBundle = (
  address: string,
  trustDomain: TrustDomain,
) => Promise<readonly Uint8Array[]>

/** DER of the X.509 authorities; undefined for insecure bootstrap. */
export async function loadBootstrapBundle(
  config: BootstrapConfig,
  trustDomain: TrustDomain,
  fetchWorkloadApiBundle: FetchWorkloadApiBundle,
): Promise<readonly Uint8Array[] | undefined> {
  if (config.kind === 'insecure') return undefined
  const roots = await loadRoots(config, trustDomain, fetchWorkloadApiBundle)
  if (roots.length === 0) {
    throw unusable(`no certificates found in trust bundle ${nameOf(config)}`)
  }
  return roots
}

async function loadRoots(
  config: Exclude<BootstrapConfig, { kind: 'insecure' }>,
  trustDomain: TrustDomain,
  fetchWorkloadApiBundle: FetchWorkloadApiBundle,
): Promise<readonly Uint8Array[]> {
  if (config.kind === 'workload_api') {
    return fetchWorkloadApiBundle(config.address, trustDomain)
  }
  const text =
    config.kind === 'path'
      ? await readBundleFile(config.path)
      : await download(config.url, config.unixSocket)
  try {
    if (config.format === 'spiffe') {
      const { x509Authorities } = parseBundleDocument(trustDomain, text)
      return x509Authorities.map(({ certificate }) => certificate)
    }
    const certificates = parsePemOf(text, 'CERTIFICATE')
    if (certificates.length === 0) throw unusable('no PEM blocks')
    return certificates.map((der) => parseCertificate(der).der)
  } catch (cause) {
    throw unusable(`could not parse trust bundle ${nameOf(config)}`, cause)
  }
}

function nameOf(config: Exclude<BootstrapConfig, { kind: 'insecure' }>): string {
  if (config.kind === 'path') return config.path
  return config.kind === 'url' ? config.url : config.address
}

async function readBundleFile(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8')
  } catch (cause) {
    throw unusable('could not parse trust bundle', cause)
  }
}

/** Over https with the system's authorities, or http through a Unix socket (the config saw to it). */
function download(url: string, unixSocket: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const options = {
      timeout: DOWNLOAD_TIMEOUT_MS,
      // Node's own list knows none that this machine's administrator added.
      ca: getCACertificates('system'),
      ...(unixSocket === '' ? {} : { socketPath: unixSocket }),
    }
    const start = url.startsWith('https:') ? httpsRequest : httpRequest
    const fail = (cause: unknown) =>
      reject(unusable(`unable to fetch trust bundle URL ${url}`, cause))
    const request = start(url, options, (response) => {
      if (response.statusCode !== 200) {
        response.resume()
        return fail(new Error(`status ${response.statusCode}`))
      }
      const chunks: Buffer[] = []
      let size = 0
      response.on('data', (chunk: Buffer) => {
        size += chunk.length
        if (size > BOOTSTRAP_BUNDLE_BYTES_MAX)
          request.destroy(new Error('trust bundle is too large'))
        else chunks.push(chunk)
      })
      response.on('end', () => resolve(Buffer.concat(chunks).toString('utf8')))
      response.on('error', fail)
    })
    request.on('timeout', () => request.destroy(new Error('timed out')))
    request.on('error', fail)
    request.end()
  })
}

function unusable(text: string, cause?: unknown): SignetError {
  const why = cause === undefined ? '' : `: ${errorText(cause)}`
  return new SignetError('unavailable', 'bootstrap_bundle_unusable', `${text}${why}`, { cause })
}
