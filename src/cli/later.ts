/** Commands of SPIRE that Signet does not have yet: they say so instead of being unknown. */
import type { Command } from './program.ts'

export function later(name: string): Command {
  const text = `${name} is not supported yet\n`
  return {
    synopsis: 'Not supported yet',
    help: (env) => env.err(text),
    run: async (_args, env) => {
      env.err(`Error: ${text}`)
      return 1
    },
  }
}
