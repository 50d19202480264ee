/**
 * What Workload API streams carry, encoded once per view and shared by all streams that show it
 * (api.md §12.2). A view is immutable, so its encodings never go stale.
 */
import { concatBytes } from '../../base/bytes.ts'
import { formatWorkloadJwks } from '../../spiffe/jwks.ts'
import {
  JWTBundlesResponse,
  X509BundlesResponse,
  X509SVIDResponse,
} from '../../wire/gen/workload.ts'
import { dedupeHints } from '../svid-cache/hints.ts'
import type { TrustBundle } from '../svid-cache/trust-bundles.ts'
import type { WorkloadView } from '../svid-cache/x509-svid-cache.ts'

interface Encoded {
  x509Svids?: Buffer
  x509Bundles?: Buffer
  jwtBundles?: Buffer
}

const encodedViews = new WeakMap<WorkloadView, Encoded>()
const encodedKeySets = new WeakMap<TrustBundle, Uint8Array>()

export function x509SvidResponse(view: WorkloadView): Buffer {
  const encoded = encodedOf(view)
  encoded.x509Svids ??= encodeX509Svids(view)
  return encoded.x509Svids
}

export function x509BundlesResponse(view: WorkloadView): Buffer {
  const encoded = encodedOf(view)
  encoded.x509Bundles ??= toBuffer(
    X509BundlesResponse.encode({
      crl: [],
      bundles: bundleMap(visibleBundles(view), (bundle) => bundle.x509),
    }).finish(),
  )
  return encoded.x509Bundles
}

export function jwtBundlesResponse(view: WorkloadView): Buffer {
  const encoded = encodedOf(view)
  encoded.jwtBundles ??= toBuffer(
    JWTBundlesResponse.encode({ bundles: bundleMap(visibleBundles(view), jwtKeySet) }).finish(),
  )
  return encoded.jwtBundles
}

function jwtKeySet(bundle: TrustBundle): Uint8Array {
  const known = encodedKeySets.get(bundle)
  if (known !== undefined) return known
  const encoded = Buffer.from(formatWorkloadJwks(bundle.jwtAuthorities))
  encodedKeySets.set(bundle, encoded)
  return encoded
}

function encodeX509Svids(view: WorkloadView): Buffer {
  const svids = dedupeHints(view.identities, (identity) => identity.entry).map(
    ({ entry, svid }) => ({
      spiffeId: entry.spiffeId.toString(),
      x509Svid: concatBytes(svid.chain),
      x509SvidKey: svid.privateKey,
      bundle: view.bundle.x509,
      hint: entry.hint,
    }),
  )
  const federatedBundles = bundleMap(view.federatedBundles, (bundle) => bundle.x509)
  return toBuffer(X509SVIDResponse.encode({ svids, crl: [], federatedBundles }).finish())
}

/** The own bundle always; federated ones come with identities only. */
function visibleBundles(view: WorkloadView): readonly TrustBundle[] {
  return [view.bundle, ...view.federatedBundles]
}

function bundleMap(
  bundles: readonly TrustBundle[],
  bytesOf: (bundle: TrustBundle) => Uint8Array,
): Record<string, Uint8Array> {
  return Object.fromEntries(
    bundles.map((bundle) => [`spiffe://${bundle.trustDomain}`, bytesOf(bundle)]),
  )
}

function encodedOf(view: WorkloadView): Encoded {
  const known = encodedViews.get(view)
  if (known !== undefined) return known
  const encoded: Encoded = {}
  encodedViews.set(view, encoded)
  return encoded
}

function toBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}
