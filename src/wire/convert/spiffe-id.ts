/**
 * SPIFFE IDs and trust domains on the server API (api.md §1, §3). Throws invalid_argument;
 * handlers put their own words before the text. The texts are SPIRE's: its CLI shows them.
 */
import { SignetError } from '../../base/error.ts'
import { isReservedPath, SpiffeId } from '../../spiffe/spiffe-id.ts'
import { TrustDomain } from '../../spiffe/trust-domain.ts'
import type { SPIFFEID } from '../gen/spire/api/types/spiffeid.ts'

export function spiffeIdFromProto(proto: SPIFFEID | undefined): SpiffeId {
  if (proto === undefined) throw invalid('request must specify SPIFFE ID')
  return SpiffeId.of(TrustDomain.parse(proto.trustDomain), proto.path)
}

export function spiffeIdToProto(id: SpiffeId): SPIFFEID {
  return { trustDomain: id.trustDomain.name, path: id.path }
}

export function memberIdFromProto(proto: SPIFFEID | undefined, trustDomain: TrustDomain): SpiffeId {
  const id = spiffeIdFromProto(proto)
  checkMembership(id, trustDomain, 'a member of')
  return id
}

export function agentIdFromProto(proto: SPIFFEID | undefined, trustDomain: TrustDomain): SpiffeId {
  const id = spiffeIdFromProto(proto)
  checkMembership(id, trustDomain, 'an agent in')
  if (id.path.startsWith('/spire/agent/')) return id
  throw invalid(
    `"${id}" is not an agent in trust domain "${trustDomain}"; path is not in the agent namespace`,
  )
}

export function workloadIdFromProto(
  proto: SPIFFEID | undefined,
  trustDomain: TrustDomain,
): SpiffeId {
  return checkWorkloadId(spiffeIdFromProto(proto), trustDomain)
}

/** Also for IDs that come from elsewhere (a CSR's SAN). */
export function checkWorkloadId(id: SpiffeId, trustDomain: TrustDomain): SpiffeId {
  checkMembership(id, trustDomain, 'a workload in')
  if (!isReservedPath(id.path)) return id
  throw invalid(
    `"${id}" is not a workload in trust domain "${trustDomain}"; path is in the reserved namespace`,
  )
}

function checkMembership(id: SpiffeId, trustDomain: TrustDomain, role: string): void {
  if (!id.trustDomain.equals(trustDomain)) {
    throw invalid(`"${id}" is not a member of trust domain "${trustDomain}"`)
  }
  if (id.path === '') {
    throw invalid(`"${id}" is not ${role} trust domain "${trustDomain}"; path is empty`)
  }
}

function invalid(text: string): SignetError {
  return new SignetError('invalid_argument', 'bad_spiffe_id', text)
}
