/**
 * What PostgreSQL or its driver threw, as a SignetError. Texts of PostgreSQL hold values and SQL,
 * so they stay in `cause`.
 */
import { SignetError } from '../../base/error.ts'

const RETRY_AFTER_SECONDS = 2

/** SQLSTATE classes and codes after which trying again makes sense (PostgreSQL 18, appendix A). */
const UNAVAILABLE: Readonly<Record<string, string>> = {
  '08': 'database_connection_lost',
  '25006': 'database_read_only',
  '25P02': 'database_transaction_lost',
  '25P03': 'database_timeout',
  '25P04': 'database_timeout',
  '28': 'database_refused',
  '3D000': 'database_refused',
  '40001': 'database_conflict',
  '40P01': 'database_conflict',
  '53': 'database_out_of_resources',
  '53100': 'database_disk_full',
  '53300': 'database_too_many_connections',
  '55P03': 'database_timeout',
  '57014': 'database_timeout',
  '57P': 'database_shutting_down',
  '58': 'database_system_error',
  XX: 'database_system_error',
}

/** What an operator must hear of where the failure is seen. */
const UNAVAILABLE_TEXT: Readonly<Record<string, string>> = {
  database_disk_full: 'datastore is unavailable: the disk of the database is full',
}

/** Only these mean "nothing happened, the same transaction may succeed now". */
export function isRetryable(thrown: unknown): boolean {
  const code = sqlState(thrown instanceof SignetError ? thrown.cause : thrown)
  return code === '40001' || code === '40P01'
}

/** unique_violation, with the name of the index. */
export function violatedUnique(thrown: unknown): string | undefined {
  const cause = thrown instanceof SignetError ? thrown.cause : thrown
  if (sqlState(cause) !== '23505') return undefined
  return String((cause as { constraint?: unknown }).constraint ?? '')
}

export function toStoreError(thrown: unknown): SignetError {
  if (thrown instanceof SignetError) return thrown
  const state = sqlState(thrown)
  // No SQLSTATE: the driver or the network spoke, the database did not.
  if (state === undefined) return unavailable('database_connection_lost', thrown)
  for (const length of [5, 3, 2]) {
    const code = UNAVAILABLE[state.slice(0, length)]
    if (code !== undefined) return unavailable(code, thrown)
  }
  if (state.startsWith('22')) {
    return new SignetError('invalid_argument', 'bad_value', 'a value can not be stored', {
      cause: thrown,
    })
  }
  return new SignetError('internal', 'database_error', 'datastore failure', { cause: thrown })
}

/** Should the connection be closed rather than go back to the pool? */
export function poisonsConnection(thrown: unknown): boolean {
  if (!(thrown instanceof SignetError)) return true
  // A demoted primary answers read_only for ever: its connections must not be used again.
  return thrown.kind === 'unavailable' && thrown.code !== 'database_conflict'
}

export function unavailable(code: string, cause: unknown): SignetError {
  return new SignetError(
    'unavailable',
    code,
    UNAVAILABLE_TEXT[code] ?? 'datastore is unavailable',
    {
      cause,
      retryAfterSeconds: RETRY_AFTER_SECONDS,
    },
  )
}

function sqlState(thrown: unknown): string | undefined {
  if (typeof thrown !== 'object' || thrown === null) return undefined
  const code: unknown = (thrown as { code?: unknown }).code
  // Node's own errors have codes too: ECONNREFUSED, EPIPE …
  return typeof code === 'string' && /^[0-9A-Z]{5}$/.test(code) && !/^E[A-Z]{4}$/.test(code)
    ? code
    : undefined
}
