/** The house rules, kept by a test over the tree; the rules themselves are tested below it. */
import { generateKeyPairSync } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { importCycles, importFaults } from './import-rules.ts'
import { keyFaults, placeFaults, sleepFaults, sourceFaults, withoutComments } from './text-rules.ts'
import { importsOf, isGenerated, listFiles, ROOT, readSources } from './tree.ts'

const sources = readSources()
const handWritten = sources.filter((f) => f.path.startsWith('src/') && !isGenerated(f.path))

describe('the tree', () => {
  test('every module imports only what its room may', () => {
    expect(sources.filter((f) => f.path.startsWith('src/')).flatMap(importFaults)).toEqual([])
  })

  test('there are no import cycles', () => {
    expect(importCycles(handWritten)).toEqual([])
  })

  test('hand-written modules keep the rules of the text', () => {
    expect(handWritten.flatMap(sourceFaults)).toEqual([])
  })

  test('nothing names the machine it was written on', () => {
    const own = /^test\/tidy\/|^test\/vectors\//
    const faults = listFiles()
      .filter((path) => !own.test(path) && !/\.(png|bin|der|gz)$/.test(path))
      .flatMap((path) => placeFaults(path, readFileSync(join(ROOT, path), 'utf8')))
    expect(faults).toEqual([])
  })

  test('no private key lies in it', () => {
    const faults = listFiles().flatMap((path) =>
      keyFaults(path, readFileSync(join(ROOT, path), 'latin1')),
    )
    expect(faults).toEqual([])
  })

  test('no test is skipped, left to do, or run alone', () => {
    const bad = sources
      .filter((f) => f.path.startsWith('test/') && !f.path.startsWith('test/tidy/'))
      .filter((f) => /\b(test|it|describe)\.(skip|todo|only)\b/.test(withoutComments(f.text)))
    expect(bad.map((f) => f.path)).toEqual([])
  })

  test('no test guesses how long something takes', () => {
    const tests = sources.filter(({ path }) => /^test\/(?!tidy\/)/.test(path))
    expect(tests.flatMap(sleepFaults)).toEqual([])
  })

  test('the changelog has an entry for what is not yet released', () => {
    const text = readFileSync(join(ROOT, 'CHANGELOG.md'), 'utf8')
    expect(text).toMatch(/^# Changelog\n/)
    expect(text).toMatch(/\n## Unreleased\n[\s\S]*\n- /)
  })
})

describe('the rules', () => {
  const file = (path: string, text: string) => ({ path, text })

  test('imports are found in every form', () => {
    const text = [
      "import { a } from './a.ts'",
      "import type { B } from '../base/b.ts'",
      "export { c } from 'pg/lib/c'",
      "const d = await import('./d.ts')",
      "import '@scope/name/e'",
    ].join('\n')
    expect(importsOf(file('src/ca/x.ts', text)).sort()).toEqual([
      '@scope/name',
      'pg',
      'src/base/b.ts',
      'src/ca/a.ts',
      'src/ca/d.ts',
    ])
  })

  test.each([
    ['src/ca/x.ts', "import { q } from '../server/ports.ts'"],
    ['src/ca/x.ts', "import pg from 'pg'"],
    ['src/base/x.ts', "import { q } from '../spiffe/selector.ts'"],
    ['src/agent/x.ts', "import { q } from '../server/ports.ts'"],
    ['src/server/x.ts', "import { q } from '../agent/main.ts'"],
    ['src/server/x.ts', "import { q } from '../../test/rigs/until.ts'"],
    ['src/server/rpc/x.ts', "import { z } from 'zod'"],
    ['src/attestors/node/x509pop/server.ts', "import { q } from './agent.ts'"],
    ['src/server/sync/x.ts', "import { Server } from '@grpc/grpc-js'"],
    ['src/server/authz/x.ts', "import { Entry } from '../../wire/gen/spire/api/types/entry.ts'"],
    ['src/base/http-health.ts', "import pino from 'pino'"],
    ['src/nowhere/x.ts', ''],
  ])('%s may not say %s', (path, text) => {
    expect(importFaults(file(path, text))).not.toEqual([])
  })

  test('a cycle is named', () => {
    expect(
      importCycles([
        file('src/ca/a.ts', "import { b } from './b.ts'"),
        file('src/ca/b.ts', "import { a } from './a.ts'"),
      ]),
    ).toEqual(['src/ca/a.ts -> src/ca/b.ts -> src/ca/a.ts'])
  })

  test.each([
    'const t = Date.now()',
    'const t = new Date()',
    'const t = new Date',
    'const now = Date.now',
    'const t = performance.now()',
    'const s = AbortSignal.timeout(1)',
    "import { setTimeout as sleep } from 'node:timers/promises'",
    "import { env } from 'node:process'",
    "const e = process['env']",
    'const r = randomInt(5)',
    'const r = Math.random()',
    'setTimeout(f, 1)',
    'const e = process.env.X',
    "console.log('x')",
    '// TODO later',
    '// @ts-ignore',
    'export default 1',
    'export enum A { B }',
  ])('"%s" is a fault', (line) => {
    expect(sourceFaults(file('src/ca/x.ts', `/** Head. */\n${line}\n`))).toHaveLength(1)
  })

  test('a banned call in a comment is none', () => {
    expect(
      sourceFaults(file('src/ca/x.ts', '/** Never Date.now(). */\n// setTimeout(f)\n')),
    ).toEqual([])
  })

  test('a head and short lines are asked for', () => {
    expect(sourceFaults(file('src/ca/x.ts', 'const a = 1\n'))).toHaveLength(1)
    expect(
      sourceFaults(file('src/ca/x.ts', `/** H. */\nconst a = ${'b + '.repeat(30)}1\n`)),
    ).toHaveLength(1)
  })

  test('a guessed time in a test is a fault, in a rig it is none', () => {
    const line = 'await new Promise((resolve) => setTimeout(resolve, 5))'
    expect(sleepFaults(file('test/unit/x.test.ts', line))).toHaveLength(1)
    expect(sleepFaults(file('test/unit/x.test.ts', 'await systemClock.sleep(5)'))).toHaveLength(1)
    expect(sleepFaults(file('test/unit/x.test.ts', '// setTimeout(f)\nclock.sleep(5)'))).toEqual([])
    expect(sleepFaults(file('test/rigs/until.ts', line))).toEqual([])
  })

  test('private keys are found, in files and in strings', () => {
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    const pem = privateKey.export({ type: 'pkcs8', format: 'pem' }).toString()
    expect(keyFaults('x', pem)).toHaveLength(1)
    expect(keyFaults('x', JSON.stringify(pem))).toHaveLength(1)
    expect(keyFaults('x', '-----BEGIN PRIVATE KEY-----\\nMIG\\n')).toEqual([])
  })

  test('places are found', () => {
    expect(placeFaults('x', 'cd /work/main')).toHaveLength(1)
    expect(placeFaults('x', 'a/work/b and framework/x')).toEqual([])
  })
})
