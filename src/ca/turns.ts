/**
 * Lets so many at once, the others wait in order. Who waits together goes together, as many as fit
 * into one turn: small ones then share a commit of the ledger.
 */
export interface Turns {
  /** Runs `work`, of that size, when its turn comes; settles as it does. */
  take<T>(size: number, work: () => Promise<T>): Promise<T>
}

/** A place, and how many still work in it. */
interface Turn {
  sharers: number
}

interface Waiter {
  readonly size: number
  readonly start: (turn: Turn) => void
}

export function createTurns(atOnceMax: number, sizeMax: number): Turns {
  const waiting: Waiter[] = []
  let running = 0
  /** The place is handed on, not given back: nobody who comes now gets in between. */
  const handOn = () => {
    if (waiting.length === 0) {
      running--
      return
    }
    const turn = { sharers: 0 }
    let size = 0
    do {
      const next = waiting.shift()!
      size += next.size
      turn.sharers++
      next.start(turn)
    } while (waiting.length > 0 && size + waiting[0]!.size <= sizeMax)
  }
  return {
    async take(size, work) {
      let turn: Turn = { sharers: 1 }
      if (running >= atOnceMax) {
        turn = await new Promise<Turn>((start) => waiting.push({ size, start }))
      } else {
        running++
      }
      try {
        return await work()
      } finally {
        if (--turn.sharers === 0) handOn()
      }
    },
  }
}
