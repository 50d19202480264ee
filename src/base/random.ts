/** The operating system's random source, drawn in blocks: one call per SVID would cost a µs each. */
import { randomFillSync } from 'node:crypto'
import type { Random } from './ports.ts'

const BLOCK_BYTES = 4096

/** Each byte is handed out once and wiped from the block. */
export function createSystemRandom(): Random {
  const block = Buffer.allocUnsafeSlow(BLOCK_BYTES)
  let used = BLOCK_BYTES
  return {
    bytes(size) {
      if (size > BLOCK_BYTES / 4) return randomFillSync(new Uint8Array(size))
      if (used + size > BLOCK_BYTES) {
        randomFillSync(block)
        used = 0
      }
      const out = new Uint8Array(size)
      out.set(block.subarray(used, used + size))
      block.fill(0, used, used + size)
      used += size
      return out
    },
  }
}
