/** The process around a program: notices, listeners, crashes, exit codes. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { type Hosted, type Hosting, host } from '../../../src/cli/host.ts'
import { parseServerConfig } from '../../../src/server/config.ts'
import { memoryEnv } from '../../rigs/cli-env.ts'
import { memorySources } from '../../rigs/config-sources.ts'

let dir: string
const umask = process.umask()

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'sh-'))
})
afterEach(() => {
  process.umask(umask)
  rmSync(dir, { recursive: true, force: true })
})

function hosted(run: (hosting: Hosting) => Promise<void>, blocks = ''): Hosted {
  const text = `server { trust_domain = "example.org" data_dir = "/d" log_file = "${dir}/log" } ${blocks}`
  const { config } = parseServerConfig(text, {}, memorySources())
  return {
    name: 'Server',
    serviceName: 'spire_server',
    config,
    notices: ['a notice'],
    deprecations: ['an old key'],
    healthSteadyMs: 1_000,
    run,
  }
}

const log = () => readFileSync(join(dir, 'log'), 'utf8')
const env = () => memoryEnv({ workingDir: dir })

test('a program that ends is a graceful stop', async () => {
  expect(
    await host(
      env(),
      hosted(async () => {}),
    ),
  ).toBe(0)
  expect(log()).toContain('level=warning msg="a notice"\n')
  expect(log()).toContain(
    'level=warning msg="an old key" alert=true alert_type=deprecated_config\n',
  )
  expect(log()).toContain('msg="Server stopped gracefully"')
})

test('a program that fails is a crash, logged with its error', async () => {
  const code = await host(
    env(),
    hosted(async () => {
      throw new Error('no database')
    }),
  )
  expect(code).toBe(1)
  expect(log()).toContain('level=error msg="Server crashed" error="no database"')
})

test('SIGTERM asks the program to stop', async () => {
  const code = await host(
    env(),
    hosted(async ({ signal }) => {
      process.kill(process.pid, 'SIGTERM')
      await new Promise((resolve) => signal.addEventListener('abort', resolve))
    }),
  )
  expect(code).toBe(0)
})

test('health is served while the program runs', async () => {
  const blocks =
    'health_checks { listener_enabled = true bind_address = "127.0.0.1" bind_port = 0 }'
  let ready = false
  const program = hosted(async ({ health }) => {
    health.add('own', () => ({ live: true, ready: true }))
    await health.step()
    ready = health.answer('/ready').status === 200
  }, blocks)
  expect(await host(env(), program)).toBe(0)
  expect(ready).toBe(true)
})

test('a log that cannot be opened is said and nothing starts', async () => {
  let started = false
  const program = hosted(async () => {
    started = true
  })
  const config = { ...program.config, log: { ...program.config.log, file: join(dir, 'no', 'log') } }
  const here = env()
  expect(await host(here, { ...program, config })).toBe(1)
  expect(here.stderr()).toContain('no such file or directory')
  expect(started).toBe(false)
})
