/** What SPIRE's own programs did with each command line of the table, as recorded. */
import { readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import type { Seen } from './cli-seen.ts'

const FILE = fileURLToPath(new URL('../vectors/cli/golden.json', import.meta.url))

export type Golden = Readonly<Record<string, Seen>>

export function readGolden(): Golden {
  return JSON.parse(readFileSync(FILE, 'utf8'))
}

export function writeGolden(golden: Golden): void {
  writeFileSync(FILE, `${JSON.stringify(golden, undefined, 1)}\n`)
}
