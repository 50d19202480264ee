/**
 * CPU per SVID of SPIRE's server and ours. Both run, one is loaded at a time, in short turns: what else
 * the machine does meets both, and the ratio of two turns side by side says more than two averages.
 */
import { LoadedServer, median, type Sample } from './loaded-server.ts'

const PHASES = ['1', '50', '500', 'jwt']
const ENTRIES = 1_000

export async function benchIssue(rounds: number, seconds: number, profile: boolean): Promise<void> {
  await using theirs = await LoadedServer.start('spire', 'issue', profile)
  await using ours = await LoadedServer.start('signet', 'issue', profile)
  for (const server of [theirs, ours]) {
    await server.prepare(ENTRIES, seconds)
    // Servers run for weeks: what the first seconds cost (compiling, connecting) is not measured.
    for (const phase of [...PHASES, ...PHASES]) await server.phase(phase)
  }
  print('phase', 'SPIRE µs', 'ours µs', 'ratio', '25-75 %', 'SPIRE /s', '/s', 'SPIRE p99', 'p99 ms')
  for (const phase of PHASES) {
    const pairs: (readonly [Sample, Sample])[] = []
    for (let round = 0; round < rounds; round++) {
      pairs.push([await theirs.phase(phase), await ours.phase(phase)])
    }
    report(phase, pairs)
  }
}

function report(phase: string, pairs: readonly (readonly [Sample, Sample])[]): void {
  const each = (key: 'server_cpu_us_per_svid' | 'per_s' | 'p99_ms', digits: number) =>
    [0, 1].map((side) => median(pairs.map((pair) => pair[side]![key])).toFixed(digits))
  const ratios = pairs.map(([a, b]) => a.server_cpu_us_per_svid / b.server_cpu_us_per_svid)
  ratios.sort((a, b) => a - b)
  const [low, high] = [0.25, 0.75].map((q) => ratios[Math.floor(q * ratios.length)]!.toFixed(2))
  print(
    phase,
    ...each('server_cpu_us_per_svid', 0),
    median(ratios).toFixed(2),
    `${low}-${high}`,
    ...each('per_s', 0),
    ...each('p99_ms', 1),
  )
}

function print(first: string, ...cells: string[]): void {
  const padded = cells.map((cell) => cell.padStart(11)).join('')
  process.stdout.write(`${first.padEnd(8)}${padded}\n`)
}
