/** Entries and bundles as servers send them to the agent's own types. Throws on malformed ones. */
import { SignetError } from '../../base/error.ts'
import type { Bundle } from '../../spiffe/bundle.ts'
import { sortByKeyId } from '../../spiffe/jwks.ts'
import { TrustDomain } from '../../spiffe/trust-domain.ts'
import { bundleFromTrustedProto } from '../../wire/convert/bundle.ts'
import { selectorsFromProto } from '../../wire/convert/selector.ts'
import { spiffeIdFromProto } from '../../wire/convert/spiffe-id.ts'
import type { Bundle as BundleProto } from '../../wire/gen/spire/api/types/bundle.ts'
import type { Entry as EntryProto } from '../../wire/gen/spire/api/types/entry.ts'
import type { AuthorizedEntry } from '../entry.ts'

export function entryFromProto(proto: EntryProto): AuthorizedEntry {
  if (proto.id === '') throw malformed('missing entry ID')
  if (proto.selectors.length === 0) throw malformed('missing selectors')
  return {
    id: proto.id,
    spiffeId: spiffeIdFromProto(proto.spiffeId),
    selectors: selectorsFromProto(proto.selectors),
    federatesWith: proto.federatesWith.map((text) => TrustDomain.parse(text).name),
    admin: proto.admin,
    downstream: proto.downstream,
    revisionNumber: proto.revisionNumber,
    storeSvid: proto.storeSvid,
    hint: proto.hint,
    createdAt: Number(proto.createdAt),
    disableX509SvidPrefetch: proto.additionalAttributes?.disableX509SvidPrefetch ?? false,
    jwtSvidIncludeJti: proto.additionalAttributes?.jwtSvidIncludeJti ?? false,
  }
}

/** JWT keys in a stable order: an answer to workloads must not change when nothing did. */
export function bundleFromProto(proto: BundleProto): Bundle {
  const bundle = bundleFromTrustedProto(proto)
  return { ...bundle, jwtAuthorities: sortByKeyId(bundle.jwtAuthorities) }
}

function malformed(text: string): SignetError {
  return new SignetError('invalid_argument', 'malformed_entry', text)
}
