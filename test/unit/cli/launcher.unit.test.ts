/** `bin/signet`: found from anywhere, through symlinks, and clear when its Node is missing. */
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { run } from '../../rigs/process.ts'

const LAUNCHER = fileURLToPath(new URL('../../../bin/signet', import.meta.url))

let dir: string

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'sl-'))
})
afterEach(() => {
  rmSync(dir, { recursive: true, force: true })
})

test('from another directory, through a chain of symlinks', async () => {
  mkdirSync(join(dir, 'bin'))
  symlinkSync(LAUNCHER, join(dir, 'bin', 'one'))
  symlinkSync(join('bin', 'one'), join(dir, 'two'))
  for (const path of [LAUNCHER, join(dir, 'two'), relative(dir, LAUNCHER)]) {
    const result = await run(path, ['--version'], { cwd: dir })
    expect(result).toMatchObject({ code: 0, stderr: '' })
    expect(result.stdout).toMatch(/^\d+\.\d+\.\d+\n$/)
  }
})

test('the exit code is the command’s', async () => {
  expect((await run(LAUNCHER, [])).code).toBe(127)
  expect((await run(LAUNCHER, ['server', 'entry', 'create'])).code).toBe(1)
  expect((await run(LAUNCHER, ['--help'])).code).toBe(0)
})

test('a missing platform package is said in one line', async () => {
  mkdirSync(join(dir, 'a', 'b', 'bin'), { recursive: true })
  const copy = join(dir, 'a', 'b', 'bin', 'signet')
  copyFileSync(LAUNCHER, copy)
  const result = await run(copy, ['--version'])
  expect(result.code).toBe(1)
  expect(result.stderr).toMatch(
    /^signet: the package node-linux-\w+ is missing; .*npm install.*\n$/,
  )
})
