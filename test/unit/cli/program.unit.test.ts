/** Which command a command line means. */
import { tmpdir } from 'node:os'
import { expect, test } from 'vitest'
import { later } from '../../../src/cli/later.ts'
import { type Command, lazy, type Program, runProgram } from '../../../src/cli/program.ts'
import { memoryEnv } from '../../rigs/cli-env.ts'

function echo(name: string): Command {
  return lazy(`does ${name}`, async () => ({
    run: async (args, env) => {
      env.out(`${name}(${args.join(' ')})`)
      return 0
    },
    help: (env) => env.err(`help of ${name}`),
  }))
}

const PROGRAM: Program = {
  name: 'signet test',
  version: '1.2.3',
  commands: {
    run: echo('run'),
    'entry show': echo('entry show'),
    'api fetch': echo('api fetch'),
    'api fetch jwt': echo('api fetch jwt'),
    'logger get': later('logger get'),
  },
}

async function call(...args: string[]) {
  const env = memoryEnv({ workingDir: tmpdir() })
  const code = await runProgram(PROGRAM, args, env)
  return { code, out: env.stdout(), err: env.stderr() }
}

test.each([
  ['run', 'run()'],
  ['run -a b', 'run(-a b)'],
  ['entry show -a', 'entry show(-a)'],
  ['entry show word -a', 'entry show(word -a)'],
  ['api fetch', 'api fetch()'],
  ['api fetch -x', 'api fetch(-x)'],
  ['api fetch jwt -x', 'api fetch jwt(-x)'],
  ['api fetch x509', 'api fetch(x509)'],
  ['run -- -h', 'run(-- -h)'],
])('%s', async (line, expected) => {
  expect(await call(...line.split(' '))).toEqual({ code: 0, out: expected, err: '' })
})

test.each([
  ['', 127, 'Usage: signet test'],
  ['nonsense', 127, 'Commands:\n    api'],
  ['runner', 127, 'Usage:'],
  ['toString', 127, 'Usage:'],
  ['entry', 1, 'entry needs one of these subcommands:\n    show    does entry show\n'],
  ['entry nonsense', 1, 'needs one of these subcommands:'],
  ['-h', 0, 'Usage: signet test'],
  ['entry -h', 0, 'needs one of these subcommands:'],
  ['run -h', 0, 'help of run'],
  ['-x run', 1, 'Flags belong behind the command'],
  ['--version', 0, '1.2.3\n'],
  ['logger get', 1, 'Error: logger get is not supported yet\n'],
])('%j: exit %d', async (line, code, text) => {
  const result = await call(...line.split(' ').filter((word) => word !== ''))
  expect(result.code).toBe(code)
  expect(result.out).toBe('')
  expect(result.err).toContain(text)
})

test('a word with a blank never names a command', async () => {
  expect((await call('entry show')).code).toBe(127)
})
