/**
 * The root certificates of each trust domain whose bundle we hold, parsed once per change of the
 * bundle: what the TCP door verifies client certificates against. Served from memory, so the door
 * works while the database is away.
 */
import type { Log } from '../base/ports.ts'
import type { Bundle } from '../spiffe/bundle.ts'
import { type Certificate, parseCertificate } from '../x509/certificate.ts'

export type TrustedRoots = (trustDomain: string) => readonly Certificate[] | undefined

/** `bundleOf` answers with the same object until that bundle changes. */
export function createTrustedRoots(
  bundleOf: (trustDomain: string) => Bundle | undefined,
  log: Log,
): TrustedRoots {
  const parsed = new WeakMap<Bundle, readonly Certificate[]>()
  return (trustDomain) => {
    const bundle = bundleOf(trustDomain)
    if (bundle === undefined) return undefined
    const known = parsed.get(bundle)
    if (known !== undefined) return known
    const roots = bundle.x509Authorities.flatMap(({ certificate }) => {
      try {
        return [parseCertificate(certificate)]
      } catch (error) {
        // One bad root of a partner must not shut out those that are good.
        log.warn('Bundle holds a certificate that can not be read', { error, trustDomain })
        return []
      }
    })
    parsed.set(bundle, roots)
    return roots
  }
}
