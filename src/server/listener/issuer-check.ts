/**
 * Of our own trust domain's certificates: was this one issued by an intermediate that is alive and
 * allowed for that class of ID (design.md §2)? So a cluster's key, which a plugged-in mesh CA may
 * hold, forges neither a server nor an agent, and a revoked intermediate opens no door.
 */
import { toHex } from '../../base/bytes.ts'
import type { Authorities } from '../../ca/authority/issuers.ts'
import { isReservedPath, type SpiffeId } from '../../spiffe/spiffe-id.ts'
import type { Certificate } from '../../x509/certificate.ts'

/**
 * `chain` as verified: leaf, intermediate, root, and nothing else, because our intermediates sign
 * no CA that could come in here. The identifier is that of the certificate that verified the leaf,
 * so our root vouches for it.
 */
export function isIssuedByLiveIssuer(
  authorities: Pick<Authorities, 'isLiveIssuer'>,
  chain: readonly Pick<Certificate, 'subjectKeyId'>[],
  id: SpiffeId,
): boolean {
  const issuer = chain[1]
  if (chain.length !== 3 || issuer === undefined) return false
  const live = authorities.isLiveIssuer(toHex(issuer.subjectKeyId))
  return live?.leafIdClass === (isReservedPath(id.path) ? 'reserved' : 'workload')
}
