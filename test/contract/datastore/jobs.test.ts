/** Jobs: run when due, once over all servers, again after a failure; maintenance does what it says. */
import { parseCronItems } from 'graphile-worker'
import { afterEach, describe, expect, test } from 'vitest'
import { systemClock } from '../../../src/base/clock.ts'
import { createSystemRandom } from '../../../src/base/random.ts'
import type { Datastore } from '../../../src/server/datastore/datastore.ts'
import { type MaintenanceOptions, maintenanceJobs } from '../../../src/server/jobs/maintenance.ts'
import { type Job, startJobs } from '../../../src/server/jobs/runner.ts'
import { createMemoryMetrics } from '../../fakes/memory-log.ts'
import { ACTOR, createTestClock, draft, id, NOW, TD } from '../../rigs/datastore.ts'
import { useEmptiedDatastore } from '../../rigs/emptied.ts'
import { silentLog } from '../../rigs/silent-log.ts'
import { until } from '../../rigs/until.ts'
import { attestation } from './agent-store.contract.ts'

const { empty, database } = useEmptiedDatastore()
const runners: AsyncDisposable[] = []
afterEach(async () => {
  for (const runner of runners.splice(0)) await runner[Symbol.asyncDispose]()
})

async function start(datastore: Datastore, jobs: readonly Job[]): Promise<void> {
  const ports = { clock: systemClock, random: createSystemRandom(), log: silentLog }
  runners.push(await startJobs({ ...ports, pool: datastore.openJobPool(), jobs }))
}

/** What the schedule does when a job is due. */
const queue = (name: string) =>
  database.query("select signet_worker.add_job($1, '{}'::json, job_key := $1)", [name])
/** Workers announce nothing when they begin to listen, so the job is announced until one hears it. */
const untilRun = (name: string, ran: () => boolean) =>
  until(`a run of ${name}`, async () => {
    if (!ran()) await queue(name)
    return ran()
  })
const queued = async () =>
  (await database.query('select count(*)::integer as n from signet_worker.jobs')).rows[0].n

describe('the runner', () => {
  test('two servers start at once, a job runs in one of them', async () => {
    const datastore = await empty()
    const ran: string[] = []
    const jobs = (server: string): Job[] => [
      { name: 'count', cron: '0 0 1 1 *', run: async () => void ran.push(server) },
    ]
    await Promise.all(['a', 'b', 'c'].map((server) => start(datastore, jobs(server))))
    await untilRun('count', () => ran.length > 0)
    await until('an empty queue', async () => (await queued()) === 0)
    expect(ran).toHaveLength(1)
  })

  test('a failing job stays queued', async () => {
    const datastore = await empty()
    let runs = 0
    const run = async () => {
      runs++
      throw new Error('fails')
    }
    await start(datastore, [{ name: 'failing', cron: '0 0 1 1 *', run }])
    await untilRun('failing', () => runs > 0)
    const last = () =>
      database.query('select attempts from signet_worker.jobs where last_error is not null')
    await until('its failure in the queue', async () => (await last()).rowCount === 1)
    await database.query(
      'select signet_worker.complete_jobs(array(select id from signet_worker.jobs))',
    )
  })

  test('goes on after its connections were lost', async () => {
    const datastore = await empty()
    let runs = 0
    const run = async () => {
      runs++
    }
    await start(datastore, [{ name: 'again', cron: '0 0 1 1 *', run }])
    await database.query(
      `select pg_terminate_backend(pid) from pg_stat_activity
       where application_name = 'signet jobs' and datname = current_database()`,
    )
    await untilRun('again', () => runs > 0)
  })
})

