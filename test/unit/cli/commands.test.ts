/**
 * Every command line of the table, run in this process against the canned server, compared with what
 * SPIRE's own program did with it (`test/vectors/cli/golden.json`): output, exit code, files, calls.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { agentProgram } from '../../../src/cli/agent/program.ts'
import { runProgram } from '../../../src/cli/program.ts'
import { agentRun, serverRun } from '../../../src/cli/run.ts'
import { serverProgram } from '../../../src/cli/server/program.ts'
import { type CannedApis, startCannedApis } from '../../rigs/canned-apis.ts'
import { CLI_ANSWERS } from '../../rigs/cli-answers.ts'
import { memoryEnv } from '../../rigs/cli-env.ts'
import { readGolden } from '../../rigs/cli-golden.ts'
import { complaints, fileFacts, filled, normalized, type Seen } from '../../rigs/cli-seen.ts'
import { CLI_TABLE, CONFIG_FILES, FLAG_MISTAKES, type Invocation } from '../../rigs/cli-table.ts'

const PROGRAMS = {
  server: serverProgram('1', { ...serverRun, synopsis: '' }),
  agent: agentProgram('1', { ...agentRun, synopsis: '' }),
}

let apis: CannedApis
const golden = readGolden()

beforeAll(async () => {
  // Agents' expiry is shown in local time.
  vi.stubEnv('TZ', 'UTC')
  apis = await startCannedApis(CLI_ANSWERS)
})
afterAll(async () => {
  vi.unstubAllEnvs()
  await apis?.[Symbol.asyncDispose]()
})

async function see(invocation: Invocation): Promise<Seen> {
  const dir = mkdtempSync(join(tmpdir(), 'su-'))
  try {
    apis.takeAsked()
    const here = (text: string) => filled(text, apis, dir)
    if (invocation.config !== undefined) {
      writeFileSync(join(dir, 'c.conf'), here(invocation.config))
    }
    const variables = Object.entries(invocation.env ?? {}).map(([k, v]) => [k, here(v)] as const)
    const env = memoryEnv({
      stdin: invocation.stdin ?? '',
      workingDir: dir,
      variables: new Map(variables),
    })
    const code = await runProgram(PROGRAMS[invocation.half], invocation.args.map(here), env)
    const files = (invocation.files ?? []).map((name) => [name, fileFacts(join(dir, name))])
    const asked = apis.takeAsked()
    return normalized(
      { code, stdout: env.stdout(), stderr: env.stderr(), files: Object.fromEntries(files), asked },
      apis,
      dir,
    )
  } finally {
    rmSync(dir, { recursive: true, force: true })
  }
}

describe("SPIRE's recorded output, to the last byte", () => {
  test.each(CLI_TABLE)('$name', async (invocation) => {
    expect(await see(invocation)).toEqual(golden[invocation.name])
  })
})

describe('configuration files, judged in the same words', () => {
  test.each(CONFIG_FILES)('$name', async (invocation) => {
    expect(await see(invocation)).toEqual(golden[invocation.name])
  })
})

describe('flag mistakes', () => {
  test.each(FLAG_MISTAKES)('$name', async (invocation) => {
    const ours = await see(invocation)
    const theirs = golden[invocation.name]!
    expect(ours.code).toBe(theirs.code)
    expect(ours.stdout).toBe(theirs.stdout)
    expect(complaints(ours.stderr)).toEqual(complaints(theirs.stderr))
  })
})

test('every command line of the table is recorded', () => {
  const names = [...CLI_TABLE, ...CONFIG_FILES, ...FLAG_MISTAKES].map(({ name }) => name)
  expect(new Set(names).size).toBe(names.length)
  expect(Object.keys(golden).sort()).toEqual([...names].sort())
})
