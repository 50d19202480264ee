/**
 * SPIRE's command lines and ours, one against the other on the same canned server: standard output,
 * standard error, exit code, files written and calls made must be the same, byte for byte.
 *
 * After the table or the canned answers changed, SIGNET_RECORD_CLI=1 records what SPIRE's programs do
 * for the unit tests.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type CannedApis, startCannedApis } from '../rigs/canned-apis.ts'
import { CLI_ANSWERS } from '../rigs/cli-answers.ts'
import { readGolden, writeGolden } from '../rigs/cli-golden.ts'
import { complaints, type Seen } from '../rigs/cli-seen.ts'
import { CLI_TABLE, CONFIG_FILES, FLAG_MISTAKES, NO_COMMAND } from '../rigs/cli-table.ts'
import { see } from './cli-compare.ts'

let apis: CannedApis
const golden = readGolden()
const recorded: Record<string, Seen> = {}
const isRecording = process.env.SIGNET_RECORD_CLI === '1'

beforeAll(async () => {
  apis = await startCannedApis(CLI_ANSWERS)
})
afterAll(async () => {
  if (isRecording) writeGolden(recorded)
  await apis?.[Symbol.asyncDispose]()
})

describe('the same to the last byte', () => {
  test.each([...CLI_TABLE, ...CONFIG_FILES])('$name', async (invocation) => {
    const theirs = await see('spire', invocation, apis)
    const ours = await see('signet', invocation, apis)
    expect(ours).toEqual(theirs)
    // What the unit tests compare with is still what SPIRE prints.
    recorded[invocation.name] = theirs
    if (!isRecording) expect(golden[invocation.name]).toEqual(theirs)
  })
})

describe('flag mistakes: the same complaint and exit code', () => {
  test.each(FLAG_MISTAKES)('$name', async (invocation) => {
    const theirs = await see('spire', invocation, apis)
    recorded[invocation.name] = theirs
    const ours = await see('signet', invocation, apis)
    expect(ours.code).toBe(theirs.code)
    expect(ours.stdout).toBe(theirs.stdout)
    expect(complaints(ours.stderr)).toEqual(complaints(theirs.stderr))
  })
})

describe('no command or help: the same exit code', () => {
  test.each(NO_COMMAND)('$name', async (invocation) => {
    const theirs = await see('spire', invocation, apis)
    const ours = await see('signet', invocation, apis)
    expect(ours.code).toBe(theirs.code)
  })
})
