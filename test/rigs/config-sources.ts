/** What configuration parsers get from outside, from memory. */
import { readFileSync } from 'node:fs'
import type { ConfigSources } from '../../src/base/config/types.ts'

export function memorySources(
  options: {
    readonly files?: Readonly<Record<string, string>>
    readonly env?: Readonly<Record<string, string>>
    readonly expandEnv?: boolean
  } = {},
): ConfigSources {
  const files = options.files ?? {}
  return {
    expandEnv: options.expandEnv ?? false,
    env: (name) => options.env?.[name],
    workingDir: '/cwd',
    files: {
      readText: (path) => {
        const text = files[path]
        if (text === undefined) {
          throw Object.assign(new Error('no such file'), { code: 'ENOENT', syscall: 'open', path })
        }
        return text
      },
      size: (path) => files[path]?.length ?? 0,
    },
  }
}

/** One of the sample files of `test/vectors/hcl`. */
export function sample(name: string): string {
  return readFileSync(new URL(`../vectors/hcl/${name}`, import.meta.url), 'utf8')
}
