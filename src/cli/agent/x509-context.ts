/**
 * X.509-SVIDs as the Workload API delivers them: read, checked against their bundle, and printed
 * the way scripts expect (features.md §3.3).
 */
import { createPrivateKey } from 'node:crypto'
import { goQuote } from '../../base/log-text.ts'
import type { EpochSeconds } from '../../base/ports.ts'
import { SpiffeId } from '../../spiffe/spiffe-id.ts'
import type { X509SVID, X509SVIDResponse } from '../../wire/gen/workload.ts'
import { type Certificate, parseCertificates } from '../../x509/certificate.ts'
import { verifyChain } from '../../x509/path.ts'
import { CliError, messageOf } from '../error.ts'
import { formatGoDuration, plural, utcTime } from '../output/go-text.ts'

export interface X509Identity {
  readonly spiffeId: string
  readonly hint: string
  /** Leaf first. */
  readonly chain: readonly Certificate[]
  /** PKCS#8 DER. */
  readonly privateKey: Uint8Array
  readonly bundle: readonly Certificate[]
  /** By trust domain, sorted. */
  readonly federatedBundles: readonly (readonly [string, readonly Certificate[]])[]
}

/** Throws when anything does not parse or verify: a half-good answer is not printed. */
export function readIdentities(response: X509SVIDResponse, now: EpochSeconds): X509Identity[] {
  if (response.svids.length === 0) throw new CliError('workload response contains no svids')
  const federatedBundles = Object.entries(response.federatedBundles)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([trustDomain, der]) => [trustDomain, federatedBundle(trustDomain, der)] as const)
  const identities = response.svids.map((svid, index) => {
    try {
      return { ...readIdentity(svid), federatedBundles }
    } catch (thrown) {
      const id = goQuote(svid.spiffeId)
      const why = messageOf(thrown)
      throw new CliError(`failed to parse svid entry ${index} for spiffe id ${id}: ${why}`)
    }
  })
  for (const identity of identities) verify(identity, now)
  return identities
}

function federatedBundle(trustDomain: string, der: Uint8Array): Certificate[] {
  let bundle: Certificate[]
  try {
    bundle = parseCertificates(der)
  } catch (thrown) {
    const why = messageOf(thrown)
    throw new CliError(
      `failed to parse bundle for federated domain ${goQuote(trustDomain)}: ${why}`,
    )
  }
  if (bundle.length === 0) {
    throw new CliError(`no certificates in bundle for federated domain ${goQuote(trustDomain)}`)
  }
  return bundle
}

function readIdentity(svid: X509SVID): Omit<X509Identity, 'federatedBundles'> {
  const chain = parseCertificates(svid.x509Svid)
  if (chain.length === 0) throw new CliError('no certificates found')
  const key = Buffer.from(svid.x509SvidKey)
  let privateKey: Uint8Array
  try {
    const parsed = createPrivateKey({ key, format: 'der', type: 'pkcs8' })
    privateKey = new Uint8Array(parsed.export({ format: 'der', type: 'pkcs8' }))
  } catch {
    throw new CliError('failed to parse private key')
  }
  let bundle: Certificate[]
  try {
    bundle = parseCertificates(svid.bundle)
  } catch (thrown) {
    throw new CliError(`failed to parse trust bundle: ${messageOf(thrown)}`)
  }
  if (bundle.length === 0) throw new CliError('no certificates in trust bundle')
  return { spiffeId: svid.spiffeId, hint: svid.hint, chain, privateKey, bundle }
}

function verify(identity: X509Identity, now: EpochSeconds): void {
  SpiffeId.parse(identity.spiffeId)
  const [leaf, ...intermediates] = identity.chain
  try {
    verifyChain({ leaf: leaf!, intermediates, roots: identity.bundle, now })
  } catch (thrown) {
    const id = goQuote(identity.spiffeId)
    throw new CliError(
      `${id} SVID failed verification against bundle: x509svid: could not verify leaf certificate: ${messageOf(thrown)}`,
    )
  }
}

export function identitiesText(identities: readonly X509Identity[], elapsedMs: number): string {
  const count = identities.length
  const noun = plural(count, 'svid', 'svids')
  const blocks = identities.map((identity) => `\n${identityBlock(identity)}`)
  return `Received ${count} ${noun} after ${formatGoDuration(elapsedMs)}\n${blocks.join('')}\n`
}

function identityBlock(identity: X509Identity): string {
  const [leaf, ...intermediates] = identity.chain
  return [
    `SPIFFE ID:\t\t${identity.spiffeId}\n`,
    identity.hint === '' ? '' : `Hint:\t\t\t${identity.hint}\n`,
    `SVID Valid After:\t${utcTime(leaf!.notBefore)}\n`,
    `SVID Valid Until:\t${utcTime(leaf!.notAfter)}\n`,
    ...intermediates.map((certificate, i) => validity(`Intermediate #${i + 1}`, certificate)),
    ...identity.bundle.map((certificate, i) => validity(`CA #${i + 1}`, certificate)),
    ...identity.federatedBundles.flatMap(([trustDomain, bundle]) =>
      bundle.map((certificate, i) => validity(`[${trustDomain}] CA #${i + 1}`, certificate)),
    ),
  ].join('')
}

function validity(what: string, certificate: Certificate): string {
  const after = `${what} Valid After:\t${utcTime(certificate.notBefore)}\n`
  return `${after}${what} Valid Until:\t${utcTime(certificate.notAfter)}\n`
}
