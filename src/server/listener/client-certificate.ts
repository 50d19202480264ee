/**
 * Is this client certificate good enough for the server's door (api.md §2, "Client verification")?
 *
 * X509-SVID rules on the leaf, a chain to the bundle of the certificate's *own* trust domain, and
 * membership in ours or in `admin_ids`. In our own domain the certificate's issuer must also be
 * alive in the authority table and allowed for that class of ID, so that a cluster's intermediate
 * can forge neither a server nor an agent here (design.md §2). Whether the caller may call a
 * method is asked again on every call, elsewhere.
 */
import { SignetError } from '../../base/error.ts'
import { CHAIN_LENGTH_MAX } from '../../base/limits.ts'
import type { EpochSeconds } from '../../base/ports.ts'
import { SpiffeId } from '../../spiffe/spiffe-id.ts'
import type { TrustDomain } from '../../spiffe/trust-domain.ts'
import { type Certificate, parseCertificate } from '../../x509/certificate.ts'
import { verifyChain } from '../../x509/path.ts'

export interface ClientCertificatePolicy {
  readonly trustDomain: TrustDomain
  readonly adminIds: readonly SpiffeId[]
  /** Roots of a trust domain's current bundle; undefined when there is no such bundle. */
  rootsOf(trustDomain: string): readonly Certificate[] | undefined
  /**
   * Own domain only: may the issuer at `chain[1]` have issued `chain[0]` with this ID? `chain` is
   * leaf first, root last.
   */
  mayHaveIssued(chain: readonly Certificate[], id: SpiffeId): boolean
}

export interface ClientIdentity {
  readonly spiffeId: SpiffeId
  /** As presented, leaf first. */
  readonly chain: readonly Certificate[]
}

/** Throws unauthenticated (or the parser's invalid_argument) with go-spiffe's words; they are logged only. */
export function verifyClientCertificate(
  presented: readonly Uint8Array[],
  policy: ClientCertificatePolicy,
  now: EpochSeconds,
): ClientIdentity {
  // Before anything is parsed: the peer is a stranger still.
  if (presented.length > CHAIN_LENGTH_MAX) throw refused('chain_too_long', 'too many certificates')
  const chain = presented.map(parseCertificate)
  const leaf = chain[0]
  if (leaf === undefined) throw refused('empty_chain', 'empty certificates chain')
  const spiffeId = leafId(leaf)
  const isOurs = spiffeId.trustDomain.equals(policy.trustDomain)
  const roots = policy.rootsOf(spiffeId.trustDomain.name)
  if (roots === undefined) {
    throw refused(
      'no_bundle',
      `could not get X509 bundle: no bundle found for trust domain "${spiffeId.trustDomain.name}"`,
    )
  }
  if (!isOurs && !policy.adminIds.some((admin) => admin.equals(spiffeId))) {
    throw refused('unexpected_trust_domain', `unexpected trust domain in ID "${spiffeId}"`)
  }
  const paths = verifyChain({ leaf, intermediates: chain.slice(1), roots, now })
  if (isOurs && !paths.some((path) => policy.mayHaveIssued(path, spiffeId))) {
    throw refused('issuer_not_allowed', `issuer may not issue "${spiffeId}"`)
  }
  return { spiffeId, chain }
}

/** X509-SVID §5.2: a leaf that could sign others is no identity. */
function leafId(leaf: Certificate): SpiffeId {
  const [uri, ...others] = leaf.uriNames
  if (uri === undefined) throw refused('no_uri_san', 'certificate contains no URI SAN')
  if (others.length > 0) {
    throw refused('several_uri_sans', 'certificate contains more than one URI SAN')
  }
  if (leaf.isCa) throw refused('leaf_is_ca', 'leaf certificate with CA flag set to true')
  if (leaf.keyUsage?.has('keyCertSign')) {
    throw refused('leaf_signs_certificates', 'leaf certificate with KeyCertSign key usage')
  }
  if (leaf.keyUsage?.has('cRLSign')) {
    throw refused('leaf_signs_crls', 'leaf certificate with KeyCrlSign key usage')
  }
  return SpiffeId.parse(uri)
}

function refused(code: string, text: string): SignetError {
  return new SignetError('unauthenticated', code, text)
}
