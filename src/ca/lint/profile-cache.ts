/**
 * Loaded profiles by issuer. Loading runs every lint rule, so it happens once per issuing
 * certificate and profile; a new certificate of the same cluster replaces what was loaded for the
 * old one.
 */
import { bytesEqual } from '../../base/bytes.ts'
import { SignetError } from '../../base/error.ts'
import type { TrustDomain } from '../../spiffe/trust-domain.ts'
import type { X509Issuer } from '../issuer-source.ts'
import { issuerFacts } from '../profile/issuer-facts.ts'
import { PROFILES, type SvidProfileName } from '../profile/profiles.ts'
import { planContext } from '../profile/svid-plan.ts'
import { type LoadedProfile, loadProfile } from './loaded-profile.ts'

/** Lifetimes of orders that ask for none (api.md §8.2). */
export interface SvidTtls {
  readonly x509SvidTtlSeconds: number
  readonly agentTtlSeconds: number
  readonly caTtlSeconds: number
}

export interface ProfileCache {
  /** Throws internal `lint_failed` when the profile makes bad certificates under this issuer. */
  get(issuer: X509Issuer, profile: SvidProfileName): LoadedProfile
}

interface Cached {
  readonly certificate: Uint8Array
  readonly profiles: Map<SvidProfileName, LoadedProfile>
}

export function createProfileCache(trustDomain: TrustDomain, ttls: SvidTtls): ProfileCache {
  /** By cluster: bounded by the deployment's clusters. */
  const clusters = new Map<number, Cached>()
  const defaults: Readonly<Record<SvidProfileName, number>> = {
    workload: ttls.x509SvidTtlSeconds,
    server: ttls.x509SvidTtlSeconds,
    agent: ttls.agentTtlSeconds,
    downstream_ca: ttls.caTtlSeconds,
  }
  return {
    get(issuer, name) {
      const { clusterId, certificate = new Uint8Array() } = issuer.authority
      let cached = clusters.get(clusterId)
      if (!cached || !sameCertificate(cached.certificate, certificate)) {
        cached = { certificate, profiles: new Map() }
        clusters.set(clusterId, cached)
      }
      const known = cached.profiles.get(name)
      if (known) return known
      const facts = issuerFacts(issuer)
      // The linter would say so too, but as a fault of ours: this is how the cluster was set up.
      if (PROFILES[name].isCa && facts.pathLength === 0) {
        throw new SignetError(
          'failed_precondition',
          'issuer_signs_no_ca',
          'X.509 authority of this cluster signs no downstream CA',
        )
      }
      const loaded = loadProfile(planContext(trustDomain, PROFILES[name], facts, defaults[name]))
      cached.profiles.set(name, loaded)
      return loaded
    },
  }
}

function sameCertificate(a: Uint8Array, b: Uint8Array): boolean {
  return a === b || bytesEqual(a, b)
}
