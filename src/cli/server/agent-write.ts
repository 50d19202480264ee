/** `agent ban`, `agent evict`, `agent purge` (features.md §3.2). */
import { AgentService } from '../../wire/gen/spire/api/server/agent/v1/agent.ts'
import { AgentMask } from '../../wire/gen/spire/api/types/agent.ts'
import type { CliEnv } from '../env.ts'
import { CliError, explain, messageOf } from '../error.ts'
import { bool, duration, output, text } from '../flags.ts'
import { plural } from '../output/go-text.ts'
import { answer, goJsonLine } from '../output/proto-json.ts'
import type { Runnable } from '../program.ts'
import { print } from '../session.ts'
import { serverCommand } from './command.ts'
import { idFromText, idToText } from './spiffe-id.ts'

const MONTH_MS = 30 * 24 * 3600 * 1000

export const agentBan: Runnable = serverCommand({
  name: 'agent ban',
  flags: { spiffeID: text('SPIFFE ID of the agent'), output: output() },
  run: async ({ env, call }, flags) => {
    if (flags.spiffeID === '') throw new CliError('a SPIFFE ID is required')
    const method = AgentService.banAgent
    const response = await call(method, { id: idFromText(flags.spiffeID) })
    print(env, flags.output, [answer(method, response)], () =>
      env.out('Agent banned successfully\n'),
    )
  },
})

export const agentEvict: Runnable = serverCommand({
  name: 'agent evict',
  flags: { spiffeID: text('SPIFFE ID of the agent'), output: output() },
  run: async ({ env, call }, flags) => {
    if (flags.spiffeID === '') throw new CliError('a SPIFFE ID is required')
    const method = AgentService.deleteAgent
    const response = await call(method, { id: idFromText(flags.spiffeID) })
    print(env, flags.output, [answer(method, response)], () =>
      env.out('Agent evicted successfully\n'),
    )
  },
})

interface Purged {
  readonly agent_id: string
  deleted: boolean
  error?: string
}

export const agentPurge: Runnable = serverCommand({
  name: 'agent purge',
  flags: {
    expiredFor: duration('How long the SVID of an agent must have been expired', MONTH_MS),
    dryRun: bool('Only shows which agents would be deleted'),
    output: output(),
  },
  run: async ({ env, call }, flags) => {
    const listed = await explain(
      'failed to list agents',
      call(AgentService.listAgents, {
        filter: { byCanReattest: true, byAttestationType: '', byExpiresBefore: '' },
        outputMask: AgentMask.fromPartial({ x509svidExpiresAt: true }),
        pageSize: 0,
        pageToken: '',
      }),
    )
    const purged: Purged[] = []
    for (const agent of listed.agents) {
      const expiredForMs = env.clock.nowMs() - Number(agent.x509svidExpiresAt) * 1000
      if (expiredForMs <= flags.expiredFor) continue
      const item: Purged = { agent_id: idToText(agent.id), deleted: false }
      if (!flags.dryRun) {
        try {
          await call(AgentService.deleteAgent, { id: agent.id })
          item.deleted = true
        } catch (thrown) {
          item.error = messageOf(thrown)
        }
      }
      purged.push(item)
    }
    if (flags.output === 'json') env.out(goJsonLine({ expired_agents: purged }))
    else printPurged(env, purged, flags.dryRun)
  },
})

function printPurged(env: CliEnv, agents: readonly Purged[], isDryRun: boolean): void {
  if (agents.length === 0) {
    env.out('No agents to purge.\n')
    return
  }
  env.out(`Found ${agents.length} expired ${plural(agents.length, 'agent', 'agents')}\n\n`)
  const idLine = (agent: Purged) => `SPIFFE ID         : ${agent.agent_id}\n`
  if (isDryRun) {
    env.out('\nAgents that can be purged:\n')
    for (const agent of agents) env.out(idLine(agent))
    return
  }
  const deleted = agents.filter((agent) => agent.deleted)
  const kept = agents.filter((agent) => !agent.deleted)
  if (deleted.length > 0) env.out('Agents purged:\n')
  for (const agent of deleted) env.out(idLine(agent))
  if (kept.length > 0) env.out('Agents not purged:\n')
  for (const agent of kept) env.out(`${idLine(agent)}Error             : ${agent.error}\n`)
}
