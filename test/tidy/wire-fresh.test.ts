/** The committed wire code is what the committed .proto files generate. */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { generateWire } from '../../scripts/generate-wire.ts'

const COMMITTED = fileURLToPath(new URL('../../src/wire/gen', import.meta.url))

test('src/wire/gen is freshly generated', { timeout: 60_000 }, () => {
  const temporary = mkdtempSync(join(tmpdir(), 'signet-wire-'))
  try {
    const out = join(temporary, 'gen')
    generateWire(out)
    expect(filesOf(COMMITTED)).toEqual(filesOf(out))
    for (const file of filesOf(out)) {
      const same =
        readFileSync(join(COMMITTED, file), 'utf8') === readFileSync(join(out, file), 'utf8')
      expect(same, `${file} is stale: run npm run generate`).toBe(true)
    }
  } finally {
    rmSync(temporary, { recursive: true, force: true })
  }
})

function filesOf(directory: string): string[] {
  const entries = readdirSync(directory, { recursive: true, withFileTypes: true })
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(directory.length + 1))
    .sort()
}
