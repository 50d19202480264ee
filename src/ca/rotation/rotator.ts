/**
 * Keeps authorities fresh: each tick carries out what the planner asks for, one step at a time,
 * with the rows read again before each. The rows hold all state, so a crash or a faster server
 * costs a tick at most (reliability.md F09, F10). Owns only the time of its last tick.
 */
import { toHex } from '../../base/bytes.ts'
import { SignetError } from '../../base/error.ts'
import { logTime } from '../../base/log-text.ts'
import { countCall } from '../../base/metrics.ts'
import { type Clock, type Log, type Metrics, unitInterval } from '../../base/ports.ts'
import { parseCertificate } from '../../x509/certificate.ts'
import type { Authority, AuthorityStore } from '../authority/authority.ts'
import type { Authorities } from '../authority/issuers.ts'
import {
  type ActivateStep,
  type PrepareStep,
  planRotation,
  type RotationConfig,
  type RotationStep,
} from '../authority/plan.ts'
import { type PrepareParts, prepareAuthority } from './prepare.ts'

/** SPIRE's interval. */
const TICK_MS = 10_000
const JITTER = 0.1
/**
 * Wall against monotonic clock: NTP slews less, so more than this is somebody setting the clock.
 */
const CLOCK_JUMP_SECONDS_MAX = 60
/**
 * A first start takes two steps per authority and cluster; more than this would be a planner in a
 * loop.
 */
const STEPS_PER_TICK_MAX = 64

export interface RotatorParts extends Omit<PrepareParts, 'holder' | 'store'> {
  readonly store: AuthorityStore
  readonly authorities: Pick<Authorities, 'reload'>
  readonly clock: Clock
  readonly log: Log
  readonly metrics: Metrics
  readonly config: RotationConfig
}

export interface Rotator {
  /**
   * One tick. Resolves with the steps done; rejects when one failed, after which the next tick
   * resumes.
   */
  step(): Promise<readonly RotationStep[]>
  /** Ticks until the signal aborts. Never rejects. */
  run(signal: AbortSignal): Promise<void>
  /** Ticks that failed since the last that did not: what the health check looks at. */
  failedTicks(): number
}

interface LastTick {
  readonly wallSeconds: number
  readonly monotonicMs: number
}

export function createRotator(parts: RotatorParts): Rotator {
  let last: LastTick | undefined
  let failed = 0
  const step = async () => {
    const clockJumped = hasJumped(parts, last)
    last = { wallSeconds: parts.clock.nowSeconds(), monotonicMs: parts.clock.monotonicMs() }
    try {
      const done = await tick(parts, last.wallSeconds, clockJumped)
      failed = 0
      return done
    } catch (error) {
      failed++
      throw error
    }
  }
  return {
    step,
    failedTicks: () => failed,
    async run(signal) {
      while (!signal.aborted) {
        try {
          await step()
        } catch (error) {
          parts.log.error('Unable to rotate authorities', { error, failed_ticks: failed })
        }
        const jitter = 1 + JITTER * (2 * unitInterval(parts.random) - 1)
        await parts.clock.sleep(TICK_MS * jitter, signal).catch(() => {})
      }
    },
  }
}

/**
 * One time for the whole tick: making an RSA key takes seconds, and a root and its intermediates
 * that are made together should end together.
 */
async function tick(
  parts: RotatorParts,
  now: number,
  clockJumped: boolean,
): Promise<RotationStep[]> {
  const done: RotationStep[] = []
  for (let attempt = 0; attempt < STEPS_PER_TICK_MAX; attempt++) {
    const rows = await parts.authorities.reload()
    const [step] = planRotation({ rows, now, config: parts.config, clockJumped })
    if (!step) return done
    if (await execute(parts, step, now)) done.push(step)
  }
  throw new SignetError('internal', 'rotation_does_not_settle', 'rotation does not settle')
}

/** False: another server was faster, and the rows tell what is left to do. */
async function execute(parts: RotatorParts, step: RotationStep, now: number): Promise<boolean> {
  try {
    switch (step.step) {
      case 'prepare':
        parts.log.debug(`Preparing ${titleOf(step.kind)}`, { slot: slotOf(step) })
        logPrepared(parts, step, await prepareTimed(parts, step))
        break
      case 'activate':
        await parts.store.activate(step.authority.id)
        logActivated(parts, step, now)
        break
      case 'prune':
        logPruned(parts, await parts.store.pruneAuthorities(step.expiredBefore))
        break
      case 'drop_holder':
        await parts.store.dropHolder(step.holder)
        break
    }
    return true
  } catch (error) {
    if (!(error instanceof SignetError && error.kind === 'aborted')) throw error
    parts.log.debug('Another server was faster at rotating authorities', { step: step.step })
    return false
  }
}

