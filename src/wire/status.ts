/**
 * SignetError <-> gRPC status: the only place where the two vocabularies meet (style of SPIRE:
 * batch RPCs carry `spire.api.types.Status` per item, everything else a gRPC status).
 *
 * What clients act on travels in the trailer `grpc-status-details-bin`: PermissionDeniedDetails
 * decide whether an agent re-attests, shuts down or merely retries (api.md §3, §11.6), RetryInfo
 * when trying again makes sense.
 */
import { Metadata, type ServiceError, type StatusObject, status } from '@grpc/grpc-js'
import {
  type DenialReason,
  type ErrorKind,
  type ErrorOptionsOf,
  SignetError,
} from '../base/error.ts'
import { STATUS_TEXT_BYTES_MAX } from '../base/limits.ts'
import { connectionText } from './connection-text.ts'
import { RetryInfo } from './gen/google/rpc/error_details.ts'
import { Status as RpcStatus } from './gen/google/rpc/status.ts'
import {
  type Status as ItemStatus,
  PermissionDeniedDetails,
  PermissionDeniedDetails_Reason as Reason,
} from './gen/spire/api/types/status.ts'

export const STATUS_DETAILS_KEY = 'grpc-status-details-bin'

const TYPE_URL_DENIAL = 'type.googleapis.com/spire.api.types.PermissionDeniedDetails'
const TYPE_URL_RETRY_INFO = 'type.googleapis.com/google.rpc.RetryInfo'

const CODE_OF_KIND: Readonly<Record<ErrorKind, status>> = {
  invalid_argument: status.INVALID_ARGUMENT,
  not_found: status.NOT_FOUND,
  already_exists: status.ALREADY_EXISTS,
  permission_denied: status.PERMISSION_DENIED,
  unauthenticated: status.UNAUTHENTICATED,
  failed_precondition: status.FAILED_PRECONDITION,
  resource_exhausted: status.RESOURCE_EXHAUSTED,
  aborted: status.ABORTED,
  unavailable: status.UNAVAILABLE,
  deadline_exceeded: status.DEADLINE_EXCEEDED,
  canceled: status.CANCELLED,
  unimplemented: status.UNIMPLEMENTED,
  internal: status.INTERNAL,
}

const KIND_OF_CODE = new Map(
  Object.entries(CODE_OF_KIND).map(([kind, code]) => [code, kind as ErrorKind]),
)

const REASON_OF_DENIAL: Readonly<Record<DenialReason, Reason>> = {
  agent_expired: Reason.AGENT_EXPIRED,
  agent_not_attested: Reason.AGENT_NOT_ATTESTED,
  agent_not_active: Reason.AGENT_NOT_ACTIVE,
  agent_banned: Reason.AGENT_BANNED,
  agent_must_reattest: Reason.AGENT_MUST_REATTEST,
}

const DENIAL_OF_REASON = new Map<number, DenialReason>(
  Object.entries(REASON_OF_DENIAL).map(([denial, reason]) => [reason, denial as DenialReason]),
)

/** Clients dereference the status of every item, so success has one as well. */
export const ITEM_OK: ItemStatus = Object.freeze({ code: status.OK, message: 'OK' })

export function codeOf(kind: ErrorKind): status {
  return CODE_OF_KIND[kind]
}

/** The code's name as Go prints it: in audit records and as the label of call counters. */
export function codeNameOf(kind: ErrorKind): string {
  return kind.replace(/(?:^|_)([a-z])/g, (_, letter: string) => letter.toUpperCase())
}

export function toItemStatus(error: SignetError): ItemStatus {
  return { code: codeOf(error.kind), message: textOf(error) }
}

export function toGrpcStatus(error: SignetError): Partial<StatusObject> {
  const code = codeOf(error.kind)
  const message = textOf(error)
  const details = detailsOf(error)
  if (details.length === 0) return { code, details: message }
  const metadata = new Metadata()
  const encoded = RpcStatus.encode({ code, message, details }).finish()
  metadata.set(STATUS_DETAILS_KEY, Buffer.from(encoded))
  return { code, details: message, metadata }
}

/** Many texts repeat what the caller sent, and callers may send megabytes. */
function textOf({ message }: SignetError): string {
  const bytes = Buffer.from(message)
  if (bytes.length <= STATUS_TEXT_BYTES_MAX) return message
  // A character cut in two is left out.
  let end = STATUS_TEXT_BYTES_MAX
  while ((bytes[end]! & 0xc0) === 0x80) end--
  return `${bytes.toString('utf8', 0, end)}…`
}

function detailsOf(error: SignetError): RpcStatus['details'] {
  const details: RpcStatus['details'] = []
  if (error.denial !== undefined) {
    const reason = REASON_OF_DENIAL[error.denial]
    const value = PermissionDeniedDetails.encode({ reason }).finish()
    details.push({ typeUrl: TYPE_URL_DENIAL, value })
  }
  if (error.retryAfterSeconds !== undefined) {
    const seconds = Math.floor(error.retryAfterSeconds)
    const nanos = Math.round((error.retryAfterSeconds - seconds) * 1e9)
    const retryDelay = { seconds: BigInt(seconds), nanos }
    details.push({ typeUrl: TYPE_URL_RETRY_INFO, value: RetryInfo.encode({ retryDelay }).finish() })
  }
  return details
}

/** What a call of ours failed with. What is no status is internal, with the cause in the log. */
export function fromGrpcError(thrown: unknown): SignetError {
  if (thrown instanceof SignetError) return thrown
  if (!isServiceError(thrown)) {
    return new SignetError('internal', 'internal', 'internal error', { cause: thrown })
  }
  const { code, details } = thrown
  const isLocal = code === status.UNAVAILABLE || code === status.DEADLINE_EXCEEDED
  const text = isLocal ? connectionText(details) : details
  return errorOf(code, text, decodeDetails(thrown.metadata))
}

function isServiceError(thrown: unknown): thrown is ServiceError {
  return thrown instanceof Error && 'code' in thrown && typeof thrown.code === 'number'
}

/** Codes that have no kind of their own are internal; the number stays readable in `fields`. */
function errorOf(code: number, message: string, options: ErrorOptionsOf): SignetError {
  const kind = KIND_OF_CODE.get(code) ?? 'internal'
  const word = (status[code] ?? 'unknown').toLowerCase()
  return new SignetError(kind, `grpc_${word}`, message, { ...options, fields: { grpcCode: code } })
}

/** Bad or unknown details are left out: they come from a peer and only ever add to the code. */
function decodeDetails(
  metadata: Metadata | undefined,
): Pick<ErrorOptionsOf, 'denial' | 'retryAfterSeconds'> {
  const encoded = metadata?.get(STATUS_DETAILS_KEY)[0]
  if (!(encoded instanceof Uint8Array)) return {}
  let found: Pick<ErrorOptionsOf, 'denial' | 'retryAfterSeconds'> = {}
  try {
    for (const { typeUrl, value } of RpcStatus.decode(encoded).details) {
      if (typeUrl === TYPE_URL_DENIAL) {
        const denial = DENIAL_OF_REASON.get(PermissionDeniedDetails.decode(value).reason)
        if (denial !== undefined) found = { ...found, denial }
      } else if (typeUrl === TYPE_URL_RETRY_INFO) {
        const delay = RetryInfo.decode(value).retryDelay
        if (delay === undefined) continue
        found = { ...found, retryAfterSeconds: Number(delay.seconds) + delay.nanos / 1e9 }
      }
    }
  } catch {
    return found
  }
  return found
}
