/** Each flag of `run` and `validate` reaches the configuration value it names. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { parseAgentConfig } from '../../../src/agent/config.ts'
import { AGENT_CONFIG_FLAGS, agentFlagsOf } from '../../../src/cli/agent/config-flags.ts'
import { agentValidate } from '../../../src/cli/agent/validate.ts'
import { parseFlags } from '../../../src/cli/flags.ts'
import { SERVER_CONFIG_FLAGS, serverFlagsOf } from '../../../src/cli/server/config-flags.ts'
import { serverValidate } from '../../../src/cli/server/validate.ts'
import { parseServerConfig } from '../../../src/server/config.ts'
import { memoryEnv } from '../../rigs/cli-env.ts'
import { memorySources } from '../../rigs/config-sources.ts'

const SERVER_FILE = 'server { trust_domain = "example.org" data_dir = "/d" log_file = "/l" }'
const AGENT_FILE =
  'agent { trust_domain = "example.org" server_address = "s" server_port = 1 trust_bundle_path = "/b" }'
const URL_FILE = AGENT_FILE.replace('trust_bundle_path = "/b"', '')

function server(args: readonly string[]) {
  const parsed = parseFlags('run', SERVER_CONFIG_FLAGS, args)
  if (!parsed.ok) throw new Error(parsed.message)
  return parseServerConfig(SERVER_FILE, serverFlagsOf(parsed.values), memorySources()).config
}

function agent(args: readonly string[], text: string) {
  const parsed = parseFlags('run', AGENT_CONFIG_FLAGS, args)
  if (!parsed.ok) throw new Error(parsed.message)
  const sources = memorySources({ files: { t: ' token\n' } })
  return parseAgentConfig(text, agentFlagsOf(parsed.values), sources).config
}

/** With all its flags given, at least these; a flag without a case here fails the last tests. */
const SERVER_CASES: [flag: string, value: string, expected: object][] = [
  ['bindAddress', '127.0.0.9', { bindAddress: '127.0.0.9' }],
  ['serverPort', '9', { bindPort: 9 }],
  ['dataDir', '/other', { dataDir: '/other' }],
  ['logFile', '/x.log', { log: { file: '/x.log' } }],
  ['logFormat', 'json', { log: { format: 'json' } }],
  ['logLevel', 'debug', { log: { level: 'debug' } }],
  ['logSourceLocation', 'true', { log: { sourceLocation: true } }],
  ['socketPath', '/s.sock', { socketPath: '/s.sock' }],
  ['trustDomain', 'other.org', { trustDomain: { name: 'other.org' } }],
  ['fresh', 'true', { fresh: true }],
]

const AGENT_CASES: [flag: string, value: string, expected: object, file?: string][] = [
  ['dataDir', '/other', { dataDir: '/other' }],
  ['joinToken', 'tok', { joinToken: 'tok' }],
  ['joinTokenFile', 't', { joinToken: 'token' }],
  ['logFile', '/x.log', { log: { file: '/x.log' } }],
  ['logFormat', 'json', { log: { format: 'json' } }],
  ['logLevel', 'debug', { log: { level: 'debug' } }],
  ['logSourceLocation', 'true', { log: { sourceLocation: true } }],
  ['serverAddress', 'other', { serverAddress: 'other' }],
  ['serverPort', '9', { serverPort: 9 }],
  ['socketPath', '/s/a.sock', { socketPath: '/s/a.sock' }],
  ['trustBundle', '/c', { bootstrap: { kind: 'path', path: '/c' } }],
  ['trustBundleUrl', 'https://h/b', { bootstrap: { kind: 'url', url: 'https://h/b' } }, URL_FILE],
  ['trustBundleFormat', 'spiffe', { bootstrap: { format: 'spiffe' } }],
  ['trustDomain', 'other.org', { trustDomain: { name: 'other.org' } }],
  ['allowUnauthenticatedVerifiers', 'true', { allowUnauthenticatedVerifiers: true }],
  ['insecureBootstrap', 'true', { bootstrap: { kind: 'insecure' } }, URL_FILE],
  ['rebootstrapMode', 'auto', { rebootstrapMode: 'auto' }],
  ['rebootstrapDelay', '90s', { rebootstrapDelayMs: 90_000 }],
  ['disableWorkloadAPI', 'true', { disableWorkloadApi: true }],
  ['disableSDSAPI', 'true', { disableSdsApi: true }],
]

/** They say which file and how to read it, so no value of the file. */
const FILE_FLAGS = ['config', 'expandEnv']

describe('server flags', () => {
  test.each(SERVER_CASES)('-%s %s', (flag, value, expected) => {
    expect(server([])).not.toMatchObject(expected)
    expect(server([`-${flag}=${value}`])).toMatchObject(expected)
  })

  test('none is without a case', () => {
    const cases = [...SERVER_CASES.map(([flag]) => flag), ...FILE_FLAGS].sort()
    expect(cases).toEqual(Object.keys(SERVER_CONFIG_FLAGS).sort())
  })
})

describe('agent flags', () => {
  test.each(AGENT_CASES)('-%s %s', (flag, value, expected, file = AGENT_FILE) => {
    if (file === AGENT_FILE) expect(agent([], file)).not.toMatchObject(expected)
    else expect(() => agent([], file)).toThrow()
    expect(agent([`-${flag}=${value}`], file)).toMatchObject(expected)
  })

  test('none is without a case', () => {
    const cases = [...AGENT_CASES.map(([flag]) => flag), ...FILE_FLAGS].sort()
    expect(cases).toEqual(Object.keys(AGENT_CONFIG_FLAGS).sort())
  })
})

describe('-config and -expandEnv', () => {
  let dir: string
  beforeAll(() => {
    dir = mkdtempSync(join(tmpdir(), 'sf-'))
    writeFileSync(join(dir, 'server.conf'), SERVER_FILE.replace('example.org', '$TD'))
    writeFileSync(join(dir, 'agent.conf'), AGENT_FILE.replace('example.org', '$TD'))
  })
  afterAll(() => rmSync(dir, { recursive: true }))

  test.each([
    ['server.conf', serverValidate],
    ['agent.conf', agentValidate],
  ])('name the file, and expand variables in it: %s', async (file, command) => {
    const variables = new Map([['TD', 'example.org']])
    const env = memoryEnv({ workingDir: dir, variables })
    expect(await command.run(['-config', file, '-expandEnv'], env)).toBe(0)
    expect(await command.run(['-config', file], env)).toBe(1)
    expect(await command.run(['-config', 'none.conf'], env)).toBe(1)
  })

  test.each([
    ['server', SERVER_FILE, serverValidate],
    ['agent', AGENT_FILE, agentValidate],
  ])(
    'without -config it is conf/%s/%s.conf below the working directory',
    async (half, text, command) => {
      const env = memoryEnv({ workingDir: dir, variables: new Map() })
      expect(await command.run([], env)).toBe(1)
      mkdirSync(join(dir, 'conf', half), { recursive: true })
      writeFileSync(join(dir, 'conf', half, `${half}.conf`), text)
      expect(await command.run([], env)).toBe(0)
    },
  )
})
