/** `server validate`: checks the configuration without starting anything. */
import { parseServerConfig } from '../../server/config.ts'
import { loadConfig } from '../config-file.ts'
import { messageOf } from '../error.ts'
import { parseFlags, usageOf } from '../flags.ts'
import type { Runnable } from '../program.ts'
import { SERVER_CONFIG_FLAGS, SERVER_DEFAULT_CONFIG, serverFlagsOf } from './config-flags.ts'

const INVALID = 'SPIRE server configuration file is invalid:'

export const serverValidate: Runnable = {
  help: (env) => env.err(usageOf('validate', SERVER_CONFIG_FLAGS)),
  run: async (args, env) => {
    const parsed = parseFlags('validate', SERVER_CONFIG_FLAGS, args)
    if (!parsed.ok) {
      env.err(`${parsed.output}${INVALID} ${parsed.message}\n`)
      return 1
    }
    const { config, expandEnv } = parsed.values
    const call = { path: config, defaultPath: SERVER_DEFAULT_CONFIG, expandEnv }
    try {
      loadConfig(
        env,
        call,
        (text, sources) => parseServerConfig(text, serverFlagsOf(parsed.values), sources),
        { logUnknownKeys: false },
      )
    } catch (thrown) {
      env.err(`${INVALID} ${messageOf(thrown)}\n`)
      return 1
    }
    env.out('SPIRE server configuration file is valid.\n')
    return 0
  },
}
