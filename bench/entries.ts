/** Entries created per second, in batches of 500, by SPIRE's server and ours one after the other. */
import type { Product } from '../test/interop/rig.ts'
import { LoadedServer, median } from './loaded-server.ts'

const ENTRIES = 20_000

export async function benchEntries(rounds: number): Promise<void> {
  const rates: Record<Product, number[]> = { spire: [], signet: [] }
  for (let round = 0; round < rounds; round++) {
    for (const product of ['spire', 'signet'] as const) rates[product].push(await rate(product))
  }
  const [theirs, ours] = [median(rates.spire), median(rates.signet)]
  const ratio = (ours / theirs).toFixed(1)
  process.stdout.write(
    `entries/s  SPIRE ${theirs.toFixed(0)}  ours ${ours.toFixed(0)}  ratio ${ratio}\n`,
  )
}

async function rate(product: Product): Promise<number> {
  await using server = await LoadedServer.start(product, 'entries', false)
  const none = ['-duration', '1s', '-batches', '', '-jwt=false']
  await server.run(['-entries', '500', ...none])
  const samples = await server.run(['-entries', String(ENTRIES), ...none])
  return samples.find((sample) => sample.phase === 'create-entries')!.per_s
}
