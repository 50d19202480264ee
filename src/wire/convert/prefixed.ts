/** SPIRE's form of an error text: what failed, a colon, why. */
import { SignetError } from '../../base/error.ts'

/** Runs `convert`; what it throws becomes invalid_argument with `what` before its text. */
export function prefixed<T>(what: string, convert: () => T): T {
  try {
    return convert()
  } catch (thrown) {
    if (!(thrown instanceof SignetError)) throw thrown
    const { code, message, cause } = thrown
    throw new SignetError('invalid_argument', code, `${what}: ${message}`, { cause })
  }
}
