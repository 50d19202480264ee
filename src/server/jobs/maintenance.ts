/** The datastore's own upkeep, with SPIRE's intervals where it has them (features.md §7.5, api.md §9.1). */
import type { Clock, Log, Metrics } from '../../base/ports.ts'
import type { Maintenance } from '../datastore/datastore.ts'
import type { Actor, AgentStore, BundleStore, EntryStore, JoinTokenStore } from '../ports.ts'
import type { Job } from './runner.ts'

/** No statement deletes more agents at once, whatever a run may delete. */
const AGENTS_PER_STEP = 500
/** Authorities stay in the bundle for a day after their expiry: clocks of peers may lag. */
const BUNDLE_GRACE_SECONDS = 24 * 3600
/** A server away for longer loads everything anew. */
const CHANGE_LOG_KEEP_SECONDS = 24 * 3600
/**
 * The ledger outlives its SVIDs by 30 days: revocation lists name certificates until they have
 * expired, and whoever looks into an incident asks about those of the weeks before.
 */
const LEDGER_KEEP_SECONDS = 30 * 24 * 3600

const SERVER: Actor = { kind: 'server', id: 'jobs', requestId: '' }

export interface MaintenanceOptions {
  readonly entries: EntryStore
  readonly agents: AgentStore
  readonly joinTokens: JoinTokenStore
  readonly bundles: BundleStore
  readonly maintenance: Maintenance
  readonly trustDomain: string
  readonly clock: Clock
  readonly log: Log
  readonly metrics: Metrics
  /** Absent: expired agents are kept, as by default in SPIRE. */
  readonly pruneAgents?: {
    readonly expiredForSeconds: number
    /** Also those that can't attest again. */
    readonly includeNonReattestable: boolean
    /** Agents deleted by one hourly run; the longest expired go first. */
    readonly batchSize: number
  }
}

export function maintenanceJobs(options: MaintenanceOptions): readonly Job[] {
  const { entries, joinTokens, bundles, maintenance, clock, log } = options
  const job = (name: string, cron: string, step: (now: number) => Promise<unknown>): Job => ({
    name,
    cron,
    run: async () => {
      const done = await step(clock.nowSeconds())
      if (done !== 0 && done !== false) log.debug('Maintenance done', { job: name, count: done })
    },
  })
  return [
    job('prune_entries', '*/5 * * * *', (now) => entries.pruneEntries(now, SERVER)),
    job('prune_join_tokens', '*/5 * * * *', (now) => joinTokens.pruneJoinTokens(now)),
    job('prune_bundle', '23 */6 * * *', async (now) => {
      const before = now - BUNDLE_GRACE_SECONDS
      const pruned = await bundles.pruneBundle(options.trustDomain, before, SERVER)
      if (pruned) options.metrics.counter('ca.manager.bundle.pruned')
      return pruned
    }),
    job('prune_change_log', '13 * * * *', (now) =>
      maintenance.pruneChangeLog(now, CHANGE_LOG_KEEP_SECONDS),
    ),
    job('create_ledger_partitions', '33 0 * * *', (now) => maintenance.createLedgerPartitions(now)),
    job('drop_ledger_partitions', '53 0 * * *', (now) =>
      maintenance.dropLedgerPartitions(now - LEDGER_KEEP_SECONDS),
    ),
    ...(options.pruneAgents === undefined ? [] : [pruneAgents(options, options.pruneAgents)]),
  ]
}

/** In steps, so that thousands of expired agents hold no lock for long. */
function pruneAgents(
  { agents, clock, log }: MaintenanceOptions,
  rule: NonNullable<MaintenanceOptions['pruneAgents']>,
): Job {
  return {
    name: 'prune_agents',
    cron: '43 * * * *',
    run: async (signal) => {
      const expiredBefore = clock.nowSeconds() - rule.expiredForSeconds
      let total = 0
      while (!signal.aborted && total < rule.batchSize) {
        const limit = Math.min(AGENTS_PER_STEP, rule.batchSize - total)
        const n = await agents.pruneAgents(
          expiredBefore,
          { tofu: rule.includeNonReattestable, limit },
          SERVER,
        )
        total += n
        if (n < limit) break
      }
      if (total > 0) log.info('Pruned expired agents', { count: total })
    },
  }
}
