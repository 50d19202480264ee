/** `agent validate`: checks the configuration without starting anything. */
import { parseAgentConfig } from '../../agent/config.ts'
import { loadConfig } from '../config-file.ts'
import { messageOf } from '../error.ts'
import { parseFlags, usageOf } from '../flags.ts'
import type { Runnable } from '../program.ts'
import { AGENT_CONFIG_FLAGS, AGENT_DEFAULT_CONFIG, agentFlagsOf } from './config-flags.ts'

const INVALID = 'SPIRE agent configuration file is invalid:'

export const agentValidate: Runnable = {
  help: (env) => env.err(usageOf('validate', AGENT_CONFIG_FLAGS)),
  run: async (args, env) => {
    const parsed = parseFlags('validate', AGENT_CONFIG_FLAGS, args)
    if (!parsed.ok) {
      env.err(`${parsed.output}${INVALID} ${parsed.message}\n`)
      return 1
    }
    const { config, expandEnv } = parsed.values
    const call = { path: config, defaultPath: AGENT_DEFAULT_CONFIG, expandEnv }
    try {
      loadConfig(
        env,
        call,
        (text, sources) => parseAgentConfig(text, agentFlagsOf(parsed.values), sources),
        { logUnknownKeys: true },
      )
    } catch (thrown) {
      env.err(`${INVALID} ${messageOf(thrown)}\n`)
      return 1
    }
    env.out('SPIRE agent configuration file is valid.\n')
    return 0
  },
}
