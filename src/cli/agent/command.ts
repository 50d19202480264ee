/** What all commands against the agent's Workload API socket share. */
import type { CliEnv } from '../env.ts'
import { messageOf } from '../error.ts'
import { type FlagSet, type FlagValues, parseFlags, timeout, usageOf } from '../flags.ts'
import type { Runnable } from '../program.ts'
import { type Session, withSession } from '../session.ts'
import { AGENT_SOCKET, socketFlags, socketPathOf } from '../socket.ts'

const DEFAULT_TIMEOUT_MS = 5_000
/** Without it an agent refuses the call (Workload API §3: a guard against forged requests). */
export const WORKLOAD_HEADER = ['workload.spiffe.io', 'true'] as const

export interface WorkloadCommand<Flags extends FlagSet> {
  readonly name: string
  readonly flags: Flags
  run(session: Session, flags: FlagValues<Flags>): Promise<void>
}

export function workloadCommand<Flags extends FlagSet>(
  definition: WorkloadCommand<Flags>,
): Runnable {
  const flags = {
    ...socketFlags(AGENT_SOCKET),
    timeout: timeout('How long to wait for an answer', DEFAULT_TIMEOUT_MS),
    ...definition.flags,
  }
  return {
    help: (env) => env.err(usageOf(definition.name, flags)),
    run: (args, env) => run(definition, flags, args, env),
  }
}

interface CommonValues {
  readonly socketPath: string
  readonly instance: string
  readonly timeout: number
}

async function run<Flags extends FlagSet>(
  definition: WorkloadCommand<Flags>,
  flags: FlagSet,
  args: readonly string[],
  env: CliEnv,
): Promise<number> {
  const parsed = parseFlags(definition.name, flags, args)
  if (!parsed.ok) {
    // SPIRE says it twice: the flag package above the usage, the command below.
    env.err(`${parsed.output}${parsed.message}\n`)
    return 1
  }
  try {
    const values = parsed.values as FlagValues<Flags> & CommonValues
    const path = socketPathOf(AGENT_SOCKET, values, env)
    // Zero or less means no limit in SPIRE; here the long one of all commands.
    const limit = values.timeout > 0 ? { timeoutMs: values.timeout } : {}
    const options = { path, header: WORKLOAD_HEADER, ...limit }
    await withSession(env, options, (session) => definition.run(session, values))
    return 0
  } catch (thrown) {
    env.err(`${messageOf(thrown)}\n`)
    return 1
  }
}
