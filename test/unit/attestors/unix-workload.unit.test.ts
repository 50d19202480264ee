import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdtempSync, openSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import {
  createUnixWorkloadAttestor,
  type UnixProcess,
} from '../../../src/attestors/workload/unix/attestor.ts'
import { SignetError } from '../../../src/base/error.ts'
import { type AccountNames, createAccountNames } from '../../../src/base/os/account-names.ts'
import { openProcess } from '../../../src/base/os/process-handle.ts'
import { selectorKey } from '../../../src/spiffe/selector.ts'
import { FakeClock } from '../../fakes/fake-clock.ts'

const directory = mkdtempSync(join(tmpdir(), 'unix-attestor-'))
afterAll(() => rmSync(directory, { recursive: true }))
const exe = join(directory, 'exe')
writeFileSync(exe, 'x'.repeat(1000))

/** Real, effective, saved, file system. */
const STATUS = 'Name:\tw\nUid:\t1\t1000\t2\t3\nGid:\t4\t2000\t5\t6\nGroups:\t2000 3000 3001 \n'

const fakeProcess: UnixProcess = {
  pid: 77,
  readText: () => STATUS,
  exePath: () => '/usr/bin/workload (deleted)',
  openExe: () => openSync(exe, 'r'),
}
const names: AccountNames = {
  user: async (uid) => (uid === 1000 ? 'alice' : undefined),
  group: async (gid) => ({ 2000: 'staff', 3000: 'audio' })[gid],
}

async function selectorsOf(
  pluginData: Record<string, unknown>,
  process: UnixProcess = fakeProcess,
): Promise<string[]> {
  const selectors = await createUnixWorkloadAttestor(pluginData, names).attest(process)
  return selectors.map(selectorKey)
}

const ACCOUNTS = [
  'unix:uid:1000',
  'unix:user:alice',
  'unix:gid:2000',
  'unix:group:staff',
  'unix:supplementary_gid:2000',
  'unix:supplementary_group:staff',
  'unix:supplementary_gid:3000',
  'unix:supplementary_group:audio',
  'unix:supplementary_gid:3001',
]
const SHA256 = `unix:sha256:${createHash('sha256').update('x'.repeat(1000)).digest('hex')}`

test('accounts are the effective ones; names no service knows are left out', async () => {
  expect(await selectorsOf({})).toEqual(ACCOUNTS)
})

test('a process without supplementary groups', async () => {
  const status = STATUS.replace('2000 3000 3001 ', '')
  expect(await selectorsOf({}, { ...fakeProcess, readText: () => status })).toEqual(
    ACCOUNTS.slice(0, 4),
  )
})

test.each([
  ['no limit', { discover_workload_path: true }, true],
  ['limit reached exactly', { discover_workload_path: true, workload_size_limit: 1000 }, true],
  ['a quoted number', { discover_workload_path: true, workload_size_limit: '1000' }, true],
  ['never hash', { discover_workload_path: true, workload_size_limit: -1 }, false],
])('path and hash: %s', async (_name, pluginData, hashed) => {
  const path = 'unix:path:/usr/bin/workload (deleted)'
  expect(await selectorsOf(pluginData)).toEqual([...ACCOUNTS, path, ...(hashed ? [SHA256] : [])])
})

test('an executable above the limit fails the attestation, with its size', async () => {
  const attested = selectorsOf({ discover_workload_path: true, workload_size_limit: 999 })
  await expect(attested).rejects.toMatchObject({
    code: 'workload_too_large',
    message: 'SHA256 digest: workload /proc/77/exe exceeds size limit (1000 > 999)',
  })
})

test('an unreadable path fails the attestation only where it was asked for', async () => {
  const exePath = () => {
    throw new SignetError('internal', 'process_unreadable', 'caller process is not readable')
  }
  const process = { ...fakeProcess, exePath }
  expect(await selectorsOf({}, process)).toEqual(ACCOUNTS)
  await expect(selectorsOf({ discover_workload_path: true }, process)).rejects.toMatchObject({
    code: 'process_unreadable',
  })
})

test('descriptors stay flat over failing and succeeding attestations', async () => {
  const before = readdirSync('/proc/self/fd').length
  for (let call = 0; call < 200; call++) {
    const limit = call % 2 === 0 ? 10 : 0
    const data = { discover_workload_path: true, workload_size_limit: limit }
    await selectorsOf(data).catch(() => undefined)
  }
  await expect.poll(() => readdirSync('/proc/self/fd').length).toBe(before)
})

describe('configuration', () => {
  test.each([
    [{ discover_workload_path: 'yes' }],
    [{ discover_workload_path: 2 }],
    [{ discover_workload_path: 'true' }],
    [{ workload_size_limit: 1.5 }],
    [{ workload_size_limit: 'many' }],
    [{ workload_size_limit: [] }],
  ])('%j is refused', (pluginData) => {
    expect(() => createUnixWorkloadAttestor(pluginData, names)).toThrow(
      expect.objectContaining({ kind: 'invalid_argument', code: 'bad_plugin_data' }),
    )
  })

  test('unknown keys are ignored, as SPIRE does', () => {
    expect(createUnixWorkloadAttestor({ other: 1 }, names).name).toBe('unix')
  })
})

test('a real process: this one', async () => {
  using handle = openProcess(process.pid)
  const attestor = createUnixWorkloadAttestor(
    { discover_workload_path: true },
    createAccountNames(new FakeClock()),
  )
  const keys = (await attestor.attest(handle)).map(selectorKey)
  const id = (flag: string) => spawnSync('id', [flag]).stdout.toString().trim()
  expect(keys).toContain(`unix:uid:${id('-u')}`)
  expect(keys).toContain(`unix:gid:${id('-g')}`)
  const hash = createHash('sha256').update(readFileSync(process.execPath)).digest('hex')
  expect(keys).toContain(`unix:sha256:${hash}`)
})
