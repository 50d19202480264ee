/**
 * The texts of failed calls (api.md §5.1): what failed, a colon, why. A foreign error's own text
 * is never sent; the request id that replaces it finds the log line.
 */
import { SignetError, toSignetError } from '../../base/error.ts'
import type { Log } from '../../base/ports.ts'

/** Puts `what` before the text; kind, details and cause stay as they are. */
export function failed(what: string, thrown: unknown): SignetError {
  const error = toSignetError(thrown)
  return new SignetError(error.kind, error.code, `${what}: ${error.message}`, {
    cause: error.cause ?? thrown,
    fields: error.fields,
    ...(error.denial !== undefined && { denial: error.denial }),
    ...(error.retryAfterSeconds !== undefined && { retryAfterSeconds: error.retryAfterSeconds }),
  })
}

export function invalidArgument(text: string): SignetError {
  return new SignetError('invalid_argument', 'invalid_argument', text)
}

export function notFound(text: string): SignetError {
  return new SignetError('not_found', 'not_found', text)
}

/**
 * Converts a filter. SPIRE leaves some of its faults to the store: they are internal errors, and
 * like all of the store's get `what` before their text.
 */
export function filterFor<T>(what: string, convert: () => T): T {
  try {
    return convert()
  } catch (thrown) {
    const error = toSignetError(thrown)
    throw error.kind === 'internal' ? failed(what, error) : error
  }
}

/** Awaits `work`; what it rejects with gets `what` before its text. */
export async function attempt<T>(what: string, work: Promise<T>): Promise<T> {
  try {
    return await work
  } catch (thrown) {
    throw failed(what, thrown)
  }
}

/**
 * The same for lookups by id: not_found gets `missing` as its whole text, because SPIRE hides the
 * cause there.
 */
export async function attemptOn<T>(what: string, missing: string, work: Promise<T>): Promise<T> {
  try {
    return await work
  } catch (thrown) {
    const error = toSignetError(thrown)
    throw error.kind === 'not_found' ? notFound(missing) : failed(what, error)
  }
}

/** For what we would not explain: the caller gets the id under which the log explains it. */
export function withRequestId(error: SignetError, requestId: string): SignetError {
  if (error.kind !== 'internal' || error.code !== 'internal') return error
  return new SignetError('internal', 'internal', `${error.message} (request id ${requestId})`, {
    cause: error.cause,
    fields: error.fields,
  })
}

/** One line per failed call or item, in SPIRE's form. */
export function logFailure(log: Log, error: SignetError): void {
  // A client that goes away is no fault of anybody.
  if (error.kind === 'canceled') {
    log.debug('Call canceled')
    return
  }
  const text =
    error.kind === 'invalid_argument'
      ? `Invalid argument: ${error.message}`
      : error.message.charAt(0).toUpperCase() + error.message.slice(1)
  const cause = error.cause === undefined ? {} : { error: error.cause }
  log.error(text, { ...error.fields, ...cause, error_code: error.code })
}
