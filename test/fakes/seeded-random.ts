/** Repeatable bytes for tests: SHA-256 in counter mode over a seed. */
import { createHash } from 'node:crypto'
import type { Random } from '../../src/base/ports.ts'

export function createSeededRandom(seed = 'seed'): Random {
  let counter = 0
  let pool = Buffer.alloc(0)
  return {
    bytes(size) {
      while (pool.length < size) {
        const block = createHash('sha256').update(`${seed}:${counter++}`).digest()
        pool = Buffer.concat([pool, block])
      }
      const out = new Uint8Array(pool.subarray(0, size))
      pool = pool.subarray(size)
      return out
    },
  }
}