/** F08: a clock that was set must not make authorities look old, or dead ones alive. */
function hasJumped({ clock, log, metrics }: RotatorParts, last: LastTick | undefined): boolean {
  if (!last) return false
  const elapsedSeconds = (clock.monotonicMs() - last.monotonicMs) / 1000
  const jumpSeconds = clock.nowSeconds() - last.wallSeconds - elapsedSeconds
  if (Math.abs(jumpSeconds) <= CLOCK_JUMP_SECONDS_MAX) return false
  log.error('Clock jumped; no authority is rotated or pruned on this tick', {
    jump_seconds: Math.round(jumpSeconds),
  })
  metrics.counter('ca.manager.clock_jump')
  return true
}

async function prepareTimed(parts: RotatorParts, step: PrepareStep): Promise<Authority> {
  const key = `ca.manager.${metricName(step.kind)}.prepare`
  const done = countCall(parts.metrics, parts.clock, key)
  // As SPIRE counts what is no gRPC error.
  let status = 'Unknown'
  try {
    const authority = await prepareAuthority({ ...parts, holder: parts.config.holder }, step)
    status = 'OK'
    return authority
  } finally {
    done(status)
  }
}

function logPrepared(parts: RotatorParts, step: PrepareStep, authority: Authority): void {
  parts.log.info(`${titleOf(step.kind)} prepared`, {
    ...authorityFields(authority),
    ...(step.kind !== 'jwt' && { self_signed: step.kind === 'x509_root' }),
    reason: step.reason,
  })
}

function logActivated(parts: RotatorParts, { authority, reason }: ActivateStep, now: number): void {
  const isJwt = authority.kind === 'jwt'
  parts.log.info(`${titleOf(authority.kind)} activated`, {
    ...authorityFields(authority),
    reason,
  })
  parts.metrics.counter(isJwt ? 'manager.jwt_key.activate' : 'ca.manager.x509_ca.activate')
  if (authority.kind !== 'x509_intermediate') return
  // SPIRE's label holds the name, and its log line the ID.
  const labels = { trust_domain_id: parts.trustDomain.name }
  const ttl = authority.notAfter - now
  parts.metrics.gauge('manager.x509_ca.rotate.expiration', authority.notAfter, labels)
  parts.metrics.gauge('manager.x509_ca.rotate.ttl', ttl, labels)
  const fields = { trust_domain_id: parts.trustDomain.id, ttl }
  parts.log.debug('Successfully rotated X.509 CA', fields)
}

function logPruned(parts: RotatorParts, count: number): void {
  if (count === 0) return
  parts.log.info('Expired authorities were pruned', { count })
  // One for the bundle, as in SPIRE, however many authorities left it.
  parts.metrics.counter('ca.manager.bundle.pruned')
}

/** SPIRE's field names. */
function authorityFields(authority: Authority) {
  const { notBefore, notAfter, authorityId, certificate } = authority
  return {
    slot: slotOf(authority),
    issued_at: logTime(notBefore),
    expiration: logTime(notAfter),
    local_authority_id: authorityId,
    ...(certificate && { upstream_authority_id: upstreamIdOf(certificate) }),
  }
}

/** Empty for a root, as in SPIRE. */
function upstreamIdOf(certificate: Uint8Array): string {
  const { authorityKeyId } = parseCertificate(certificate)
  return authorityKeyId === undefined ? '' : toHex(authorityKeyId)
}

/** Differs from SPIRE: tells what its A and B cannot, which kind, of which cluster. */
function slotOf(slot: Pick<Authority, 'kind' | 'clusterId'>): string {
  return `${slot.kind}/${slot.clusterId}`
}

function titleOf(kind: Authority['kind']): string {
  return kind === 'jwt' ? 'JWT key' : 'X509 CA'
}

function metricName(kind: Authority['kind']): string {
  return kind === 'jwt' ? 'jwt_key' : 'x509_ca'
}
