/**
 * When an SVID is renewed (api.md §11.4): at its half-life, spread over ±10 % of that so that a
 * fleet started at once does not renew at once; or, with an availability target, when the target is
 * what remains. Drawn once per SVID, so that the moment is known when the SVID arrives.
 */
import type { EpochSeconds, Random } from '../../base/ports.ts'
import { unitInterval } from '../../base/ports.ts'

/** Remaining life, as a share of the lifetime, at which renewal is due. */
const REMAINING_SHARE_MIN = 0.45
const REMAINING_SHARE_SPAN = 0.1
/** Below this much life before the target is reached, half-life is used instead. */
const GRACE_SECONDS_MIN = 12 * 3600
const TARGET_JITTER_SECONDS = 600

export interface RotationPolicy {
  /** 0: off. */
  readonly availabilityTargetSeconds: number
}

export interface Lifetime {
  readonly notBefore: EpochSeconds
  readonly notAfter: EpochSeconds
}

/** The moment from which the SVID should be renewed; fractional. */
export function renewalTime(svid: Lifetime, policy: RotationPolicy, random: Random): number {
  const lifetime = svid.notAfter - svid.notBefore
  const draw = unitInterval(random)
  if (usesAvailabilityTarget(lifetime, policy)) {
    return svid.notAfter - policy.availabilityTargetSeconds - draw * TARGET_JITTER_SECONDS
  }
  return svid.notAfter - lifetime * (REMAINING_SHARE_MIN + draw * REMAINING_SHARE_SPAN)
}

export function usesAvailabilityTarget(lifetimeSeconds: number, policy: RotationPolicy): boolean {
  const target = policy.availabilityTargetSeconds
  return target > 0 && lifetimeSeconds - target > GRACE_SECONDS_MIN
}
