/** `agent list`, `agent count`, `agent show` (features.md §3.2). */
import { goQuote } from '../../base/log-text.ts'
import { goTimeComplaint } from '../../wire/convert/go-time.ts'
import {
  AgentService,
  type ListAgentsRequest_Filter,
} from '../../wire/gen/spire/api/server/agent/v1/agent.ts'
import type { Agent } from '../../wire/gen/spire/api/types/agent.ts'
import type { Selector } from '../../wire/gen/spire/api/types/selector.ts'
import { CliError, messageOf } from '../error.ts'
import { type FlagValues, list, maybe, output, text } from '../flags.ts'
import { localTime, plural } from '../output/go-text.ts'
import { answer } from '../output/proto-json.ts'
import type { Runnable } from '../program.ts'
import { print } from '../session.ts'
import { serverCommand } from './command.ts'
import { matchFlag, matchFromText, selectorFromText } from './selectors.ts'
import { idFromText, idToText } from './spiffe-id.ts'

/** Agents of one ListAgents call: far below the message limit. */
const PAGE_SIZE = 1000

const FILTER_FLAGS = {
  selector: list('Only agents with this selector, type:value; may be repeated'),
  attestationType: text('Only agents of this attestation type, such as join_token or x509pop'),
  canReattest: maybe("'true': agents that can re-attest, 'false': those that cannot"),
  banned: maybe("'true': banned agents, 'false': the others"),
  expiresBefore: text('Only agents that expire before "2006-01-02 15:04:05 -0700 -07"'),
  matchSelectorsOn: matchFlag('selectors'),
  output: output(),
}

export const agentList: Runnable = serverCommand({
  name: 'agent list',
  flags: FILTER_FLAGS,
  run: async ({ env, call }, flags) => {
    const filter = filterOf(flags)
    const agents: Agent[] = []
    let pageToken = ''
    do {
      const request = { filter, outputMask: undefined, pageSize: PAGE_SIZE, pageToken }
      const page = await call(AgentService.listAgents, request)
      agents.push(...page.agents)
      pageToken = page.nextPageToken
    } while (pageToken !== '')
    const response = { agents, nextPageToken: '' }
    print(env, flags.output, [answer(AgentService.listAgents, response)], () => {
      if (agents.length === 0) return env.out('No attested agents found\n')
      const noun = plural(agents.length, 'agent', 'agents')
      env.out(`Found ${agents.length} attested ${noun}:\n\n`)
      for (const agent of agents) env.out(agentBlock(agent))
    })
  },
})

export const agentCount: Runnable = serverCommand({
  name: 'agent count',
  flags: FILTER_FLAGS,
  run: async ({ env, call }, flags) => {
    const method = AgentService.countAgents
    const response = await call(method, { filter: filterOf(flags) })
    print(env, flags.output, [answer(method, response)], () => {
      env.out(`${response.count} attested ${plural(response.count, 'agent', 'agents')}\n`)
    })
  },
})

export const agentShow: Runnable = serverCommand({
  name: 'agent show',
  flags: { spiffeID: text('SPIFFE ID of the agent'), output: output() },
  run: async ({ env, call }, flags) => {
    if (flags.spiffeID === '') throw new CliError('a SPIFFE ID is required')
    const method = AgentService.getAgent
    const response = await call(method, { id: idFromText(flags.spiffeID), outputMask: undefined })
    print(env, flags.output, [answer(method, response)], () => {
      env.out(`Found an attested agent given its SPIFFE ID\n\n${agentBlock(response)}`)
      for (const { type, value } of response.selectors) {
        env.out(`Selectors         : ${type}:${value}\n`)
      }
    })
  },
})

function filterOf(flags: FlagValues<typeof FILTER_FLAGS>): ListAgentsRequest_Filter {
  const filter: ListAgentsRequest_Filter = {
    byAttestationType: flags.attestationType,
    byExpiresBefore: flags.expiresBefore,
    byCanReattest: flags.canReattest,
    byBanned: flags.banned,
  }
  if (flags.selector.length > 0) {
    const match = matchFromText(flags.matchSelectorsOn, 'unsupported match behavior')
    filter.bySelectorMatch = { selectors: flags.selector.map(parsedSelector), match }
  }
  const complaint = flags.expiresBefore === '' ? '' : goTimeComplaint(flags.expiresBefore)
  if (complaint !== '') throw new CliError(`date is not valid: ${complaint}`)
  return filter
}

function parsedSelector(selector: string): Selector {
  try {
    return selectorFromText(selector)
  } catch (thrown) {
    throw new CliError(`error parsing selector ${goQuote(selector)}: ${messageOf(thrown)}`)
  }
}

function agentBlock(agent: Agent): string {
  const line = (label: string, value: unknown) => `${label.padEnd(18)}: ${String(value)}\n`
  return [
    line('SPIFFE ID', idToText(agent.id)),
    line('Attestation type', agent.attestationType),
    line('Expiration time', localTime(Number(agent.x509svidExpiresAt))),
    // A banned agent has no serial number.
    agent.banned ? line('Banned', true) : line('Serial number', agent.x509svidSerialNumber),
    line('Can re-attest', agent.canReattest),
    agent.agentVersion === '' ? '' : line('Agent version', agent.agentVersion),
    '\n',
  ].join('')
}
