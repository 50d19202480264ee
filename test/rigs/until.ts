/** Waiting for conditions: tests never sleep for a guessed time. */

/** Polls until `probe` gives something other than undefined or false; its last failure is in the error. */
export async function until<T>(
  what: string,
  probe: () => Promise<T | undefined | false> | T | undefined | false,
  timeoutMs = 30_000,
): Promise<T> {
  const deadline = performance.now() + timeoutMs
  let last: unknown
  for (;;) {
    try {
      const value = await probe()
      if (value !== undefined && value !== false) return value as T
    } catch (error) {
      last = error
    }
    if (performance.now() > deadline) {
      throw new Error(`waited ${timeoutMs} ms in vain for: ${what}`, { cause: last })
    }
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}
