/**
 * The one error type of Signet. Domain code throws it (or returns it per item in batches);
 * `src/wire/status.ts` alone maps `kind` to a gRPC status.
 *
 * `message` is sent to callers, so it never holds a secret, SQL or a stack; those go to `cause` and
 * `fields`, which are logged only. Text follows SPIRE: lower case, no final period.
 */
export type ErrorKind =
  | 'invalid_argument'
  | 'not_found'
  | 'already_exists'
  | 'permission_denied'
  | 'unauthenticated'
  | 'failed_precondition'
  | 'resource_exhausted'
  | 'aborted'
  | 'unavailable'
  | 'deadline_exceeded'
  | 'canceled'
  | 'unimplemented'
  | 'internal'

/** `spire.api.types.PermissionDeniedDetails.Reason`: agents act on these (api.md §11.6). */
export type DenialReason =
  | 'agent_expired'
  | 'agent_not_attested'
  | 'agent_not_active'
  | 'agent_banned'
  | 'agent_must_reattest'

export interface ErrorOptionsOf {
  readonly cause?: unknown
  /** Logged beside the message, never sent. */
  readonly fields?: Readonly<Record<string, unknown>>
  /** Sent as a typed detail with permission_denied. */
  readonly denial?: DenialReason
  /** Seconds after which trying again makes sense; sent as `google.rpc.RetryInfo`. */
  readonly retryAfterSeconds?: number
}

export class SignetError extends Error {
  readonly kind: ErrorKind
  /** Stable snake_case word for tests, metrics and logs. */
  readonly code: string
  readonly fields: Readonly<Record<string, unknown>>
  readonly denial: DenialReason | undefined
  readonly retryAfterSeconds: number | undefined

  constructor(kind: ErrorKind, code: string, message: string, options: ErrorOptionsOf = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.name = 'SignetError'
    this.kind = kind
    this.code = code
    this.fields = options.fields ?? {}
    this.denial = options.denial
    this.retryAfterSeconds = options.retryAfterSeconds
  }
}

/** One item of a batch: batches return outcomes, everything else throws. */
export type Outcome<T> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly error: SignetError; readonly value?: T }

/** What was thrown, as a SignetError; foreign errors become internal with their text hidden. */
export function toSignetError(thrown: unknown): SignetError {
  if (thrown instanceof SignetError) return thrown
  return new SignetError('internal', 'internal', 'internal error', { cause: thrown })
}
