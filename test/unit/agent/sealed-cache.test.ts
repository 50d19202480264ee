import {
  chmod,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  symlink,
  utimes,
  writeFile,
} from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import {
  type CacheSnapshot,
  createSealedCache,
  noSealedCache,
  type SealedCacheOptions,
} from '../../../src/agent/svid-cache/persistence.ts'
import { SEAL_KEY_BYTES, seal, unseal } from '../../../src/agent/svid-cache/seal.ts'
import { utf8 } from '../../../src/base/bytes.ts'
import { CACHE_NOW, makeBundle, makeSvid } from '../../fakes/agent-cache.ts'
import { FakeClock } from '../../fakes/fake-clock.ts'
import { makeEntry } from '../../fakes/make-entry.ts'
import { createMemoryLog } from '../../fakes/memory-log.ts'
import { createSeededRandom } from '../../fakes/seeded-random.ts'
import { until } from '../../rigs/until.ts'

const KEY = new Uint8Array(SEAL_KEY_BYTES).fill(7)

describe('a sealed file', () => {
  const random = createSeededRandom()
  const sealed = seal(KEY, 'purpose', utf8('secret'), random)

  test('opens with its key and purpose, and shows nothing without', () => {
    expect(unseal(KEY, 'purpose', sealed)).toEqual(utf8('secret'))
    expect(Buffer.from(sealed).includes('secret')).toBe(false)
    expect(unseal(KEY, 'another', sealed)).toBeUndefined()
    expect(unseal(new Uint8Array(SEAL_KEY_BYTES), 'purpose', sealed)).toBeUndefined()
  })

  test('never has the same nonce twice', () => {
    expect(seal(KEY, 'purpose', utf8('secret'), random)).not.toEqual(sealed)
  })

  // Method: every byte of the file, every length short of it.
  test('does not open when any byte differs or is missing', () => {
    for (let i = 0; i < sealed.length; i++) {
      const changed = Uint8Array.from(sealed)
      changed[i] = changed[i]! ^ 1
      expect(unseal(KEY, 'purpose', changed)).toBeUndefined()
      expect(unseal(KEY, 'purpose', sealed.subarray(0, i))).toBeUndefined()
    }
  })

  test('gives back what was put in', () => {
    fc.assert(
      fc.property(fc.uint8Array(), fc.string(), (plaintext, purpose) => {
        expect(unseal(KEY, purpose, seal(KEY, purpose, plaintext, random))).toEqual(plaintext)
      }),
    )
  })
})

