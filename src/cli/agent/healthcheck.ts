/** `agent healthcheck` (features.md §3.3). */
import { messageOf } from '../error.ts'
import { bool, parseFlags, usageOf } from '../flags.ts'
import type { Runnable } from '../program.ts'
import { healthFault } from '../server/health.ts'
import { withSession } from '../session.ts'
import { AGENT_SOCKET, socketFlags, socketPathOf } from '../socket.ts'

const FLAGS = {
  ...socketFlags(AGENT_SOCKET),
  shallow: bool('Accepted for SPIRE; the check is the same'),
  verbose: bool('Says what is done and why it failed'),
}

export const agentHealthcheck: Runnable = {
  help: (env) => env.err(usageOf('health', FLAGS)),
  run: async (args, env) => {
    const parsed = parseFlags('health', FLAGS, args)
    if (!parsed.ok) {
      env.err(parsed.output)
      return 1
    }
    const { verbose } = parsed.values
    if (verbose) env.out('Checking agent health...\n')
    let fault: string | undefined
    try {
      const path = socketPathOf(AGENT_SOCKET, parsed.values, env)
      fault = await withSession(env, { path }, (session) => healthFault(session, verbose, 'agent'))
    } catch (thrown) {
      fault = messageOf(thrown)
    }
    if (fault !== undefined) {
      env.err(`Agent is unhealthy: ${fault}\n`)
      return 1
    }
    env.out('Agent is healthy.\n')
    return 0
  },
}
