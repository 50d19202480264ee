/** Runs one command line of SPIRE's program or ours, as a process, against the canned server. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { CannedApis } from '../rigs/canned-apis.ts'
import { fileFacts, filled, normalized, type Seen } from '../rigs/cli-seen.ts'
import type { Invocation } from '../rigs/cli-table.ts'
import { run } from '../rigs/process.ts'
import { type Product, program } from './rig.ts'

export async function see(
  product: Product,
  invocation: Invocation,
  apis: CannedApis,
): Promise<Seen> {
  const dir = mkdtempSync(join(tmpdir(), 'sd-'))
  try {
    apis.takeAsked()
    const [command, lead] = program(product, invocation.half)
    const here = (text: string) => filled(text, apis, dir)
    if (invocation.config !== undefined) {
      writeFileSync(join(dir, 'c.conf'), here(invocation.config))
    }
    const env = Object.entries({ TZ: 'UTC', ...invocation.env }).map(([k, v]) => [k, here(v)])
    const result = await run(command, [...lead, ...invocation.args.map(here)], {
      env: Object.fromEntries(env),
      ...(invocation.stdin === undefined ? {} : { input: invocation.stdin }),
    })
    const files = (invocation.files ?? []).map((name) => [name, fileFacts(join(dir, name))])
    const seen = { ...result, files: Object.fromEntries(files), asked: apis.takeAsked() }
    return normalized(seen, apis, dir)
  } finally {
    rmSync(dir, { recursive: true, force: true })
  }
}