describe('maintenance', () => {
  const jobsOf = (datastore: Datastore, changes: Partial<MaintenanceOptions> = {}) => {
    const options = {
      ...datastore,
      trustDomain: TD,
      clock: createTestClock(),
      log: silentLog,
      metrics: createMemoryMetrics(),
    }
    const jobs = maintenanceJobs({ ...options, ...changes })
    const run = (name: string) =>
      jobs.find((job) => job.name === name)!.run(new AbortController().signal)
    return { jobs, run }
  }

  test('every job can run twice', async () => {
    const pruneAgents = { expiredForSeconds: 60, includeNonReattestable: false, batchSize: 1_000 }
    const { jobs, run } = jobsOf(await empty(), { pruneAgents })
    expect(jobs).toHaveLength(7)
    for (const { name } of [...jobs, ...jobs]) await run(name)
  })

  test('expired entries, tokens and agents go', async () => {
    const datastore = await empty()
    const { entries, agents, joinTokens } = datastore
    await entries.createEntries([draft({ expiresAt: NOW - 1 })], ACTOR)
    await joinTokens.createJoinToken(
      { value: 't', expiresAt: NOW - 1, clusterId: 2 },
      undefined,
      ACTOR,
    )
    const old = attestation({ id: id('/spire/agent/t/old'), expiresAt: NOW - 61 })
    const young = attestation({ id: id('/spire/agent/t/young'), expiresAt: NOW - 60 })
    for (const agent of [old, young]) await agents.recordAttestation(agent, ACTOR)
    const { run } = jobsOf(datastore, {
      pruneAgents: { expiredForSeconds: 60, includeNonReattestable: false, batchSize: 1_000 },
    })
    for (const name of ['prune_entries', 'prune_join_tokens', 'prune_agents']) await run(name)
    expect(await entries.countEntries({})).toBe(0)
    expect(await joinTokens.redeemJoinToken('t')).toBeUndefined()
    expect(await agents.countAgents({})).toBe(1)
    expect(jobsOf(datastore).jobs.map((job) => job.name)).not.toContain('prune_agents')
  })

  test.each([
    ['prune_entries', 5 * 60],
    ['prune_join_tokens', 5 * 60],
    ['prune_agents', 3600],
    ['prune_change_log', 3600],
    ['prune_bundle', 6 * 3600],
    ['create_ledger_partitions', 24 * 3600],
    ['drop_ledger_partitions', 24 * 3600],
  ])('%s is due every %i seconds, day and night', async (name, period) => {
    const rule = { expiredForSeconds: 60, includeNonReattestable: false, batchSize: 1 }
    const job = jobsOf(await empty(), { pruneAgents: rule }).jobs.find((one) => one.name === name)!
    const [item] = parseCronItems([{ task: name, match: job.cron }])
    const due = Array.from({ length: 2 * 1440 }, (_, minute) => minute).filter((minute) => {
      const [hour, dow] = [Math.floor(minute / 60) % 24, Math.floor(minute / 1440)]
      return item!.match({ min: minute % 60, hour, date: dow + 1, month: 1, dow })
    })
    expect(due[0]! * 60).toBeLessThan(period)
    expect(due.slice(1).map((minute, i) => (minute - due[i]!) * 60)).toEqual(
      Array(due.length - 1).fill(period),
    )
    expect(due.length).toBe((2 * 86_400) / period)
  })

  test('what the schedule knows is every job, under its name', async () => {
    const datastore = await empty()
    const { jobs } = jobsOf(datastore)
    await start(datastore, jobs)
    const { rows } = await database.query(
      'select identifier from signet_worker._private_known_crontabs',
    )
    const known = rows.map((row) => row.identifier)
    expect(known).toEqual(expect.arrayContaining(jobs.map(({ name }) => name)))
  })

  test('entries, tokens and bundle keys go a second after their time, not at it', async () => {
    const datastore = await empty()
    const { entries, joinTokens, bundles } = datastore
    const drafts = [NOW, NOW + 1, 0].map((expiresAt, i) =>
      draft({ id: `e${i}`, spiffeId: id(`/${i}`), expiresAt }),
    )
    await entries.createEntries(drafts, ACTOR)
    for (const expiresAt of [NOW, NOW + 1]) {
      const token = { value: `t${expiresAt}`, expiresAt, clusterId: 2 }
      await joinTokens.createJoinToken(token, undefined, ACTOR)
    }
    const jwtAuthorities = [NOW, NOW + 1, 0].map((expiresAt, i) => ({
      keyId: `k${i}`,
      publicKey: Uint8Array.of(0x30, 1, i),
      expiresAt,
      tainted: false,
    }))
    await bundles.appendBundle({ trustDomain: TD, x509Authorities: [], jwtAuthorities }, ACTOR)
    const clock = createTestClock()
    const metrics = createMemoryMetrics()
    const { run } = jobsOf(datastore, { clock, metrics })
    const left = async () => {
      const { rows } = await entries.listEntries({}, { size: 0, token: '' })
      const tokens = await database.query('select 1 from signet.join_token')
      const keys = (await bundles.getBundle(TD))!.jwtAuthorities.map(({ keyId }) => keyId)
      return [rows.map((entry) => entry.id), tokens.rowCount, keys]
    }
    const leftAfter = async (seconds: number) => {
      clock.now = NOW + seconds
      for (const name of ['prune_entries', 'prune_join_tokens', 'prune_bundle']) await run(name)
      return left()
    }
    expect(await leftAfter(0)).toEqual([['e0', 'e1', 'e2'], 2, ['k0', 'k1', 'k2']])
    expect(await leftAfter(1)).toEqual([['e1', 'e2'], 1, ['k0', 'k1', 'k2']])
    expect(await leftAfter(2)).toEqual([['e2'], 0, ['k0', 'k1', 'k2']])
    // Keys stay a day longer: clocks of peers may lag.
    expect(await leftAfter(86_400)).toEqual([['e2'], 0, ['k0', 'k1', 'k2']])
    expect(metrics.counters.get('ca.manager.bundle.pruned')).toBeUndefined()
    expect(await leftAfter(86_401)).toEqual([['e2'], 0, ['k1', 'k2']])
    expect(await leftAfter(10 * 365 * 86_400)).toEqual([['e2'], 0, ['k2']])
    expect(metrics.counters.get('ca.manager.bundle.pruned')).toBe(2)
  })

  test('a run deletes at most a batch of agents, the longest expired first', async () => {
    const datastore = await empty()
    for (let n = 1; n <= 3; n++) {
      const agent = { id: id(`/spire/agent/t/${n}`), expiresAt: NOW - 100 - n }
      await datastore.agents.recordAttestation(attestation(agent), ACTOR)
    }
    const rule = { expiredForSeconds: 60, includeNonReattestable: false, batchSize: 2 }
    const { run } = jobsOf(datastore, { pruneAgents: rule })
    await run('prune_agents')
    expect(await datastore.agents.getAgent(id('/spire/agent/t/1'))).toBeDefined()
    expect(await datastore.agents.countAgents({})).toBe(1)
    await run('prune_agents')
    expect(await datastore.agents.countAgents({})).toBe(0)
  })

  test.each([
    [false, 1],
    [true, 0],
  ])('agents that can not attest again: included %s, %i left', async (included, left) => {
    const datastore = await empty()
    const agent = { id: id('/spire/agent/join_token/1'), expiresAt: NOW - 100, canReattest: false }
    await datastore.agents.recordAttestation(attestation(agent), ACTOR)
    const rule = { expiredForSeconds: 60, includeNonReattestable: included, batchSize: 1_000 }
    await jobsOf(datastore, { pruneAgents: rule }).run('prune_agents')
    expect(await datastore.agents.countAgents({})).toBe(left)
  })
})
