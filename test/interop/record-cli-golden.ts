/**
 * Records what SPIRE's programs do with the command lines of the table: run it after the table or the
 * canned answers changed, with the peers built (`node scripts/ensure.mjs peers`).
 */
import { startCannedApis } from '../rigs/canned-apis.ts'
import { CLI_ANSWERS } from '../rigs/cli-answers.ts'
import { writeGolden } from '../rigs/cli-golden.ts'
import type { Seen } from '../rigs/cli-seen.ts'
import { CLI_TABLE, CONFIG_FILES, FLAG_MISTAKES } from '../rigs/cli-table.ts'
import { see } from './cli-compare.ts'

await using apis = await startCannedApis(CLI_ANSWERS)
const golden: Record<string, Seen> = {}
for (const invocation of [...CLI_TABLE, ...CONFIG_FILES, ...FLAG_MISTAKES]) {
  golden[invocation.name] = await see('spire', invocation, apis)
}
writeGolden(golden)
