/**
 * Which command a command line means, and help (features.md §3.1). The rules are those of the
 * library SPIRE uses: the longest run of leading words that names a command wins, `-h` anywhere
 * asks for its help, a group without a sub-command shows its help and fails.
 */
import type { CliEnv } from './env.ts'

export interface Runnable {
  run(args: readonly string[], env: CliEnv): Promise<number>
  /** Writes the usage. */
  help(env: CliEnv): void | Promise<void>
}

export interface Command extends Runnable {
  readonly synopsis: string
}

/** A command that is loaded when it is called: a health probe must not pay for all the others. */
export function lazy(synopsis: string, load: () => Promise<Runnable>): Command {
  return {
    synopsis,
    run: async (args, env) => (await load()).run(args, env),
    help: async (env) => (await load()).help(env),
  }
}

export interface Program {
  /** `signet server` */
  readonly name: string
  readonly version: string
  /** By their words: `entry create`. */
  readonly commands: Readonly<Record<string, Command>>
}

/** What shells and scripts know for "no such command". */
const EXIT_NO_COMMAND = 127
const HELP_FLAGS: ReadonlySet<string> = new Set(['-h', '-help', '--help'])
const VERSION_FLAGS: ReadonlySet<string> = new Set(['-v', '-version', '--version'])

export async function runProgram(
  program: Program,
  args: readonly string[],
  env: CliEnv,
): Promise<number> {
  const call = readCall(program, args)
  if (call.wantsVersion) {
    env.err(`${program.version}\n`)
    return 0
  }
  if (call.name === '' && call.wantsHelp) {
    env.err(`${overview(program)}\n`)
    return 0
  }
  const command = Object.hasOwn(program.commands, call.name)
    ? program.commands[call.name]
    : undefined
  const isGroup = command === undefined && subcommandsOf(program, call.name).length > 0
  if (command === undefined && !(isGroup && call.name !== '')) {
    env.err(`${overview(program)}\n`)
    return EXIT_NO_COMMAND
  }
  if (command === undefined) {
    env.err(groupHelp(program, call.name))
    return call.wantsHelp ? 0 : 1
  }
  if (call.wantsHelp) {
    await command.help(env)
    return 0
  }
  if (call.hasLeadingFlags) {
    env.err('Flags belong behind the command, not in front of it.\n\n')
    await command.help(env)
    return 1
  }
  return command.run(call.args, env)
}

interface Call {
  readonly name: string
  readonly args: readonly string[]
  readonly wantsHelp: boolean
  readonly wantsVersion: boolean
  readonly hasLeadingFlags: boolean
}

function readCall(program: Program, args: readonly string[]): Call {
  const start = args.findIndex((word) => word !== '' && !word.startsWith('-'))
  const leading = (start === -1 ? args : args.slice(0, start)).filter((w) => !HELP_FLAGS.has(w))
  const end = args.indexOf('--')
  const wantsHelp = (end === -1 ? args : args.slice(0, end)).some((word) => HELP_FLAGS.has(word))
  const base = {
    wantsHelp,
    wantsVersion: leading.some((word) => VERSION_FLAGS.has(word)),
    hasLeadingFlags: leading.some((word) => word.startsWith('-')),
  }
  if (start === -1 || args[start]!.includes(' ')) return { ...base, name: '', args: [] }
  const words = args.slice(start)
  const stop = words.findIndex((word) => word === '' || word.includes(' ') || word.startsWith('-'))
  for (let length = stop === -1 ? words.length : stop; length > 0; length -= 1) {
    const name = words.slice(0, length).join(' ')
    if (Object.hasOwn(program.commands, name) || subcommandsOf(program, name).length > 0) {
      return { ...base, name, args: words.slice(length) }
    }
  }
  return { ...base, name: words[0]!, args: words.slice(1) }
}

/** The next words below a group, each with its synopsis if it is a command itself. */
function subcommandsOf(program: Program, group: string): [string, string][] {
  const lead = group === '' ? '' : `${group} `
  const found = new Map<string, string>()
  for (const name of Object.keys(program.commands).sort()) {
    if (!name.startsWith(lead)) continue
    const word = name.slice(lead.length).split(' ')[0]!
    const synopsis = program.commands[`${lead}${word}`]?.synopsis ?? ''
    found.set(word, synopsis)
  }
  return [...found]
}

function overview(program: Program): string {
  const usage = `Usage: ${program.name} [--version] [--help] <command> [<args>]`
  return `${usage}\n\nCommands:\n${table(subcommandsOf(program, ''))}`
}

function groupHelp(program: Program, group: string): string {
  return `${group} needs one of these subcommands:\n${table(subcommandsOf(program, group))}`
}

function table(rows: readonly (readonly [string, string])[]): string {
  const width = Math.max(...rows.map(([name]) => name.length))
  return rows.map(([name, synopsis]) => `    ${name.padEnd(width)}    ${synopsis}\n`).join('')
}
