/**
 * A running agent and callers that are not who connected (T-W1): a program that execs, an orphan that
 * inherits the connection, a stream that outlives its process. Identity stays with the process.
 */
import { spawnSync } from 'node:child_process'
import { copyFileSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Deployment } from '../../interop/rig.ts'
import { Daemon, run } from '../../rigs/process.ts'
import { until } from '../../rigs/until.ts'

const SCRIPT = join(import.meta.dirname, 'borrower.pl')
const SVID = 'spiffe://example.org/perl'
/** The agent looks once a second whether the processes of quiet connections live. */
const CLOSED_MS_MAX = 5_000
const PERL = spawnSync('perl', ['-e', 'print readlink "/proc/$$/exe"'], { encoding: 'utf8' }).stdout

let deployment: Deployment
let agent: Daemon
let otherPerl: string
let preface: string
let request: string

beforeAll(async () => {
  deployment = await Deployment.create('signet')
  await deployment.startServer({})
  const token = await deployment.joinToken('spiffe://example.org/node')
  agent = await deployment.startAgent('signet', {
    args: ['-joinToken', token],
    workloadAttestor: 'WorkloadAttestor "unix" { plugin_data { discover_workload_path = true } }',
  })
  await deployment.createEntry([
    ...['-parentID', 'spiffe://example.org/node', '-spiffeID', SVID],
    ...['-selector', `unix:path:${PERL}`],
  ])
  otherPerl = join(deployment.dir, 'other-perl')
  copyFileSync(PERL, otherPerl)
  preface = join(deployment.dir, 'preface')
  writeFileSync(preface, PREFACE)
  request = join(deployment.dir, 'request')
  writeFileSync(request, fetchX509Svid())
  await until('the entry to arrive', async () => (await borrow('honest')).stdout.includes(SVID))
})
afterAll(() => deployment?.[Symbol.asyncDispose]())

/** Ends when the connection does. */
function borrow(mode: string, perl = PERL) {
  const args = [SCRIPT, mode, deployment.agentSocket(), preface, request]
  return run(perl, args, { timeoutMs: 15_000 })
}

describe('nothing is served', () => {
  test.each<[string, () => ReturnType<typeof borrow>]>([
    ['to another program that took over by exec', () => borrow('exec-other')],
    ['to the same program, executed anew', () => borrow(`exec-perl ${PERL}`)],
    [
      'to a program that is entitled but did not connect',
      () => borrow(`exec-perl ${PERL}`, otherPerl),
    ],
    [
      'to a program that is not entitled and connected as one',
      () => borrow(`exec-perl ${otherPerl}`),
    ],
    ['to an orphan that inherited the connection', () => borrow('orphan')],
    ['to a copy of the program elsewhere', () => borrow('exec-other', otherPerl)],
  ])('%s', async (_, attempt) => {
    const from = performance.now()
    const { stdout } = await attempt()
    expect(stdout).not.toContain(SVID)
    expect(stdout).not.toContain('PRIVATE')
    expect(performance.now() - from).toBeLessThan(CLOSED_MS_MAX)
  })
})

describe('a stream ends', () => {
  test('when its process is gone, whoever else holds the connection', async () => {
    const from = performance.now()
    const { stdout } = await borrow('stream-orphan')
    expect(stdout).toContain(SVID)
    expect(performance.now() - from).toBeLessThan(CLOSED_MS_MAX)
  })

  test('before anything new reaches a program that took over', async () => {
    const args = [SCRIPT, 'stream-exec', deployment.agentSocket(), preface, request]
    await using borrower = Daemon.start(PERL, args)
    await borrower.untilPrinted(SVID)
    await deployment.createEntry([
      ...['-parentID', 'spiffe://example.org/node', '-spiffeID', 'spiffe://example.org/second'],
      ...['-selector', `unix:path:${PERL}`],
    ])
    await borrower.untilExit(CLOSED_MS_MAX)
    expect(borrower.output).not.toContain('spiffe://example.org/second')
    // It did reach who is entitled.
    await until('the second identity', async () =>
      (await borrow('honest')).stdout.includes('spiffe://example.org/second'),
    )
  })
})

test('hundreds of borrowers later the agent serves as before and holds no more descriptors', async () => {
  const descriptors = () =>
    spawnSync('ls', [`/proc/${agent.pid}/fd`], { encoding: 'utf8' }).stdout.split('\n').length
  const before = descriptors()
  const modes = ['exec-other', 'orphan', `exec-perl ${otherPerl}`, 'stream-orphan']
  for (let round = 0; round < 5; round++) {
    await Promise.all(Array.from({ length: 20 }, (_, n) => borrow(modes[n % modes.length]!)))
  }
  await until('descriptors to be given back', () => descriptors() <= before + 5, 10_000)
  expect((await borrow('honest')).stdout).toContain(SVID)
  expect(agent.exitCode).toBeUndefined()
  expect(readFileSync(`/proc/${agent.pid}/status`, 'utf8')).toMatch(/^State:\s+[SR]/m)
})

const PREFACE = Buffer.concat([
  Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'),
  // SETTINGS, empty.
  Buffer.of(0, 0, 0, 4, 0, 0, 0, 0, 0),
])

/** HEADERS and DATA of one call on stream 1 (RFC 9113 §6, RFC 7541 §6.2.2, no Huffman coding). */
function fetchX509Svid(): Buffer {
  const fields: [string, string][] = [
    [':method', 'POST'],
    [':scheme', 'http'],
    [':path', '/SpiffeWorkloadAPI/FetchX509SVID'],
    [':authority', 'localhost'],
    ['content-type', 'application/grpc'],
    ['te', 'trailers'],
    ['workload.spiffe.io', 'true'],
  ]
  const block = Buffer.concat(
    fields.flatMap(([name, value]) => [
      Buffer.of(0, name.length),
      Buffer.from(name),
      Buffer.of(value.length),
      Buffer.from(value),
    ]),
  )
  const END_HEADERS = 4
  const END_STREAM = 1
  return Buffer.concat([
    Buffer.of(0, 0, block.length, 1, END_HEADERS, 0, 0, 0, 1),
    block,
    Buffer.of(0, 0, 5, 0, END_STREAM, 0, 0, 0, 1, 0, 0, 0, 0, 0),
  ])
}
