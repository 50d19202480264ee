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
  database_untrusted:
    'datastore is unavailable: the certificate of PostgreSQL is not accepted (sslrootcert must ' +
    'hold its CA; for verify-full it must name the host)',
}

/** Node's codes for a certificate that fails. */
const UNTRUSTED = new Set([
  'CERT_HAS_EXPIRED',
  'CERT_NOT_YET_VALID',
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'ERR_TLS_CERT_ALTNAME_INVALID',
  'SELF_SIGNED_CERT_IN_CHAIN',
  'UNABLE_TO_GET_ISSUER_CERT',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
])

/** What stops the schema from being made, and what to do. */
const SETUP: Readonly<Record<string, { readonly code: string; readonly text: string }>> = {
  '42501': {
    code: 'database_right_missing',
    text:
      'the database role lacks a right: it makes the schemas "signet" and "signet_worker" and ' +
      'must own them: grant it CREATE on the database, and connect as the same role each time',
  },
  '42P06': {
    code: 'schema_not_ours',
    text:
      'the database has a schema "signet" that Signet did not make: drop it if it is empty, or ' +
      'give Signet another database',
  },
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
  if (state === undefined) {
    const untrusted = UNTRUSTED.has(String(codeOf(thrown)))
    return unavailable(untrusted ? 'database_untrusted' : 'database_connection_lost', thrown)
  }
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

/** At start: an operator can mend what is a failure of the program later on. */
export function toSetupError(thrown: unknown): SignetError {
  const known = SETUP[sqlState(thrown) ?? '']
  if (known === undefined) return toStoreError(thrown)
  return new SignetError('failed_precondition', known.code, known.text, { cause: thrown })
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

function codeOf(thrown: unknown): unknown {
  return typeof thrown === 'object' && thrown !== null
    ? (thrown as { code?: unknown }).code
    : undefined
}

function sqlState(thrown: unknown): string | undefined {
  const code = codeOf(thrown)
  // Node's own errors have codes too: ECONNREFUSED, EPIPE …
  return typeof code === 'string' && /^[0-9A-Z]{5}$/.test(code) && !/^E[A-Z]{4}$/.test(code)
    ? code
    : undefined
}
