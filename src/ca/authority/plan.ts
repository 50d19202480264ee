/**
 * What the authorities need now: a pure function of their rows, the clock and the configuration
 * (design.md §2, api.md §10, features.md §7.1). The rotator carries out the first step, reads the
 * rows again and asks again, so a crash between two steps, or another server's step, needs no
 * memory.
 *
 * Timing is SPIRE's: the next authority is prepared (and published) at half-life and activated with
 * a sixth of the life left, so an SVID of up to a sixth of `ca_ttl` (at most 7 days) is never cut
 * short.
 */
import { NOT_BEFORE_BACKDATE_SECONDS } from '../../base/limits.ts'
import type { EpochSeconds } from '../../base/ports.ts'
import type { SigningKeyType } from '../signer/port.ts'
import {
  type Authority,
  type AuthorityKind,
  CLUSTER_CONTROL,
  CLUSTER_NONE_ID,
} from './authority.ts'

const DAY_SECONDS = 24 * 3600
const PREPARE_DIVISOR = 2
const PREPARE_SECONDS_MAX = 30 * DAY_SECONDS
const ACTIVATE_DIVISOR = 6
const ACTIVATE_SECONDS_MAX = 7 * DAY_SECONDS
/** How long an expired authority stays, for verifiers whose clocks lag; at most one more life. */
const PRUNE_GRACE_SECONDS_MAX = DAY_SECONDS
/**
 * An intermediate that is made some ticks after its root still counts as living as long as it may.
 */
const COVER_SLACK_SECONDS_MAX = 60
const COVER_SLACK_DIVISOR = 60

export interface RotationConfig {
  /** Life of intermediates and JWT keys. */
  readonly caTtlSeconds: number
  readonly rootTtlSeconds: number
  readonly keyType: SigningKeyType
  readonly jwtKeyType: SigningKeyType
  readonly clusterIds: readonly number[]
  /** Empty: authorities shared by all servers. Else this process's own (custody `memory`). */
  readonly holder: string
}

type StepReason = 'initial' | 'due' | 'root_ends' | 'moves_with_intermediate' | 'expired'

export interface PrepareStep {
  readonly step: 'prepare'
  readonly kind: AuthorityKind
  readonly clusterId: number
  readonly keyType: SigningKeyType
  /** The root that signs an intermediate. */
  readonly issuer: Authority | undefined
  readonly notBefore: EpochSeconds
  readonly notAfter: EpochSeconds
  /**
   * Names the successor of what the slot holds now. Two servers that saw the same rows make the
   * same name, and it is unique in the store: one that planned on rows that have moved on is
   * refused.
   */
  readonly generation: string
  readonly reason: StepReason
}

export interface ActivateStep {
  readonly step: 'activate'
  readonly authority: Authority
  readonly reason: StepReason
}

interface PruneStep {
  readonly step: 'prune'
  readonly expiredBefore: EpochSeconds
}

/** Authorities of a process that ended, all of them expired. */
interface DropHolderStep {
  readonly step: 'drop_holder'
  readonly holder: string
}

export type RotationStep = PrepareStep | ActivateStep | PruneStep | DropHolderStep

export interface RotationInput {
  readonly rows: readonly Authority[]
  readonly now: EpochSeconds
  readonly config: RotationConfig
  /** The wall clock leapt since the last look: only what has never existed is made. */
  readonly clockJumped?: boolean
}

interface Slot {
  readonly active: Authority | undefined
  readonly prepared: Authority | undefined
  /** Set when the active one is missing or can issue nothing. */
  readonly vacant: StepReason | undefined
}

/** In the order they are to be done. Empty: nothing to do. */
export function planRotation(input: RotationInput): RotationStep[] {
  const { rows, now, config } = input
  const steps = [
    ...planObstacles(input),
    ...planX509(input),
    ...config.clusterIds
      // `control` has no workloads, so nobody asks it for a JWT.
      .filter((clusterId) => clusterId !== CLUSTER_CONTROL.id)
      .flatMap((clusterId) => planJwt(input, clusterId)),
  ]
  if (input.clockJumped) {
    return steps.filter((step) => 'reason' in step && step.reason === 'initial')
  }
  return [...steps, ...planPruning(rows, now, config)]
}

