/**
 * What the agent takes from another agent's Workload API: the bundle to bootstrap from
 * (`trust_bundle_spiffe_workload_api`), the X509-SVID to attest with (x509pop's `spiffe_endpoint_socket`).
 */
import type { Client } from '@grpc/grpc-js'
import type { PresentedIdentity } from '../../attestors/contract.ts'
import { SignetError } from '../../base/error.ts'
import type { Clock } from '../../base/ports.ts'
import type { TrustDomain } from '../../spiffe/trust-domain.ts'
import { SpiffeWorkloadAPIService } from '../../wire/gen/workload.ts'
import { openTcpChannel, openUnixChannel } from '../../wire/transport/channel.ts'
import { splitCertificates } from '../../x509/certificate.ts'
import { firstAnswer } from '../workload-api/first-answer.ts'

const FETCH_TIMEOUT_MS = 60_000

/** `address` is `unix:///abs/path` or `tcp://ip:port`, as the configuration checked. */
export async function fetchWorkloadApiBundle(
  address: string,
  trustDomain: TrustDomain,
  clock: Clock,
): Promise<readonly Uint8Array[]> {
  const settings = { clock, timeoutMs: FETCH_TIMEOUT_MS }
  const method = SpiffeWorkloadAPIService.fetchX509Bundles
  const answer = firstAnswer(open(address), method, {}, settings)
  const { bundles } = await answer.catch((cause: SignetError) => {
    const text = `unable to fetch trust bundle from SPIFFE Workload API ${address}: ${cause.message}`
    throw new SignetError('unavailable', 'bootstrap_bundle_unusable', text, { cause })
  })
  const bundle = bundles[trustDomain.id]
  if (bundle === undefined) {
    const text = `SPIFFE Workload API ${address} did not provide a trust bundle for trust domain "${trustDomain}"`
    throw new SignetError('unavailable', 'bootstrap_bundle_unusable', text)
  }
  return splitCertificates(bundle).map((der) => Uint8Array.from(der))
}

/** The default one: the first. Rejects with unavailable and SPIRE's words. */
export async function fetchWorkloadApiSvid(
  address: string,
  clock: Clock,
): Promise<PresentedIdentity> {
  const settings = { clock, timeoutMs: FETCH_TIMEOUT_MS }
  const answer = firstAnswer(open(address), SpiffeWorkloadAPIService.fetchX509Svid, {}, settings)
  const unusable = (why: string, cause?: unknown) => {
    const text = `unable to fetch SVID from workload API: ${why}`
    return new SignetError('unavailable', 'svid_unusable', text, { cause })
  }
  const { svids } = await answer.catch((cause: SignetError) => {
    throw unusable(cause.message, cause)
  })
  const [svid] = svids
  if (svid === undefined) throw unusable('no identity issued')
  return {
    certificates: splitCertificates(svid.x509Svid).map((der) => Uint8Array.from(der)),
    privateKey: Uint8Array.from(svid.x509SvidKey),
  }
}

function open(address: string): Client {
  const path = /^unix:(?:\/\/)?(\/.*)$/.exec(address)?.[1]
  return path === undefined
    ? openTcpChannel(address.replace(/^tcp:\/\//, ''))
    : openUnixChannel(path)
}
