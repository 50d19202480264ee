/** `npm run demo -- --once`, without the installing: the promise of the README, kept by a test. */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { PROJECT_DIR } from '../interop/rig.ts'
import { run } from '../rigs/process.ts'

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
