/** Binaries that can't run where npm put them are copied, with their symlinks. */
import {
  chmodSync,
  cpSync,
  lstatSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { preparePostgresBinaries } from '../../../src/server/datastore/embedded/binaries.ts'

let dir: string
let home: string

/** A package as npm unpacks it: no symlinks, small files for programs and libraries. */
beforeEach(() => {
  dir = mkdtempSync(path.join(tmpdir(), 'signet-binaries-'))
  chmodSync(dir, 0o755)
  home = path.join(dir, 'package')
  for (const file of ['bin/initdb', 'bin/postgres', 'lib/libpq.so.5.18', 'share/x.sql']) {
    cpSync('/bin/true', path.join(home, 'native', file))
    chmodSync(path.join(home, 'native', file), 0o755)
  }
  const links = [{ source: 'native/lib/libpq.so.5.18', target: 'native/lib/libpq.so.5' }]
  writeFileSync(path.join(home, 'native', 'pg-symlinks.json'), JSON.stringify(links))
  writeFileSync(path.join(home, 'package.json'), JSON.stringify({ version: '1.2.3' }))
})
afterEach(() => rmSync(dir, { recursive: true, force: true }))

const privateDir = () => path.join(dir, 'private')

test('a package without its symlinks is copied with them, once', () => {
  const first = preparePostgresBinaries({ asRoot: false, privateDir: privateDir(), home })
  expect(first.postgres).toBe(path.join(privateDir(), 'native-1.2.3', 'bin', 'postgres'))
  const link = path.join(privateDir(), 'native-1.2.3', 'lib', 'libpq.so.5')
  expect(lstatSync(link).isSymbolicLink()).toBe(true)
  expect(preparePostgresBinaries({ asRoot: false, privateDir: privateDir(), home })).toEqual(first)
  expect(readdirSync(privateDir())).toEqual(['native-1.2.3'])
})

test('a whole package is used where it is', () => {
  cpSync('/bin/true', path.join(home, 'native/lib/libpq.so.5'))
  const used = preparePostgresBinaries({ asRoot: false, privateDir: privateDir(), home })
  expect(used.initdb).toBe(path.join(home, 'native', 'bin', 'initdb'))
})

test('a whole package that other users can not reach is copied for root', () => {
  cpSync('/bin/true', path.join(home, 'native/lib/libpq.so.5'))
  chmodSync(home, 0o700)
  const options = { asRoot: true, privateDir: privateDir(), rootDir: privateDir(), home }
  expect(preparePostgresBinaries(options).postgres).toBe(
    path.join(privateDir(), 'native-1.2.3', 'bin', 'postgres'),
  )
  chmodSync(home, 0o755)
  expect(preparePostgresBinaries(options).postgres).toBe(path.join(home, 'native/bin/postgres'))
})
