/** `npm run demo -- --once`, without the installing: the promise of the README, kept by a test. */
import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { PROJECT_DIR } from '../interop/rig.ts'
import { Daemon, run } from '../rigs/process.ts'
import { until } from '../rigs/until.ts'

test('the demo runs to its end, says who trusted whom, and leaves nothing behind', async () => {
  const demo = join(PROJECT_DIR, 'demo', 'demo.ts')
  const { code, stdout, stderr } = await run(process.execPath, [demo, '--once'], {
    timeoutMs: 120_000,
  })
  expect(stderr).toBe('')
  expect(code).toBe(0)
  for (const name of ['frontend', 'backend']) {
    expect(stdout).toMatch(new RegExp(`${name} is spiffe://example.org/${name}, until .+ 20\\d\\d`))
  }
  expect(stdout.match(/^ +leaf +\S/gm)).toHaveLength(2)
  expect(stdout.match(/^ +intermediate +\S/gm)).toHaveLength(2)
  expect(stdout).toContain('frontend trusted spiffe://example.org/backend (TLSv1.3)')
  expect(stdout).toContain('backend trusted spiffe://example.org/frontend')
  const dir = /is the process that runs (\S+)\/frontend/.exec(stdout)![1]!
  expect(existsSync(dir)).toBe(false)
}, 130_000)

test('a demo that is killed takes server, agent, workloads and database with it', async () => {
  const demo = Daemon.start(process.execPath, [join(PROJECT_DIR, 'demo', 'demo.ts')])
  await demo.untilPrinted(/Things to try/, 120_000)
  const dir = /is the process that runs (\S+)\/frontend/.exec(demo.output)![1]!
  const pidFile = join(dir, 'server', 'data', 'postgres', 'data', 'postmaster.pid')
  const postmaster = Number.parseInt(readFileSync(pidFile, 'utf8'), 10)
  const alive = () =>
    processes().filter(({ pid, args }) => pid === postmaster || args.includes(dir))
  expect(alive().length).toBeGreaterThan(3)
  await demo.stop('SIGKILL')
  await until('the end of all that it started', () => alive().length === 0)
  rmSync(dir, { recursive: true })
}, 150_000)

/** Empty `args`: it has ended and nobody has asked how. */
function processes(): { readonly pid: number; readonly args: string }[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((name) => {
      try {
        const args = readFileSync(`/proc/${name}/cmdline`, 'utf8')
        return args === '' ? [] : [{ pid: Number(name), args }]
      } catch {
        return []
      }
    })
}
