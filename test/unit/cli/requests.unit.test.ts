/**
 * Flags that the recorded command lines leave out: what they ask for is what their sisters, which
 * SPIRE's own program was recorded with, ask for; and `-instance` of every command.
 */
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, dirname, join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { agentProgram } from '../../../src/cli/agent/program.ts'
import { runProgram } from '../../../src/cli/program.ts'
import { agentRun, serverRun } from '../../../src/cli/run.ts'
import { serverProgram } from '../../../src/cli/server/program.ts'
import { type CannedApis, startCannedApis } from '../../rigs/canned-apis.ts'
import { CLI_ANSWERS } from '../../rigs/cli-answers.ts'
import { memoryEnv } from '../../rigs/cli-env.ts'

const PROGRAMS = {
  server: serverProgram('1', { ...serverRun, synopsis: '' }),
  agent: agentProgram('1', { ...agentRun, synopsis: '' }),
}
type Half = keyof typeof PROGRAMS

let apis: CannedApis
let dir: string
beforeAll(async () => {
  apis = await startCannedApis(CLI_ANSWERS)
  dir = mkdtempSync(join(tmpdir(), 'sq-'))
})
afterAll(async () => {
  await apis?.[Symbol.asyncDispose]()
  rmSync(dir, { recursive: true })
})

async function call(half: Half, args: readonly string[], variables: ReadonlyMap<string, string>) {
  apis.takeAsked()
  const env = memoryEnv({ workingDir: dir, variables })
  const code = await runProgram(PROGRAMS[half], args, env)
  return { code, out: env.stdout(), err: env.stderr(), asked: apis.takeAsked() }
}

const run = (half: Half, ...args: string[]) =>
  call(half, [...args, '-socketPath', apis.socketPath], new Map())

async function filterOf(...args: string[]): Promise<unknown> {
  const { code, asked } = await run('server', ...args)
  expect(code).toBe(0)
  return (asked[0]!.request as { filter: unknown }).filter
}

describe('counting asks with the filter of listing', () => {
  const selector = ['-selector', 'a:b']
  test.each([
    ['agent', 'list', [...selector, '-matchSelectorsOn', 'any']],
    ['agent', 'list', ['-attestationType', 'x509pop']],
    ['agent', 'list', ['-canReattest', 'false']],
    ['agent', 'list', ['-banned', 'true']],
    ['agent', 'list', ['-expiresBefore', '2026-01-02 15:04:05 +0100 +01']],
    ['entry', 'show', ['-parentID', 'spiffe://example.org/node']],
    ['entry', 'show', ['-spiffeID', 'spiffe://example.org/w']],
    ['entry', 'show', [...selector, '-matchSelectorsOn', 'subset']],
    ['entry', 'show', ['-federatesWith', 'b.org', '-matchFederatesWithOn', 'exact']],
  ])('%s as %s, %j', async (noun, verb, flags) => {
    const none = await filterOf(noun, 'count')
    const asked = await filterOf(noun, 'count', ...flags)
    expect(asked).not.toEqual(none)
    expect(asked).toEqual(await filterOf(noun, verb, ...flags))
  })
})

test('entry update sends what entry create would, under the ID', async () => {
  const flags = [
    ['-parentID', 'spiffe://example.org/node'],
    ['-spiffeID', 'spiffe://example.org/w'],
    ['-selector', 'a:b'],
    ['-federatesWith', 'spiffe://other.example', '-dns', 'a.example', '-dns', 'b.example'],
    ['-x509SVIDTTL', '60', '-jwtSVIDTTL', '30', '-admin', '-downstream', '-storeSVID'],
    ['-entryExpiry', '1800000000', '-hint', 'external', '-entryID', 'mine'],
  ].flat()
  const entriesOf = async (verb: string) => {
    const { asked } = await run('server', 'entry', verb, ...flags)
    return (asked[0]!.request as { entries: Record<string, unknown>[] }).entries
  }
  const [created] = await entriesOf('create')
  const [updated] = await entriesOf('update')
  expect(updated).toMatchObject({
    id: 'mine',
    x509SvidTtl: 60,
    jwtSvidTtl: 30,
    federatesWith: ['spiffe://other.example'],
    dnsNames: ['a.example', 'b.example'],
    admin: true,
    downstream: true,
    storeSvid: true,
    expiresAt: '1800000000',
    hint: 'external',
  })
  const { additionalAttributes: _, ...shared } = updated!
  expect(created).toMatchObject(shared)
})

