/**
 * Gets the X509-SVIDs that the cache says are due, in batches (api.md §11.3): at most 500 requests,
 * halved by a failure, doubled by a success. New keys every time; a request names the entry, and
 * the server alone decides what is in the certificate.
 */

import { CSR_BATCH_SIZE_MAX } from '../../base/limits.ts'
import type { Clock, Log, Metrics, Random } from '../../base/ports.ts'
import { rfc3339 } from '../../base/time-text.ts'
import { parseCertificate } from '../../x509/certificate.ts'
import { type Backoff, createBackoff, createBatchSize } from '../backoff.ts'
import { countCall } from '../call-counter.ts'
import type { AuthorizedEntry } from '../entry.ts'
import { encodeRequest, generateKeys, type KeyPair, type WorkloadKeyType } from '../key-pair.ts'
import { errorText, type ServerClient } from '../sync/server-client.ts'
import { createWakeup } from '../wakeup.ts'
import type { CachedX509Svid, Identity } from './identity.ts'
import { type RotationPolicy, renewalTime, usesAvailabilityTarget } from './rotation-policy.ts'
import type { DueEntry, X509SvidCache } from './x509-svid-cache.ts'

/** SPIRE's agents look this often for SVIDs that a workload waits for; here it only paces retries. */
const RETRY_INTERVAL_MS = 500
const RETRY_CEILING_MS = 4 * 60_000
/** How often renewal times are looked at. */
const CHECK_INTERVAL_MS = 1_000
/** Requests made before the event loop gets its turn: about 2 ms. */
const REQUESTS_PER_TURN = 16

export interface RenewerOptions {
  readonly cache: X509SvidCache
  readonly client: Pick<ServerClient, 'newX509Svids'>
  readonly keyType: WorkloadKeyType
  readonly policy: RotationPolicy
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  readonly metrics: Metrics
  /** Called after SVIDs were stored. */
  readonly onStored: () => void
}

export interface Renewer {
  /** One batch; true when more is due. Rejects with the call's error. */
  step(): Promise<boolean>
  /** Until aborted. Failures are logged and retried; denials are the synchronizer's business. */
  run(signal: AbortSignal): Promise<void>
  /** Something is due now. */
  wake(): void
}

export function createRenewer(options: RenewerOptions): Renewer {
  const { cache, clock, random, log } = options
  const batch = createBatchSize(CSR_BATCH_SIZE_MAX)
  const backoff = createBackoff(random, RETRY_INTERVAL_MS, RETRY_CEILING_MS)
  const wakeup = createWakeup(clock)
  const step = async () => {
    const limit = batch.size()
    const due = cache.due(limit)
    if (due.length === 0) return false
    countDue(options, due)
    logDue(log, due, limit)
    try {
      const fetch = () => fetchSvids(options, due)
      const svids = await countCall(options, 'manager.sync.fetch_svids_updates', fetch)
      batch.succeed()
      cache.storeSvids(svids)
      options.onStored()
      // Entries the server refused are due again at once; asking again at once would spin.
      return svids.length === due.length && due.length === limit
    } catch (error) {
      batch.fail()
      throw error
    }
  }
  return {
    step,
    wake: () => wakeup.wake(),
    async run(signal) {
      while (!signal.aborted) {
        const waitMs = await runStep(options, step, backoff, signal)
        if (waitMs > 0) await wakeup.wait(waitMs, signal).catch(() => {})
      }
    },
  }
}

/** Milliseconds to wait before the next step; a wake-up may end the wait. */
async function runStep(
  { clock, log }: RenewerOptions,
  step: () => Promise<boolean>,
  backoff: Backoff,
  signal: AbortSignal,
): Promise<number> {
  try {
    const more = await step()
    backoff.reset()
    return more ? 0 : CHECK_INTERVAL_MS
  } catch (error) {
    log.error('SVID sync failed', { error: errorText(error) })
    // However many workloads knock meanwhile: a server in trouble is not asked faster than this.
    await clock.sleep(RETRY_INTERVAL_MS, signal).catch(() => {})
    return Math.max(0, backoff.next() - RETRY_INTERVAL_MS)
  }
}

async function fetchSvids(options: RenewerOptions, due: readonly DueEntry[]): Promise<Identity[]> {
  const keys: KeyPair[] = []
  const requests: { entryId: string; csr: Uint8Array }[] = []
  for (const { entry } of due) {
    const pair = await generateKeys(options.keyType)
    keys.push(pair)
    requests.push({ entryId: entry.id, csr: encodeRequest(pair, entry.spiffeId.toString()) })
    if (requests.length % REQUESTS_PER_TURN === 0) await new Promise(setImmediate)
  }
  const chains = await options.client.newX509Svids(requests)
  return due.flatMap(({ entry }, i) => {
    const chain = chains[i]
    return chain === undefined ? [] : { entry, svid: toCached(options, entry, chain, keys[i]!) }
  })
}

function toCached(
  { policy, random, log }: RenewerOptions,
  entry: AuthorizedEntry,
  chain: readonly Uint8Array[],
  keys: KeyPair,
): CachedX509Svid {
  const { notBefore, notAfter } = parseCertificate(chain[0]!)
  if (
    policy.availabilityTargetSeconds > 0 &&
    !usesAvailabilityTarget(notAfter - notBefore, policy)
  ) {
    log.warn(
      "X509 SVID lifetime isn't long enough to guarantee the availability_target, falling back to the default rotation strategy",
      { spiffe_id: entry.spiffeId.toString(), entry_id: entry.id },
    )
  }
  return {
    chain,
    privateKey: keys.pkcs8,
    notBefore,
    notAfter,
    renewAt: renewalTime({ notBefore, notAfter }, policy, random),
    revisionNumber: entry.revisionNumber,
  }
}

const DUE_LINES = {
  expiring: 'Updating expiring SVIDs in cache',
  outdated: 'Updating SVIDs with outdated attributes in cache',
} as const

function countDue({ metrics, log }: RenewerOptions, due: readonly DueEntry[]): void {
  for (const kind of ['expiring', 'outdated'] as const) {
    const count = due.filter(({ reason }) => reason === kind).length
    if (count === 0) continue
    metrics.sample(`cache_manager.${kind}_svids`, count)
    log.debug(DUE_LINES[kind], { cache_type: 'workload', [`${kind}_svids`]: count })
  }
}

function logDue(log: Log, due: readonly DueEntry[], limit: number): void {
  log.debug('Renewing stale entries', { cache_type: 'workload', count: due.length, limit })
  for (const { entry, expiresAt } of due) {
    const fields = { entry_id: entry.id, spiffe_id: entry.spiffeId.toString() }
    if (expiresAt === undefined) log.info('Creating X509-SVID', fields)
    else {
      log.info('Renewing X509-SVID', { ...fields, expires_at: rfc3339(expiresAt) })
    }
  }
}