describe('the sealed cache', () => {
  let dir: string
  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), 'sealed-'))
  })
  afterEach(() => rm(dir, { recursive: true, force: true }))

  const snapshot: CacheSnapshot = {
    entries: [makeEntry({ id: 'a', hint: 'h', federatesWith: ['other.org'], revisionNumber: 3n })],
    bundles: [makeBundle('example.org'), makeBundle('other.org')],
    svids: new Map([
      ['a', makeSvid({ privateKey: utf8('canary-key') })],
      ['expired', makeSvid({ notAfter: CACHE_NOW })],
    ]),
  }

  function open(fields: Partial<SealedCacheOptions> = {}) {
    const log = createMemoryLog()
    const cache = createSealedCache({
      dataDir: dir,
      runDir: join(dir, 'run'),
      owner: () => 'example.org agent',
      snapshot: () => snapshot,
      clock: new FakeClock(CACHE_NOW),
      random: createSeededRandom(),
      log,
      ...fields,
    })
    return { cache, log }
  }

  async function write(fields: Partial<SealedCacheOptions> = {}): Promise<void> {
    const { cache } = open(fields)
    cache.changed()
    await cache.flush()
  }

  const filePath = () => join(dir, 'svid-cache.sealed')
  const keyFiles = async () =>
    (await readdir(join(dir, 'run'))).filter((name) => name.endsWith('.key'))

  test('gives a restarted agent its entries, bundles and live SVIDs', async () => {
    await write()
    const restored = await open().cache.load()
    expect(restored!.entries[0]).toMatchObject({
      id: 'a',
      hint: 'h',
      revisionNumber: 3n,
      selectors: [{ type: 'unix', value: 'uid:1' }],
    })
    expect(restored!.entries[0]!.spiffeId.toString()).toBe('spiffe://example.org/workload/a')
    expect(restored!.bundles).toEqual(snapshot.bundles)
    expect([...restored!.svids.keys()]).toEqual(['a'])
    expect(restored!.svids.get('a')).toEqual(snapshot.svids.get('a'))
  })

  test('keeps the order of use, whatever the entries are called', async () => {
    const names = ['b', '10', 'a', '2']
    const svids = new Map(names.map((id) => [id, makeSvid()]))
    await write({ snapshot: () => ({ ...snapshot, svids }) })
    expect([...(await open().cache.load())!.svids.keys()]).toEqual(names)
  })

  test('keeps file and key apart, both for the owner alone, and no key in clear', async () => {
    await write()
    const [key] = await keyFiles()
    expect((await stat(join(dir, 'run', key!))).mode & 0o777).toBe(0o600)
    expect((await stat(join(dir, 'run'))).mode & 0o777).toBe(0o700)
    expect((await stat(filePath())).mode & 0o777).toBe(0o600)
    const text = (await readFile(filePath())).toString('latin1')
    expect(text).not.toContain('canary-key')
    expect(text).not.toContain(Buffer.from('canary-key').toString('base64'))
  })

  test('keeps the key beside the file where /run is not ours', async () => {
    await writeFile(join(dir, 'occupied'), '')
    const runDir = join(dir, 'occupied', 'run')
    await write({ runDir })
    expect(await readdir(dir)).toContain('svid-cache.sealed.key')
    expect(await open({ runDir }).cache.load()).toBeDefined()
  })

  test.each<[string, () => Promise<unknown>]>([
    ['another agent', async () => {}],
    [
      'a changed file',
      async () => {
        const bytes = await readFile(filePath())
        bytes[bytes.length - 1]! ^= 1
        await writeFile(filePath(), bytes)
      },
    ],
    [
      'a truncated file',
      async () => writeFile(filePath(), (await readFile(filePath())).subarray(0, 20)),
    ],
    ['an empty file', () => writeFile(filePath(), '')],
    ['no file', () => rm(filePath())],
    ['no key', async () => rm(join(dir, 'run', (await keyFiles())[0]!))],
    [
      'the key of another cache',
      async () => {
        const keyPath = join(dir, 'run', (await keyFiles())[0]!)
        const key = (await readFile(keyPath)).subarray(0, SEAL_KEY_BYTES)
        await writeFile(keyPath, Buffer.concat([key, Buffer.from('/another/svid-cache.sealed')]))
      },
    ],
    ['a key others can read', async () => chmod(join(dir, 'run', (await keyFiles())[0]!), 0o644)],
    ['a short key', async () => writeFile(join(dir, 'run', (await keyFiles())[0]!), 'short')],
    [
      'a link in place of the file',
      async () => {
        await writeFile(join(dir, 'elsewhere'), await readFile(filePath()))
        await rm(filePath())
        await symlink(join(dir, 'elsewhere'), filePath())
      },
    ],
  ])('starts without it for %s', async (what, damage) => {
    await write()
    await damage()
    const fields = what === 'another agent' ? { owner: () => 'another' } : {}
    expect(await open(fields).cache.load()).toBeUndefined()
  })

  test('a well-sealed file with foreign content is no cache either', async () => {
    await write()
    const keyFile = await readFile(join(dir, 'run', (await keyFiles())[0]!))
    const key = keyFile.subarray(0, SEAL_KEY_BYTES)
    const foreign = seal(key, 'example.org agent', utf8('{"entries":[]}'), createSeededRandom('2'))
    await writeFile(filePath(), foreign)
    const { cache, log } = open()
    expect(await cache.load()).toBeUndefined()
    expect(log.lines.map(({ level }) => level)).toEqual(['warn'])
  })

  test('is on disk a tenth of a second after a change, and in the state of that moment', async () => {
    let reads = 0
    const clock = new FakeClock(CACHE_NOW)
    const { cache } = open({
      clock,
      snapshot: () => {
        reads++
        return snapshot
      },
    })
    for (const round of [1, 2]) {
      for (let i = 0; i < 5; i++) cache.changed()
      await clock.untilArmed()
      expect(reads).toBe(round - 1)
      clock.advanceMs(100)
      await until('written', () => reads === round)
      await cache.flush()
    }
    expect(reads).toBe(2)
    expect(await open().cache.load()).toBeDefined()
  })

  test('rests nine times as long as a write took', async () => {
    let reads = 0
    const clock = new FakeClock(CACHE_NOW)
    const { cache } = open({
      clock,
      snapshot: () => {
        if (reads++ === 0) clock.advanceMs(200)
        return snapshot
      },
    })
    cache.changed()
    await clock.untilArmed()
    clock.advanceMs(100)
    await until('written', () => reads === 1)
    cache.changed()
    await clock.untilArmed()
    clock.advanceMs(1_799)
    await cache.flush()
    expect(reads).toBe(2)
    cache.changed()
    clock.advanceMs(1)
    await clock.untilArmed()
    clock.advanceMs(100)
    await until('written after the rest', () => reads === 3)
  })

  test('removes keys unused for 30 days whose data directories are gone, and no others', async () => {
    const runDir = join(dir, 'run')
    for (const name of ['gone', 'here']) {
      await mkdir(join(dir, name))
      await write({ dataDir: join(dir, name), runDir })
    }
    await rm(join(dir, 'gone'), { recursive: true })
    // The file is gone, its directory is not: its agent will write it again.
    await rm(join(dir, 'here', 'svid-cache.sealed'))
    const key = (name: string, content: string | Uint8Array) =>
      writeFile(join(runDir, name), content, { mode: 0o600 })
    await key('foreign.key', 'short')
    await key('foreign', '')
    // What can't be looked at is not gone.
    await writeFile(join(dir, 'no-directory'), '')
    const behind = join(dir, 'no-directory', 'data', 'svid-cache.sealed')
    await key('behind.key', Buffer.concat([KEY, Buffer.from(behind)]))
    // As an earlier version made them.
    await key('nameless.key', KEY)
    const usedDaysAgo = async (days: number) => {
      const at = CACHE_NOW - days * 86_400
      for (const name of await readdir(runDir)) await utimes(join(runDir, name), at, at)
    }
    const load = () => open({ dataDir: join(dir, 'here'), runDir }).cache.load()
    const before = await readdir(runDir)
    await usedDaysAgo(30)
    expect(await load()).toBeUndefined()
    expect(await readdir(runDir)).toEqual(before)
    await usedDaysAgo(31)
    await load()
    const after = await readdir(runDir)
    expect(before.length - after.length).toBe(2)
    expect(after).toEqual(expect.arrayContaining(['foreign', 'foreign.key', 'behind.key']))
    expect(after).not.toContain('nameless.key')
    await write({ dataDir: join(dir, 'here'), runDir })
    expect(await load()).toBeDefined()
  })

  test('a key in use is not unused, however old it is', async () => {
    const runDir = join(dir, 'run')
    const dataDir = join(dir, 'mount')
    await mkdir(dataDir)
    await write({ dataDir, runDir })
    const [name] = await keyFiles()
    const old = CACHE_NOW - 100 * 86_400
    await utimes(join(runDir, name!), old, old)
    await write({ dataDir, runDir })
    await rename(dataDir, join(dir, 'unmounted'))
    await open({ dataDir: join(dir, 'another'), runDir }).cache.load()
    await rename(join(dir, 'unmounted'), dataDir)
    expect(await open({ dataDir, runDir }).cache.load()).toBeDefined()
  })

  test('a key that vanished while the agent ran is made anew with the next write', async () => {
    const { cache } = open()
    cache.changed()
    await cache.flush()
    await rm(join(dir, 'run'), { recursive: true })
    cache.changed()
    await cache.flush()
    expect(await open().cache.load()).toBeDefined()
  })

  test('is gone for good after a ban', async () => {
    const { cache } = open()
    cache.changed()
    await cache.flush()
    await cache.remove()
    cache.changed()
    await cache.flush()
    await expect(stat(filePath())).rejects.toThrow()
  })

  test('with KeyManager memory there is none', async () => {
    noSealedCache.changed()
    expect(await noSealedCache.load()).toBeUndefined()
  })
})
