/**
 * Arenas for the TBS bytes of one batch, used again: fresh buffers of this size cost more in
 * garbage collection than all of encoding (signing.md §3.6).
 *
 * An arena belongs to whoever took it until it is given back; one whose signer may still read it is
 * dropped instead.
 */

/** One certificate's TBS is under 1 KiB; a batch of 500 fits the large class. */
const SIZE_CLASSES = [4 * 1024, 64 * 1024, 512 * 1024] as const
/** Kept per class: batches in flight at once beyond that allocate. */
const KEPT_MAX = 8

export interface ArenaPool {
  take(size: number): Buffer
  giveBack(arena: Buffer): void
}

export function createArenaPool(): ArenaPool {
  const kept = new Map<number, Buffer[]>(SIZE_CLASSES.map((size) => [size, []]))
  return {
    take(size) {
      const fitting = SIZE_CLASSES.find((candidate) => candidate >= size)
      if (fitting === undefined) return Buffer.allocUnsafeSlow(size)
      return kept.get(fitting)!.pop() ?? Buffer.allocUnsafeSlow(fitting)
    },
    giveBack(arena) {
      const list = kept.get(arena.length)
      if (list && list.length < KEPT_MAX) list.push(arena)
    },
  }
}
