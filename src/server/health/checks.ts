/** The server's health checks under SPIRE's subsystem names (features.md §4.3). */

import type { Health, HealthState } from '../../base/http-health.ts'
import { errorText } from '../../base/log-text.ts'
import { CLUSTER_CONTROL, CLUSTER_DEFAULT } from '../../ca/authority/authority.ts'
import type { IssuerSource } from '../../ca/issuer-source.ts'
import type { Rotator } from '../../ca/rotation/rotator.ts'
import type { ChangeFeed } from '../change-feed.ts'
import type { BundleLookup } from '../lookups.ts'

export interface ServerHealthParts {
  readonly bundles: BundleLookup
  readonly issuers: IssuerSource
  readonly rotator: Pick<Rotator, 'failedTicks'>
  readonly feed: Pick<ChangeFeed, 'isConnected'>
  /** Are the doors open? */
  readonly isServing: () => boolean
  readonly jwtSvidsDisabled: boolean
}

/** Ticks of the rotator that may fail before it counts as a fault: SPIRE's number. */
const FAILED_TICKS_MAX = 2

export function addServerChecks(health: Health, parts: ServerHealthParts): void {
  health.add('server', () => checkServer(parts))
  health.add('server.ca', () => checkAuthorities(parts))
  health.add('server.ca.rotator', () => {
    const failing = parts.rotator.failedTicks() > FAILED_TICKS_MAX
    return state(
      !failing,
      failing ? { rotation_err: 'rotations exceed the threshold of failures' } : {},
    )
  })
  // Differs from SPIRE: live all the same. TLS, sync and bundles go on from memory, and a restart
  // would lose that.
  health.add('catalog.datastore', () => {
    const ready = parts.feed.isConnected()
    const readyDetails = ready ? {} : { list_bundle_err: 'PostgreSQL is away' }
    return { live: true, ready, liveDetails: {}, readyDetails }
  })
}

async function checkServer({ bundles, isServing }: ServerHealthParts): Promise<HealthState> {
  if (!isServing()) {
    const details = { get_bundle_err: 'server APIs are not served' }
    return { ...state(false, details), started: false }
  }
  const bundle = await bundles.ownBundle()
  return state(
    bundle !== undefined,
    bundle === undefined ? { get_bundle_err: 'unable to fetch bundle' } : {},
  )
}

/**
 * Differs from SPIRE: it signs a certificate for nobody. Here everything signed has its row in the
 * ledger, so the check asks for usable issuers instead.
 */
function checkAuthorities({ issuers, jwtSvidsDisabled }: ServerHealthParts): HealthState {
  try {
    for (const { id } of [CLUSTER_CONTROL, CLUSTER_DEFAULT]) issuers.x509Issuer(id)
    if (!jwtSvidsDisabled) issuers.jwtIssuer(CLUSTER_DEFAULT.id)
    return state(true, {})
  } catch (error) {
    return state(false, { sign_x509_svid_err: errorText(error) })
  }
}

function state(good: boolean, details: unknown): HealthState {
  return { live: good, ready: good, liveDetails: details, readyDetails: details }
}
