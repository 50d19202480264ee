/**
 * The parity table (`test/parity.tsv`) against the specification's rows, the tests it names, and
 * what the code itself offers: methods, configuration keys, commands and flags. So nothing is
 * forgotten, and nothing is claimed that no test shows.
 */
import { existsSync, readFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { AGENT_DOCUMENT } from '../../src/agent/config/raw.ts'
import { agentProgram } from '../../src/cli/agent/program.ts'
import type { Program } from '../../src/cli/program.ts'
import { agentRun, serverRun } from '../../src/cli/run.ts'
import { serverProgram } from '../../src/cli/server/program.ts'
import { SERVER_DOCUMENT } from '../../src/server/config/raw.ts'
import { memoryEnv } from '../rigs/cli-env.ts'
import { CLI_TABLE, CONFIG_FILES, type Invocation } from '../rigs/cli-table.ts'
import { methodsOf, schemaKeys, usageFlags, wordsOf } from './parity-ours.ts'
import {
  idFaults,
  parseIds,
  parseParity,
  referenceFaults,
  referencesOf,
  titlesOf,
  unlisted,
} from './parity-rules.ts'
import { listFiles, ROOT } from './tree.ts'

/** What the specification does not know. */
const OURS = {
  keys: new Set(['server.root_ttl', 'server.ratelimit.attestation_per_second']),
  flags: new Set(['server run -fresh', 'server validate -fresh']),
  services: new Set(['signet.sync.v1.Sync']),
}

const read = (path: string) => readFileSync(join(ROOT, path), 'utf8')
const ids = parseIds(read('test/vectors/parity/rows.txt'))
const { rows, faults } = parseParity(read('test/parity.tsv'))
const PROGRAMS: Readonly<Record<'server' | 'agent', Program>> = {
  server: serverProgram('1', { ...serverRun, synopsis: '' }),
  agent: agentProgram('1', { ...agentRun, synopsis: '' }),
}

describe('the table', () => {
  test('has every row of the specification once, with status and detail', () => {
    expect([...faults, ...idFaults(ids, rows)]).toEqual([])
    expect(ids.length).toBeGreaterThan(1_000)
  })

  test('names tests that exist', () => {
    const textOf = (path: string) => (existsSync(join(ROOT, path)) ? read(path) : undefined)
    expect(referenceFaults(rows, textOf)).toEqual([])
  })

  test('claims of the recorded command lines only what a line of them has', () => {
    const recorded = new Set([...CLI_TABLE, ...CONFIG_FILES].flatMap(exercised))
    const claimed = rows
      .filter(({ id, detail }) => id.startsWith('cli ') && detail.includes('recorded output'))
      .map(({ id }) => id)
    expect(claimed.length).toBeGreaterThan(80)
    expect(claimed.filter((id) => !recorded.has(id))).toEqual([])
  })
})

describe('what is ours has a row', () => {
  test('every method of the generated services', () => {
    const methods = listFiles()
      .filter((path) => path.startsWith('src/wire/gen/'))
      .flatMap((path) => methodsOf(read(path)))
      .filter((method) => !OURS.services.has(method.split('/')[0]!))
    expect(methods.length).toBeGreaterThan(80)
    expect(
      unlisted(
        'method',
        methods.map((method) => `rpc ${method}`),
        ids,
      ),
    ).toEqual([])
  })

  test('every configuration key', () => {
    const keys = [SERVER_DOCUMENT, AGENT_DOCUMENT].flatMap((schema) => schemaKeys(schema))
    expect(keys.length).toBeGreaterThan(100)
    const listed = (key: string) => ids.some((id) => id === key || id.startsWith(`${key}.`))
    const named = keys
      .filter((key) => key !== 'plugins' && !OURS.keys.has(key))
      .map((key) => `config ${key}`)
      .filter((key) => !listed(key))
    expect(unlisted('key', named, ids)).toEqual([])
  })

  test('every command and flag', async () => {
    const offered: string[] = []
    for (const [half, program] of Object.entries(PROGRAMS)) {
      for (const [name, command] of Object.entries(program.commands)) {
        const env = memoryEnv({ workingDir: tmpdir() })
        await command.help(env)
        const flags = usageFlags(env.stderr()).map((flag) => `${half} ${name} -${flag}`)
        offered.push(`${half} ${name}`, ...flags)
      }
    }
    expect(offered.length).toBeGreaterThan(200)
    const theirs = offered.filter((name) => !OURS.flags.has(name)).map((name) => `cli ${name}`)
    expect(unlisted('command', theirs, ids)).toEqual([])
  })
})

/** The rows one command line shows. */
function exercised({ half, args }: Invocation): string[] {
  const name = wordsOf(PROGRAMS[half].commands, args)
  const flags = args.filter((word) => /^--?[A-Za-z]/.test(word))
  const names = flags.map((word) => word.replace(/^-+/, '').split('=')[0]!)
  return [`cli ${half} ${name}`, ...names.map((flag) => `cli ${half} ${name} -${flag}`)]
}

describe('the rules', () => {
  const TEXT = "describe('group', () => {\n  test('one', () => {})\n  test.each([])('%s x', f)\n})"
  const textOf = (path: string) => (path === 'test/unit/x.test.ts' ? TEXT : undefined)
  const check = (line: string) => {
    const parsed = parseParity(line)
    return [...parsed.faults, ...referenceFaults(parsed.rows, textOf)]
  }

  test.each([
    'a\tdone\ttest/unit/x.test.ts "one"',
    'a\tdone\ttest/unit/x.test.ts "group"; test/unit/x.test.ts "%s x"',
    'a\tlater\tfederation',
    'a\tdiffers\tbecause: test/unit/x.test.ts "one"',
    '# comment',
    '',
  ])('%j is right', (line) => {
    expect(check(line)).toEqual([])
  })

  test.each([
    ['a\tdone', 'not id, status and detail'],
    ['a\tdone\t ', 'not id, status and detail'],
    ['a\tlater\tx\ty', 'not id, status and detail'],
    ['a\tnearly\tx', 'no status "nearly"'],
    ['a\tdone\tsurely', 'names no test'],
    ['a\tdone\ttest/unit/x.test.ts "two"', 'has no test "two"'],
    ['a\tdone\ttest/unit/x.test.ts "on"', 'has no test "on"'],
    ['a\tdone\ttest/unit/y.test.ts "one"', 'test/unit/y.test.ts is not there'],
    ['a\tdone\ttest/rigs/x.ts "one"', 'test/rigs/x.ts is no test'],
    ['a\tdiffers\tbecause', 'names no test'],
    ['a\tdiffers\ttest/unit/x.test.ts "one"', 'does not say why'],
    ['a\tlater\ttest/unit/x.test.ts "one"', 'claims a test for later'],
  ])('%j: %s', (line, fault) => {
    expect(check(line)).toEqual([expect.stringContaining(fault)])
  })

  test('ids are missing, unknown or repeated', () => {
    const { rows: some } = parseParity('a\tlater\tx\nb\tlater\tx\na\tlater\ty')
    expect(idFaults(['a', 'c', 'c'], some)).toEqual([
      'rows.txt has "c" twice',
      'parity.tsv has "a" twice',
      'no row for "c"',
      'no row for "c"',
      '"b" is not in rows.txt',
    ])
    expect(unlisted('key', ['a', 'b'], ['a'])).toEqual(['no row for key b'])
  })

  test('references and titles are read as they are written', () => {
    expect(referencesOf('why: test/a.test.ts "b c"; test/d.interop.ts "e"')).toEqual([
      { path: 'test/a.test.ts', title: 'b c' },
      { path: 'test/d.interop.ts', title: 'e' },
    ])
    const text = "test(\n  \"it's\",\n  f)\nexpect(x).toBe('no')\ntest.each([[1]])(`many`, f)"
    expect([...titlesOf(text)]).toEqual(["it's", 'many'])
  })

  test('methods, keys, flags and commands are found', () => {
    expect(methodsOf('path: "/a.B/C" as const, path: "/D/E" as const')).toEqual(['a.B/C', 'D/E'])
    expect(schemaKeys(SERVER_DOCUMENT)).toContain('server.ca_subject.country')
    expect(usageFlags('Usage of x:\n  -a string\n    \tUse -b\n  -c\n')).toEqual(['a', 'c'])
    const commands = { 'api fetch': 1, 'api fetch jwt': 1 }
    expect(wordsOf(commands, ['api', 'fetch', 'jwt', '-x'])).toBe('api fetch jwt')
    expect(wordsOf(commands, ['api', 'fetch', 'x', '-x'])).toBe('api fetch')
    expect(wordsOf(commands, ['-x'])).toBe('')
  })
})
