/**
 * `server run` and `agent run`. The programs are loaded only now: every other command starts faster
 * without them.
 */
import { parseAgentConfig } from '../agent/config.ts'
import { parseServerConfig } from '../server/config.ts'
import { AGENT_CONFIG_FLAGS, AGENT_DEFAULT_CONFIG, agentFlagsOf } from './agent/config-flags.ts'
import { loadConfig } from './config-file.ts'
import type { CliEnv } from './env.ts'
import { messageOf } from './error.ts'
import { parseFlags, usageOf } from './flags.ts'
import { type Hosting, host } from './host.ts'
import type { Runnable } from './program.ts'
import { SERVER_CONFIG_FLAGS, SERVER_DEFAULT_CONFIG, serverFlagsOf } from './server/config-flags.ts'
import { VERSION } from './version.ts'

/** Differs from SPIRE (a minute): the server's checks ask memory only. */
const SERVER_HEALTH_MS = 10_000
/** The agent's opens its own Workload API, which attests the agent itself. */
const AGENT_HEALTH_MS = 60_000
const LOGGED = { logUnknownKeys: true }

export const serverRun: Runnable = {
  help: (env) => env.err(usageOf('run', SERVER_CONFIG_FLAGS)),
  run: async (args, env) => {
    const parsed = parseFlags('run', SERVER_CONFIG_FLAGS, args)
    if (!parsed.ok) return badFlags(env, parsed)
    const { config: path, expandEnv } = parsed.values
    const call = { path, defaultPath: SERVER_DEFAULT_CONFIG, expandEnv }
    const flags = serverFlagsOf(parsed.values)
    const parse = (...[text, sources]: ParseArgs) => parseServerConfig(text, flags, sources)
    const loaded = load(env, () => loadConfig(env, call, parse, LOGGED))
    if (loaded === undefined) return 1
    const { config } = loaded
    const program = {
      name: 'Server',
      serviceName: 'spire_server',
      healthSteadyMs: SERVER_HEALTH_MS,
    } as const
    const run = async (hosting: Hosting) => {
      const { runServer } = await import('../server/main.ts')
      await runServer(config, { ...portsOf(env), ...hosting })
    }
    return host(env, { ...program, ...loaded, run })
  },
}

export const agentRun: Runnable = {
  help: (env) => env.err(usageOf('run', AGENT_CONFIG_FLAGS)),
  run: async (args, env) => {
    const parsed = parseFlags('run', AGENT_CONFIG_FLAGS, args)
    if (!parsed.ok) return badFlags(env, parsed)
    const { config: path, expandEnv } = parsed.values
    const call = { path, defaultPath: AGENT_DEFAULT_CONFIG, expandEnv }
    const flags = agentFlagsOf(parsed.values)
    const parse = (...[text, sources]: ParseArgs) => parseAgentConfig(text, flags, sources)
    const loaded = load(env, () => loadConfig(env, call, parse, LOGGED))
    if (loaded === undefined) return 1
    const { config } = loaded
    const program = {
      name: 'Agent',
      serviceName: 'spire_agent',
      healthSteadyMs: AGENT_HEALTH_MS,
    } as const
    const run = async (hosting: Hosting) => {
      const { runAgent } = await import('../agent/main.ts')
      await runAgent(config, { ...portsOf(env), ...hosting })
    }
    return host(env, { ...program, ...loaded, run })
  },
}

type ParseArgs = Parameters<Parameters<typeof loadConfig>[2]>

/** SPIRE prints the message twice: the flag package above the usage, the command below. */
function badFlags(
  env: CliEnv,
  parsed: { readonly message: string; readonly output: string },
): number {
  env.err(`${parsed.output}${parsed.message}\n`)
  return 1
}

function load<T>(env: CliEnv, read: () => T): T | undefined {
  try {
    return read()
  } catch (thrown) {
    env.err(`${messageOf(thrown)}\n`)
    return undefined
  }
}

function portsOf(env: CliEnv) {
  return { clock: env.clock, random: env.random, files: env.files, version: VERSION }
}