describe('api fetch is api fetch x509', () => {
  const normal = (text: string) => text.replace(/after [0-9.µmns]+/, 'after T')

  test.each([[], ['-silent'], ['-output', 'json'], ['-timeout', '3s']])(
    '%j %s',
    async (...flags: string[]) => {
      const short = await run('agent', 'api', 'fetch', ...flags)
      const long = await run('agent', 'api', 'fetch', 'x509', ...flags)
      expect([short.code, normal(short.out), short.err]).toEqual([0, normal(long.out), long.err])
    },
  )

  test('-write', async () => {
    expect((await run('agent', 'api', 'fetch', '-silent', '-write', dir)).code).toBe(0)
    for (const name of ['svid.0.pem', 'svid.0.key', 'bundle.0.pem']) {
      expect(existsSync(join(dir, name)), name).toBe(true)
    }
  })
})

test.each([
  ['api fetch', ''],
  ['api fetch x509', ''],
  ['api validate jwt', '-audience aud1 -svid t'],
])('%s -timeout is how long an answer is waited for', async (name, flags) => {
  const args = [...name.split(' '), ...flags.split(' ').filter((flag) => flag !== '')]
  expect((await run('agent', ...args, '-timeout', '10s')).code).toBe(0)
  expect((await run('agent', ...args, '-timeout', '1ns')).code).toBe(1)
})

test('healthcheck -shallow asks the agent all the same', async () => {
  expect(await run('agent', 'healthcheck', '-shallow')).toMatchObject({
    code: 0,
    out: 'Agent is healthy.\n',
  })
})

describe('-instance names the socket by the template', () => {
  const REST: Readonly<Record<string, string>> = {
    'entry create': '-parentID spiffe://a/n -spiffeID spiffe://a/w -selector a:b',
    'entry update': '-entryID e -parentID spiffe://a/n -spiffeID spiffe://a/w -selector a:b',
    'entry delete': '-entryID e',
    'agent show': '-spiffeID spiffe://a/spire/agent/x',
    'agent ban': '-spiffeID spiffe://a/spire/agent/x',
    'agent evict': '-spiffeID spiffe://a/spire/agent/x',
    'bundle set': '-id spiffe://b.org -format spiffe -path DIR/bundle.json',
    'bundle delete': '-id b.org',
    'x509 mint': '-spiffeID spiffe://a/w',
    'jwt mint': '-spiffeID spiffe://a/w -audience x',
    'api fetch jwt': '-audience x',
    'api validate jwt': '-audience x -svid t',
  }
  const LATER = /^(federation|localauthority|logger|upstreamauthority|wit) /
  const OWN = ['run', 'validate', 'api watch']
  // On the admin socket, which has no instances in SPIRE either.
  const ADMIN = 'agent debug getinfo'
  const commands = Object.entries(PROGRAMS).flatMap(([half, program]) =>
    Object.keys(program.commands)
      .filter((name) => !LATER.test(name) && !OWN.includes(name) && `${half} ${name}` !== ADMIN)
      .map((name) => [half as Half, name] as const),
  )

  test.each(commands)('%s %s', async (half, name) => {
    const rest = (REST[name] ?? '')
      .replace('DIR', dir)
      .split(' ')
      .filter((word) => word !== '')
    writeFileSync(join(dir, 'bundle.json'), '{"keys":[]}')
    const args = [...name.split(' '), '-instance', basename(apis.socketPath), ...rest]
    const missing = await call(half, args, new Map())
    expect([missing.code, missing.err]).toEqual([1, expect.stringMatching(/_TEMPLATE/)])
    const template = join(dirname(apis.socketPath), '%i')
    const { err, asked } = await call(
      half,
      args,
      new Map([
        ['SPIRE_SERVER_PRIVATE_SOCKET_TEMPLATE', template],
        ['SPIRE_AGENT_PUBLIC_SOCKET_TEMPLATE', template],
      ]),
    )
    expect(asked, err).not.toEqual([])
  })
})
