/** What all commands against the server's socket share: flags, connection, errors, exit codes. */
import type { CliEnv } from '../env.ts'
import { messageOf } from '../error.ts'
import { type FlagSet, type FlagValues, parseFlags, usageOf } from '../flags.ts'
import type { Runnable } from '../program.ts'
import { type Session, withSession } from '../session.ts'
import { SERVER_SOCKET, socketFlags, socketPathOf } from '../socket.ts'

export interface ServerCommand<Flags extends FlagSet> {
  /** As the usage names it. */
  readonly name: string
  readonly flags: Flags
  run(session: Session, flags: FlagValues<Flags>): Promise<void>
}

export function serverCommand<Flags extends FlagSet>(definition: ServerCommand<Flags>): Runnable {
  const flags = { ...socketFlags(SERVER_SOCKET), ...definition.flags }
  return {
    help: (env) => env.err(usageOf(definition.name, flags)),
    run: (args, env) => run(definition, flags, args, env),
  }
}

async function run<Flags extends FlagSet>(
  definition: ServerCommand<Flags>,
  flags: FlagSet,
  args: readonly string[],
  env: CliEnv,
): Promise<number> {
  const parsed = parseFlags(definition.name, flags, args)
  if (!parsed.ok) {
    env.err(parsed.output)
    return 1
  }
  try {
    const values = parsed.values as FlagValues<Flags> & { socketPath: string; instance: string }
    const path = socketPathOf(SERVER_SOCKET, values, env)
    // SPIRE's server CLI, not its agent CLI, shows the path as its resolver makes it.
    const options = { path, shownPath: `//${path}` }
    await withSession(env, options, (session) => definition.run(session, values))
    return 0
  } catch (thrown) {
    env.err(`Error: ${messageOf(thrown)}\n`)
    return 1
  }
}
