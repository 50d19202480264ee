/** A broken promise of our own code: it ends the request as internal, never blames the caller. */
class AssertionError extends Error {
  override readonly name = 'AssertionError'
}

export function assert(condition: unknown, promise: string): asserts condition {
  if (!condition) throw new AssertionError(`broken promise: ${promise}`)
}
