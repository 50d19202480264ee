import { chmodSync, chownSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { mkdtemp, realpath, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { createWorkloadAttestation } from '../../../src/agent/workload-api/attestation.ts'
import { startAdminServer } from '../../../src/agent/workload-api/servers.ts'
import {
  prepareAdminSocket,
  preparePublicSocket,
} from '../../../src/agent/workload-api/socket-places.ts'
import { systemClock } from '../../../src/base/clock.ts'
import { createMemoryLog, createMemoryMetrics } from '../../fakes/memory-log.ts'

let dir: string
beforeEach(async () => {
  dir = await realpath(await mkdtemp(join(tmpdir(), 'places-')))
  mkdirSync(join(dir, 'public'))
})
afterEach(() => rm(dir, { recursive: true, force: true }))

const publicPath = () => join(dir, 'public', 'api.sock')
const prepare = (...path: string[]) =>
  prepareAdminSocket(join(dir, ...path, 'admin.sock'), publicPath(), createMemoryLog())

describe('the admin socket', () => {
  test('gets a directory that others can’t enter', async () => {
    expect(await prepare('private')).toBe(join(dir, 'private', 'admin.sock'))
    expect((await stat(join(dir, 'private'))).mode & 0o007).toBe(0)
  })

  test.each<[string, () => string]>([
    ['beside the public one', () => 'public'],
    ['below it', () => join('public', 'deeper')],
    [
      'there by a link',
      () => {
        symlinkSync(join(dir, 'public'), join(dir, 'link'))
        return 'link'
      },
    ],
  ])('is refused %s', async (_what, place) => {
    await expect(prepare(place())).rejects.toMatchObject({
      code: 'admin_socket_public',
      message: expect.stringContaining('admin socket cannot be in the same directory'),
    })
  })

  test('may lie where the name only begins like the public directory’s', async () => {
    expect(await prepare('public-not')).toBe(join(dir, 'public-not', 'admin.sock'))
  })

  test('may lie anywhere when there is no public one', async () => {
    const path = join(dir, 'public', 'admin.sock')
    expect(await prepareAdminSocket(path, '', createMemoryLog())).toBe(path)
  })

  test.each([0o777, 0o1777, 0o702])('is refused in a directory of mode %o', async (mode) => {
    mkdirSync(join(dir, 'private'))
    chmodSync(join(dir, 'private'), mode)
    await expect(prepare('private')).rejects.toMatchObject({ code: 'socket_directory_open' })
  })

  test.runIf(process.getuid?.() === 0)('is refused in a directory of somebody else', async () => {
    mkdirSync(join(dir, 'private'))
    chownSync(join(dir, 'private'), 12_345, 12_345)
    await expect(prepare('private')).rejects.toMatchObject({ code: 'socket_directory_foreign' })
  })

  test('does not replace a file', async () => {
    mkdirSync(join(dir, 'private'), { mode: 0o700 })
    writeFileSync(join(dir, 'private', 'admin.sock'), '')
    await expect(prepare('private')).rejects.toMatchObject({ code: 'not_a_socket' })
  })

  test('is its owner’s and group’s, and no second agent takes it', async () => {
    const ports = { clock: systemClock, log: createMemoryLog(), metrics: createMemoryMetrics() }
    const options = {
      ...ports,
      path: join(dir, 'private', 'admin.sock'),
      publicPath: publicPath(),
      attestation: createWorkloadAttestation([], ports),
      isServing: async () => true,
      debugFacts: () => {
        throw new Error('not asked for')
      },
    }
    const server = await startAdminServer(options)
    expect((await stat(options.path)).mode & 0o777).toBe(0o770)
    await expect(startAdminServer(options)).rejects.toMatchObject({ code: 'socket_in_use' })
    await server[Symbol.asyncDispose]()
  })
})

test('the public socket’s directory can be passed by everybody, whatever the umask', async () => {
  const before = process.umask(0o077)
  try {
    await preparePublicSocket(join(dir, 'a', 'b', 'api.sock'))
  } finally {
    process.umask(before)
  }
  for (const made of ['a', 'a/b']) {
    expect((await stat(join(dir, made))).mode & 0o777).toBe(0o755)
  }
})
