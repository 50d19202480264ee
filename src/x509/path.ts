/**
 * Path validation (RFC 5280 §6) as SPIFFE needs it: signatures, validity, CA:TRUE with keyCertSign,
 * path lengths, names chained byte for byte, critical extensions understood. Key identifiers only
 * order and prune candidates. No policies, no revocation here.
 *
 * Differs from SPIRE: a CA with name constraints is refused, where Go's x509 applies them.
 *
 * Hostile chains are bounded: certificates, depth and the number of signature checks
 * (path explosions, reliability.md T-S7).
 */
import { constants, verify } from 'node:crypto'
import { bytesEqual } from '../base/bytes.ts'
import { SignetError } from '../base/error.ts'
import { CHAIN_LENGTH_MAX, CHAIN_SIGNATURE_CHECKS_MAX } from '../base/limits.ts'
import type { EpochSeconds } from '../base/ports.ts'
import { rfc3339 } from '../base/time-text.ts'
import { type Certificate, isSelfIssued } from './certificate.ts'
import { OID, SIGNATURE_ALGORITHMS } from './oid.ts'
import { FOREIGN_KEY_POLICY, importPublicKey, type KeyPolicy, parsePublicKey } from './spki.ts'

export interface ChainInput {
  readonly leaf: Certificate
  readonly intermediates: readonly Certificate[]
  readonly roots: readonly Certificate[]
  readonly now: EpochSeconds
  /** What every key in a chain must meet before a signature is checked with it. */
  readonly keyPolicy?: KeyPolicy
}

const PSS_SALT = constants.RSA_PSS_SALTLEN_DIGEST

interface Search {
  readonly input: ChainInput
  readonly chains: Certificate[][]
  checksLeft: number
  /** Verdicts of this search by child, then parent: a pair is verified once. */
  readonly verdicts: Map<Certificate, Map<Certificate, boolean>>
  /** Why the nearest candidate failed: a better answer than "unknown authority". */
  failure: SignetError | undefined
}

/**
 * All chains found, leaf first, root last; at least one. A leaf that is a root is a chain of one.
 * Throws unauthenticated `certificate_untrusted`, `certificate_expired` or
 * `certificate_not_understood`, with Go's texts.
 */
export function verifyChain(input: ChainInput): Certificate[][] {
  if (input.intermediates.length + 1 > CHAIN_LENGTH_MAX) throw untrusted('too many certificates')
  const fault = ownFault(input.leaf, input.now)
  if (fault) throw fault
  // As in Go: what is itself trusted needs no issuer.
  if (input.roots.some((root) => bytesEqual(root.der, input.leaf.der))) return [[input.leaf]]
  const search: Search = {
    input,
    chains: [],
    checksLeft: CHAIN_SIGNATURE_CHECKS_MAX,
    verdicts: new Map(),
    failure: undefined,
  }
  extend(search, [input.leaf])
  if (search.chains.length === 0) {
    throw search.failure ?? untrusted('x509: certificate signed by unknown authority')
  }
  return search.chains
}

/** Does `issuer`'s key verify the signature of `certificate`? Nothing else is checked. */
export function verifyCertificateSignature(
  certificate: Certificate,
  issuer: Certificate,
  policy: KeyPolicy = FOREIGN_KEY_POLICY,
): boolean {
  if (certificate.signatureAlgorithm === undefined) return false
  const facts = SIGNATURE_ALGORITHMS[certificate.signatureAlgorithm]
  try {
    const { type } = parsePublicKey(issuer.publicKey, policy)
    if ((type.startsWith('ec-') ? 'ec' : type) !== facts.keyFamily) return false
    const key = importPublicKey(issuer.publicKey)
    // The PSS identifiers we know fix the salt: as long as the hash.
    const pss = { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: PSS_SALT }
    const input = facts.pss ? { key, ...pss } : key
    return verify(facts.hash, certificate.tbs, input, certificate.signature)
  } catch {
    // A key that cannot be used has verified nothing.
    return false
  }
}

