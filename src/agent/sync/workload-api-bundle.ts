/** The bundle of another agent's Workload API, to bootstrap from (`trust_bundle_spiffe_workload_api`). */
import type { Client } from '@grpc/grpc-js'
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

function open(address: string): Client {
  const path = /^unix:(?:\/\/)?(\/.*)$/.exec(address)?.[1]
  return path === undefined
    ? openTcpChannel(address.replace(/^tcp:\/\//, ''))
    : openUnixChannel(path)
}