/** A prepared authority that expired unused (the server was down) is in the way of the next. */
function planObstacles({ rows, now, config }: RotationInput): PruneStep[] {
  const expired = rows.filter(
    (row) => row.holder === config.holder && row.state === 'prepared' && row.notAfter <= now,
  )
  if (expired.length === 0) return []
  return [{ step: 'prune', expiredBefore: Math.max(...expired.map((row) => row.notAfter)) + 1 }]
}

function planX509(input: RotationInput): RotationStep[] {
  const root = slotOf(input, 'x509_root', CLUSTER_NONE_ID)
  const roots = [root.active, root.prepared].filter((row) => row !== undefined)
  const signing = roots.reduce<Authority | undefined>(
    (best, row) => (covers(row, input) && !(best && covers(best, input)) ? row : (best ?? row)),
    undefined,
  )
  const intermediates: RotationStep[] = []
  let needsCover = false
  let activatesUnder: number | undefined
  for (const clusterId of input.config.clusterIds) {
    const slot = slotOf(input, 'x509_intermediate', clusterId)
    const prepareReason = slot.prepared
      ? undefined
      : (slot.vacant ?? due(slot.active!, 'prepare', input.now))
    if (prepareReason && signing) {
      // Under a root that ends too soon an intermediate would be cut short: the next root comes
      // first. It may still be prepared when it signs: it is published, and is activated before
      // anything that it signed.
      if (!covers(signing, input)) needsCover = true
      else
        intermediates.push(prepare(input, 'x509_intermediate', clusterId, prepareReason, signing))
    }
    const activateReason =
      slot.prepared && (slot.vacant ?? due(slot.active!, 'activate', input.now))
    if (slot.prepared && activateReason) {
      if (slot.prepared.issuerId === root.prepared?.id) activatesUnder = slot.prepared.issuerId
      intermediates.push({ step: 'activate', authority: slot.prepared, reason: activateReason })
    }
  }
  return [...planRoot(input, root, needsCover, activatesUnder !== undefined), ...intermediates]
}

function planRoot(
  input: RotationInput,
  root: Slot,
  needsCover: boolean,
  childActivates: boolean,
): RotationStep[] {
  if (!root.prepared) {
    const reason =
      root.vacant ??
      due(root.active!, 'prepare', input.now) ??
      (needsCover ? 'root_ends' : undefined)
    return reason ? [prepare(input, 'x509_root', CLUSTER_NONE_ID, reason, undefined)] : []
  }
  const reason =
    root.vacant ??
    due(root.active!, 'activate', input.now) ??
    (childActivates ? 'moves_with_intermediate' : undefined) ??
    // The prepared one ends too soon as well: make room for another.
    (needsCover ? 'root_ends' : undefined)
  return reason ? [{ step: 'activate', authority: root.prepared, reason }] : []
}

function planJwt(input: RotationInput, clusterId: number): RotationStep[] {
  const slot = slotOf(input, 'jwt', clusterId)
  const threshold = slot.prepared ? 'activate' : 'prepare'
  const reason = slot.vacant ?? due(slot.active!, threshold, input.now)
  if (!reason) return []
  if (slot.prepared) return [{ step: 'activate', authority: slot.prepared, reason }]
  return [prepare(input, 'jwt', clusterId, reason, undefined)]
}

