/** `token generate` (features.md §3.2). */
import { AgentService } from '../../wire/gen/spire/api/server/agent/v1/agent.ts'
import { int64, output, text } from '../flags.ts'
import { answer } from '../output/proto-json.ts'
import type { Runnable } from '../program.ts'
import { print } from '../session.ts'
import { serverCommand } from './command.ts'
import { int32Of } from './entry-write.ts'
import { idFromText } from './spiffe-id.ts'

const DEFAULT_TTL_SECONDS = 600n

export const tokenGenerate: Runnable = serverCommand({
  name: 'generate',
  flags: {
    ttl: int64('Lifetime of the token in seconds', DEFAULT_TTL_SECONDS),
    spiffeID: text('SPIFFE ID that the agent gets beside its own'),
    output: output(),
  },
  run: async ({ env, call }, flags) => {
    const agentId = flags.spiffeID === '' ? undefined : idFromText(flags.spiffeID)
    const ttl = int32Of('TTL', flags.ttl)
    const method = AgentService.createJoinToken
    const response = await call(method, { agentId, ttl, token: '' })
    print(env, flags.output, [answer(method, response)], () => {
      env.out(`Token: ${response.value}\n`)
      if (flags.spiffeID === '') env.out('Warning: Missing SPIFFE ID.\n')
    })
  },
})
