/** Lets so many at once, the others wait in order. */
export interface Turns {
  /** Runs `work` when its turn comes; settles as it does. */
  take<T>(work: () => Promise<T>): Promise<T>
}

export function createTurns(atOnceMax: number): Turns {
  const waiting: (() => void)[] = []
  let running = 0
  return {
    async take(work) {
      if (running >= atOnceMax) await new Promise<void>((resolve) => waiting.push(resolve))
      else running++
      try {
        return await work()
      } finally {
        // The place is handed on, not given back: nobody who comes now gets in between.
        const next = waiting.shift()
        if (next) next()
        else running--
      }
    },
  }
}
