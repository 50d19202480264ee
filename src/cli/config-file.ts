/** Where `run` and `validate` find their file, and what they say about a bad one. */
import { resolve } from 'node:path'
import { unknownKeysOf } from '../base/config/document.ts'
import type { ConfigSources, Parsed } from '../base/config/types.ts'
import { SignetError } from '../base/error.ts'
import { localRfc3339, textLine } from '../base/log-text.ts'
import type { CliEnv } from './env.ts'
import { CliError, messageOf } from './error.ts'

export interface ConfigCall {
  /** As given by `-config`; empty means the default. */
  readonly path: string
  readonly defaultPath: string
  readonly expandEnv: boolean
}

/** Errors are CliErrors with SPIRE's text; unknown keys are also logged as SPIRE logs them. */
export function loadConfig<T>(
  env: CliEnv,
  call: ConfigCall,
  parse: (text: string, sources: ConfigSources) => Parsed<T>,
  options: { readonly logUnknownKeys: boolean },
): Parsed<T> {
  const path = call.path || call.defaultPath
  const text = readConfig(env, path)
  const sources: ConfigSources = {
    expandEnv: call.expandEnv,
    env: env.variable,
    workingDir: env.workingDir,
    files: env.files,
  }
  try {
    return parse(text, sources)
  } catch (thrown) {
    if (!(thrown instanceof SignetError)) throw thrown
    if (SYNTAX_CODES.has(thrown.code)) {
      throw new CliError(`unable to decode configuration at "${path}": ${thrown.message}`)
    }
    if (!options.logUnknownKeys) throw new CliError(withUnknownKeys(thrown))
    logUnknownKeys(env, thrown)
    throw new CliError(thrown.message)
  }
}

function readConfig(env: CliEnv, path: string): string {
  try {
    return env.files.readText(resolve(env.workingDir, path))
  } catch (thrown) {
    if (thrown instanceof Error && 'code' in thrown && thrown.code === 'ENOENT') {
      const absolute = resolve(env.workingDir, path)
      throw new CliError(`could not find config file ${absolute}: please use the -config flag`)
    }
    throw new CliError(`unable to read configuration at "${path}": ${messageOf(thrown)}`)
  }
}

const SYNTAX_CODES: ReadonlySet<string> = new Set(['bad_hcl', 'bad_json'])

/** Where no log names the keys, the message does. */
function withUnknownKeys(error: SignetError): string {
  const keys = unknownKeysOf(error).map(({ section, keys }) => `${section}: ${keys.join(', ')}`)
  return keys.length === 0 ? error.message : `${error.message} (${keys.join('; ')})`
}

function logUnknownKeys(env: CliEnv, thrown: unknown): void {
  for (const { section, keys } of unknownKeysOf(thrown)) {
    const time = localRfc3339(env.clock.nowMs(), 'seconds')
    const fields = { keys: keys.join(','), section }
    env.out(textLine(time, 'error', 'Unknown configuration detected', fields))
  }
}
