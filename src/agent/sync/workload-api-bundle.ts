/** The bundle of another agent's Workload API, to bootstrap from (`trust_bundle_spiffe_workload_api`). */
import { Metadata } from '@grpc/grpc-js'
import { SignetError } from '../../base/error.ts'
import type { Clock } from '../../base/ports.ts'
import type { TrustDomain } from '../../spiffe/trust-domain.ts'
import { SpiffeWorkloadAPIService, type X509BundlesResponse } from '../../wire/gen/workload.ts'
import { fromGrpcError } from '../../wire/status.ts'
import { callOptions } from '../../wire/transport/call.ts'
import { openUnixChannel } from '../../wire/transport/channel.ts'
import { splitCertificates } from '../../x509/certificate.ts'

const FETCH_TIMEOUT_MS = 30_000

/** `address` is `unix:///abs/path`. */
export async function fetchWorkloadApiBundle(
  address: string,
  trustDomain: TrustDomain,
  clock: Clock,
): Promise<readonly Uint8Array[]> {
  const path = /^unix:(?:\/\/)?(\/.*)$/.exec(address)?.[1]
  if (path === undefined) {
    const text = `unsupported Workload API address ${JSON.stringify(address)}`
    throw new SignetError('invalid_argument', 'bad_workload_api_address', text)
  }
  const { bundles } = await firstBundles(path, clock)
  const bundle = bundles[trustDomain.id]
  if (bundle === undefined) {
    const text = `SPIFFE Workload API ${address} did not provide a trust bundle for trust domain "${trustDomain}"`
    throw new SignetError('unavailable', 'bootstrap_bundle_unusable', text)
  }
  return splitCertificates(bundle).map((der) => Uint8Array.from(der))
}

function firstBundles(path: string, clock: Clock): Promise<X509BundlesResponse> {
  const client = openUnixChannel(path)
  const metadata = new Metadata()
  metadata.set('workload.spiffe.io', 'true')
  const method = SpiffeWorkloadAPIService.fetchX509Bundles
  const stream = client.makeServerStreamRequest(
    method.path,
    method.requestSerialize,
    method.responseDeserialize,
    {},
    metadata,
    callOptions({ clock, timeoutMs: FETCH_TIMEOUT_MS }),
  )
  return new Promise<X509BundlesResponse>((resolve, reject) => {
    stream.once('data', resolve)
    stream.on('error', (error) => reject(fromGrpcError(error)))
  }).finally(() => {
    stream.cancel()
    client.close()
  })
}
