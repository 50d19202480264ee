/** `api watch`, and the parts of `api` commands that SPIRE prints differently each time. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, dirname, join } from 'node:path'
import { status } from '@grpc/grpc-js'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { agentProgram } from '../../../src/cli/agent/program.ts'
import { runProgram } from '../../../src/cli/program.ts'
import { agentRun } from '../../../src/cli/run.ts'
import {
  type Canned,
  type CannedApis,
  RpcFailure,
  startCannedApis,
} from '../../rigs/canned-apis.ts'
import { CLI_ANSWERS, FIXTURES } from '../../rigs/cli-answers.ts'
import { memoryEnv } from '../../rigs/cli-env.ts'
import { until } from '../../rigs/until.ts'

const PROGRAM = agentProgram('1', { ...agentRun, synopsis: '' })
const FETCH = 'SpiffeWorkloadAPI/FetchX509SVID'

let dir: string
let apis: CannedApis | undefined

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'sa-'))
})
afterEach(async () => {
  await apis?.[Symbol.asyncDispose]()
  rmSync(dir, { recursive: true, force: true })
})

async function call(answers: Readonly<Record<string, Canned>>, line: string) {
  apis = await startCannedApis({ ...CLI_ANSWERS, ...answers })
  const env = memoryEnv({ workingDir: dir })
  const args = [...line.split(' '), '-socketPath', apis.socketPath]
  return { code: await runProgram(PROGRAM, args, env), out: env.stdout(), err: env.stderr() }
}

test('claims are printed sorted, without blanks', async () => {
  const { code, out } = await call({}, 'api validate jwt -audience aud1 -svid t')
  expect(code).toBe(0)
  expect(out).toBe(
    'SVID is valid.\nSPIFFE ID : spiffe://example.org/w\n' +
      'Claims    : {"aud":["aud1"],"exp":4102444800,"nil":null,"sub":"spiffe://example.org/w"}\n',
  )
})

test('bundles are printed in the order of their trust domains', async () => {
  const bundles = { 'spiffe://b': Buffer.from('B'), 'spiffe://a': Buffer.from('A') }
  const answers = { 'SpiffeWorkloadAPI/FetchJWTBundles': () => ({ bundles }) }
  const { out } = await call(answers, 'api fetch jwt -audience x')
  expect(out).toMatch(/bundle\(spiffe:\/\/a\):\n\tA\nbundle\(spiffe:\/\/b\):\n\tB\n$/)
})

const SVID = {
  spiffeId: 'spiffe://example.org/workload',
  x509Svid: Buffer.concat([FIXTURES.leaf, FIXTURES.intermediate]),
  x509SvidKey: FIXTURES.leafKey,
  bundle: FIXTURES.root,
  hint: '',
}

test.each([
  ['no SVID', { svids: [] }, 'workload response contains no svids'],
  [
    'another root',
    { svids: [{ ...SVID, bundle: FIXTURES.otherRoot }] },
    '"spiffe://example.org/workload" SVID failed verification against bundle: x509svid: could not verify leaf certificate: x509: certificate signed by unknown authority',
  ],
  ['no chain', { svids: [{ ...SVID, x509Svid: Buffer.of() }] }, 'no certificates found'],
  ['no bundle', { svids: [{ ...SVID, bundle: Buffer.of() }] }, 'no certificates in trust bundle'],
  ['a bad key', { svids: [{ ...SVID, x509SvidKey: Buffer.of(1) }] }, 'failed to parse private key'],
  ['a bad bundle', { svids: [{ ...SVID, bundle: Buffer.of(48) }] }, 'failed to parse trust bundle'],
  [
    'an empty federated bundle',
    { svids: [SVID], federatedBundles: { td: Buffer.of() } },
    'no certificates in bundle for federated domain "td"',
  ],
  [
    'a bad federated bundle',
    { svids: [SVID], federatedBundles: { td: Buffer.of(1) } },
    'failed to parse bundle for federated domain "td"',
  ],
])('%s: nothing is printed but why', async (_, response, message) => {
  const answer = { crl: [], federatedBundles: {}, ...response }
  const { code, out, err } = await call({ [FETCH]: () => answer }, 'api fetch x509')
  expect({ code, out }).toEqual({ code: 1, out: '' })
  expect(err).toContain(message)
})

test('an answer that does not come in time', async () => {
  const answers = { [FETCH]: () => undefined }
  const { code, err } = await call(answers, 'api fetch x509 -timeout 50ms')
  expect(code).toBe(1)
  expect(err).not.toBe('')
})

test.each([
  ['-socketPath', (path: string) => path],
  ['-instance', (path: string) => basename(path)],
])('watch %s prints each update until it is interrupted', async (flag, pick) => {
  apis = await startCannedApis(CLI_ANSWERS)
  const controller = new AbortController()
  const template = join(dirname(apis.socketPath), '%i')
  const env = memoryEnv({
    workingDir: dir,
    interrupted: controller.signal,
    variables: new Map([['SPIRE_AGENT_PUBLIC_SOCKET_TEMPLATE', template]]),
  })
  const args = ['api', 'watch', flag, pick(apis.socketPath)]
  const ended = runProgram(PROGRAM, args, env)
  await until('the first update', () => env.stdout().includes('Received 1 svid after'))
  controller.abort()
  expect(await ended).toBe(0)
  expect(env.stdout()).toContain('SPIFFE ID:\t\tspiffe://example.org/workload\n')
  expect(env.stderr()).toBe('')
})

test('watch ends when the agent finds the call itself wrong', async () => {
  const answers = {
    [FETCH]: () => {
      throw new RpcFailure(status.INVALID_ARGUMENT, 'security header missing from request')
    },
  }
  const { code, err } = await call(answers, 'api watch')
  expect(code).toBe(1)
  expect(err).toContain('security header missing')
})

test('watch says why a stream broke and tries again', async () => {
  let calls = 0
  const controller = new AbortController()
  apis = await startCannedApis({
    [FETCH]: () => {
      calls += 1
      throw new RpcFailure(status.PERMISSION_DENIED, 'no identity issued')
    },
  })
  const env = memoryEnv({ workingDir: dir, interrupted: controller.signal })
  const ended = runProgram(PROGRAM, ['api', 'watch', '-socketPath', apis.socketPath], env)
  await until('a second attempt', () => calls >= 2)
  controller.abort()
  expect(await ended).toBe(0)
  expect(env.stderr()).toContain('rpc error: code = PermissionDenied desc = no identity issued')
})
