/** A command's world for tests: streams in memory, real files, the real clock. */
import { readFileSync, statSync, writeFileSync } from 'node:fs'
import { systemClock } from '../../src/base/clock.ts'
import { createSystemRandom } from '../../src/base/random.ts'
import type { CliEnv } from '../../src/cli/env.ts'

export interface MemoryEnv extends CliEnv {
  stdout(): string
  stderr(): string
  hinted(): string
}

export function memoryEnv(options: {
  readonly workingDir: string
  readonly stdin?: string
  readonly variables?: ReadonlyMap<string, string>
  readonly interrupted?: AbortSignal
}): MemoryEnv {
  let out = ''
  let err = ''
  let hinted = ''
  return {
    out: (text) => {
      out += text
    },
    err: (text) => {
      err += text
    },
    hint: (text) => {
      hinted = text
    },
    stdout: () => out,
    hinted: () => hinted,
    stderr: () => err,
    readStdin: async () => options.stdin ?? '',
    variable: (name) => options.variables?.get(name),
    workingDir: options.workingDir,
    files: {
      readText: (path) => readFileSync(path, 'utf8'),
      size: (path) => statSync(path, { throwIfNoEntry: false })?.size ?? 0,
      write: (path, content, mode) => writeFileSync(path, content, { mode }),
    },
    clock: systemClock,
    random: createSystemRandom(),
    interrupted: options.interrupted ?? new AbortController().signal,
  }
}