function extend(search: Search, chain: Certificate[]): void {
  const child = chain[chain.length - 1]!
  const isNext = (issuer: Certificate) =>
    !chain.some((seen) => isSameAuthority(seen, issuer)) &&
    mayIssue(search, issuer, child, chain) &&
    signs(search, issuer, child)
  for (const root of search.input.roots) {
    if (isNext(root)) search.chains.push([...chain, root])
  }
  if (chain.length >= CHAIN_LENGTH_MAX) return
  for (const intermediate of search.input.intermediates) {
    if (isNext(intermediate)) extend(search, [...chain, intermediate])
  }
}

/**
 * By name and key, not by bytes: certificates of one key under one name all sign each other, and a
 * handful of them would make thousands of orders to walk them in.
 */
function isSameAuthority(a: Certificate, b: Certificate): boolean {
  return bytesEqual(a.subject, b.subject) && bytesEqual(a.publicKey, b.publicKey)
}

/** All that can be said without a signature check. */
function mayIssue(
  search: Search,
  issuer: Certificate,
  child: Certificate,
  chain: readonly Certificate[],
): boolean {
  if (!bytesEqual(issuer.subject, child.issuer)) return false
  const hinted = issuer.subjectKeyId.length > 0 && child.authorityKeyId.length > 0
  if (hinted && !bytesEqual(issuer.subjectKeyId, child.authorityKeyId)) return false
  const fault = ownFault(issuer, search.input.now) ?? issuerFault(issuer, chain)
  if (fault) search.failure ??= fault
  return fault === undefined
}

function ownFault(certificate: Certificate, now: EpochSeconds): SignetError | undefined {
  if (now < certificate.notBefore || now > certificate.notAfter) {
    const [relation, limit] =
      now < certificate.notBefore
        ? ['before', certificate.notBefore]
        : ['after', certificate.notAfter]
    return refused(
      'certificate_expired',
      'x509: certificate has expired or is not yet valid: ' +
        `current time ${rfc3339(now)} is ${relation} ${rfc3339(limit)}`,
    )
  }
  if (certificate.unhandledCritical.includes(OID.nameConstraints)) {
    return refused(
      'certificate_not_understood',
      'x509: name constraints are not supported: use a CA without them',
    )
  }
  if (certificate.unhandledCritical.length > 0) {
    return refused('certificate_not_understood', 'x509: unhandled critical extension')
  }
  return undefined
}

function issuerFault(issuer: Certificate, chain: readonly Certificate[]): SignetError | undefined {
  const usable = issuer.keyUsage === undefined || issuer.keyUsage.has('keyCertSign')
  if (!issuer.isCa || !usable) {
    return untrusted(
      'x509: invalid signature: parent certificate cannot sign this kind of certificate',
    )
  }
  // RFC 5280 §6.1.4 (l): self-issued intermediates do not count.
  const between = chain.slice(1).filter((certificate) => !isSelfIssued(certificate)).length
  if (issuer.pathLength !== undefined && between > issuer.pathLength) {
    return untrusted('x509: too many intermediates for path length constraint')
  }
  return undefined
}

function signs(search: Search, issuer: Certificate, child: Certificate): boolean {
  const known = search.verdicts.get(child) ?? new Map<Certificate, boolean>()
  search.verdicts.set(child, known)
  const verdict = known.get(issuer)
  if (verdict !== undefined) return verdict
  if (search.checksLeft === 0) throw untrusted('x509: signature check attempts limit reached')
  search.checksLeft--
  const good = verifyCertificateSignature(child, issuer, search.input.keyPolicy)
  known.set(issuer, good)
  return good
}

function untrusted(text: string): SignetError {
  return refused('certificate_untrusted', text)
}

function refused(code: string, text: string): SignetError {
  return new SignetError('unauthenticated', code, text)
}
