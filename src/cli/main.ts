/**
 * `signet server …` and `signet agent …`: SPIRE's two command lines in one program, with the same
 * sub-commands, flags, default sockets, output forms and exit codes (features.md §3).
 */
import { readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { text as readAll } from 'node:stream/consumers'
import { systemClock } from '../base/clock.ts'
import { createSystemRandom } from '../base/random.ts'
import { agentProgram } from './agent/program.ts'
import type { CliEnv, CliFiles } from './env.ts'
import { lazy, runProgram } from './program.ts'
import { serverProgram } from './server/program.ts'
import { VERSION } from './version.ts'

const USAGE = `Usage: signet [--version] [--help] <server|agent> <command> [<args>]

    server    The certificate authority, registry and node attestor
    agent     The node agent: attests workloads and hands out their identities
`
const EXIT_NO_COMMAND = 127

const serverRun = lazy('Runs the server', async () => (await import('./run.ts')).serverRun)
const agentRun = lazy('Runs the agent', async () => (await import('./run.ts')).agentRun)

async function main(args: readonly string[], env: CliEnv): Promise<number> {
  const [half, ...rest] = args
  switch (half) {
    case 'server':
      return runProgram(serverProgram(VERSION, serverRun), rest, env)
    case 'agent':
      return runProgram(agentProgram(VERSION, agentRun), rest, env)
    case '--version':
    case '-version':
    case '-v':
      env.out(`${VERSION}\n`)
      return 0
    case '--help':
    case '-help':
    case '-h':
      env.out(USAGE)
      return 0
    default:
      env.err(USAGE)
      return EXIT_NO_COMMAND
  }
}

const files: CliFiles = {
  readText: (path) => readFileSync(path, 'utf8'),
  size: (path) => statSync(path, { throwIfNoEntry: false })?.size ?? 0,
  write: (path, content, mode) => {
    // A reader sees the old file or the new one, and others cannot read a key even for a moment.
    const draft = `${path}.tmp`
    rmSync(draft, { force: true })
    try {
      writeFileSync(draft, content, { mode, flag: 'wx' })
    } catch (thrown) {
      // The file that was asked for: nobody knows of the draft.
      throw Object.assign(thrown as Error, { path })
    }
    renameSync(draft, path)
  },
}

/** Only `api watch` takes part; for other commands SIGINT keeps its meaning. */
function interruption(): AbortSignal {
  const controller = new AbortController()
  if (process.argv.includes('watch')) process.once('SIGINT', () => controller.abort())
  return controller.signal
}

let hinted = ''

const env: CliEnv = {
  out: (text) => process.stdout.write(text),
  err: (text) => process.stderr.write(text),
  hint: (text) => {
    hinted = text
  },
  readStdin: () => readAll(process.stdin),
  variable: (name) => process.env[name],
  workingDir: process.cwd(),
  files,
  clock: systemClock,
  random: createSystemRandom(),
  interrupted: interruption(),
}

// `head` and friends close the pipe early; that is no failure of ours.
process.stdout.on('error', () => process.exit(0))

process.exitCode = await main(process.argv.slice(2), env)
if (process.stderr.isTTY) process.stderr.write(hinted)
