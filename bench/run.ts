/**
 * `npm run bench [-- issue|entries|scale|agent] [--seconds N] [--rounds N] [--profile]`: speed beside
 * SPIRE, both servers in one sitting on this machine, with the same client; without a name all four,
 * about half an hour. Ours keeps its ledger on, and the CPU of its PostgreSQL counts; SPIRE runs on
 * SQLite with its rate limit off. Raw lines go to bench/results/.
 */
import { cpus } from 'node:os'
import { benchAgent } from './agent.ts'
import { benchEntries } from './entries.ts'
import { benchIssue } from './issue.ts'
import { benchScale } from './scale.ts'

const args = process.argv.slice(2)
const option = (name: string, fallback: number): number => {
  const at = args.indexOf(name)
  return at < 0 ? fallback : Number(args[at + 1])
}

const BENCHES: Readonly<Record<string, () => Promise<void>>> = {
  issue: () =>
    benchIssue(option('--rounds', 11), option('--seconds', 2), args.includes('--profile')),
  entries: () => benchEntries(option('--rounds', 3)),
  scale: () => benchScale(option('--entries', 100_000), option('--agents', 100)),
  agent: () => benchAgent(option('--identities', 1_000), option('--streams', 1_000)),
}

const asked = args.find((a) => !a.startsWith('-') && !/^\d+$/.test(a))
const names = Object.keys(BENCHES)
if (asked !== undefined && !names.includes(asked)) {
  throw new Error(`unknown bench ${asked}: ${names.join(', ')}`)
}
process.stdout.write(`${cpus()[0]?.model}, ${cpus().length} cores, ${new Date().toISOString()}\n`)
for (const name of asked === undefined ? names : [asked]) {
  process.stdout.write(`\n== ${name}\n`)
  await BENCHES[name]!()
}
