/** A log nobody reads. */
import type { Log } from '../../src/base/ports.ts'

export const silentLog: Log = {
  debug: () => {},
  info: () => {},
  warn: () => {},
  error: () => {},
  with: () => silentLog,
}