function planPruning(
  rows: readonly Authority[],
  now: EpochSeconds,
  config: RotationConfig,
): RotationStep[] {
  // Differs from SPIRE: with a short `ca_ttl` not 24 h but one `ca_ttl`, or bundles would hold
  // thousands of dead keys.
  const expiredBefore = now - Math.min(PRUNE_GRACE_SECONDS_MAX, config.caTtlSeconds)
  const steps: RotationStep[] = []
  const gone = rows.filter((row) => row.notAfter < expiredBefore)
  if (gone.some((row) => row.state === 'old' || row.state === 'prepared')) {
    steps.push({ step: 'prune', expiredBefore })
  }
  const alive = new Set(rows.filter((row) => row.notAfter >= expiredBefore).map((r) => r.holder))
  for (const holder of new Set(gone.map((row) => row.holder))) {
    if (holder !== '' && holder !== config.holder && !alive.has(holder)) {
      steps.push({ step: 'drop_holder', holder })
    }
  }
  return steps
}

function slotOf(
  { rows, now, config }: RotationInput,
  kind: AuthorityKind,
  clusterId: number,
): Slot {
  const mine = rows.filter(
    (row) => row.kind === kind && row.clusterId === clusterId && row.holder === config.holder,
  )
  const active = mine.find((row) => row.state === 'active')
  const prepared = mine.find((row) => row.state === 'prepared' && row.notAfter > now)
  if (!active) return { active, prepared, vacant: 'initial' }
  return { active, prepared, vacant: active.notAfter <= now ? 'expired' : undefined }
}

function due(row: Authority, what: 'prepare' | 'activate', now: EpochSeconds): 'due' | undefined {
  const life = row.notAfter - issuedAt(row)
  const threshold =
    what === 'prepare'
      ? Math.min(life / PREPARE_DIVISOR, PREPARE_SECONDS_MAX)
      : Math.min(life / ACTIVATE_DIVISOR, ACTIVATE_SECONDS_MAX)
  return row.notAfter - now <= threshold ? 'due' : undefined
}

function issuedAt(row: Authority): EpochSeconds {
  return row.kind === 'jwt' ? row.notBefore : row.notBefore + NOT_BEFORE_BACKDATE_SECONDS
}

/** Does an intermediate made now under this root live as long as it is meant to? */
function covers(root: Authority, { now, config }: RotationInput): boolean {
  const ttl = lifeOf('x509_intermediate', config)
  const slack = Math.min(ttl / COVER_SLACK_DIVISOR, COVER_SLACK_SECONDS_MAX)
  return root.notAfter - now >= ttl - slack
}

function lifeOf(kind: AuthorityKind, config: RotationConfig): number {
  // Keys in memory are gone with the process: a root for ten years would only burden the bundle.
  const rootTtl = config.holder === '' ? config.rootTtlSeconds : config.caTtlSeconds
  if (kind === 'x509_root') return rootTtl
  return kind === 'jwt' ? config.caTtlSeconds : Math.min(config.caTtlSeconds, rootTtl)
}

function nextGeneration(
  { rows, config }: RotationInput,
  kind: AuthorityKind,
  clusterId: number,
): string {
  const { holder } = config
  const numbers = rows
    .filter((row) => row.kind === kind && row.clusterId === clusterId && row.holder === holder)
    .map((row) => Number(row.generation.slice(row.generation.lastIndexOf('/') + 1)))
    .filter(Number.isSafeInteger)
  // The active row is never pruned, so numbers are not used twice while a slot lives.
  return `${kind}/${clusterId}/${holder}/${Math.max(0, ...numbers) + 1}`
}

function prepare(
  input: RotationInput,
  kind: AuthorityKind,
  clusterId: number,
  reason: StepReason,
  issuer: Authority | undefined,
): PrepareStep {
  const { now, config } = input
  const backdated = kind === 'jwt' ? now : now - NOT_BEFORE_BACKDATE_SECONDS
  return {
    step: 'prepare',
    kind,
    clusterId,
    keyType: kind === 'jwt' ? config.jwtKeyType : config.keyType,
    issuer,
    notBefore: Math.max(backdated, issuer?.notBefore ?? backdated),
    notAfter: Math.min(now + lifeOf(kind, config), issuer?.notAfter ?? Number.POSITIVE_INFINITY),
    generation: nextGeneration(input, kind, clusterId),
    reason,
  }
}
