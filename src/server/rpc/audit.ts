/**
 * The audit log (features.md §4.6): one record per call, per item in batches, when
 * `audit_log_enabled` is set. For issuance the ledger row is the record in any case.
 *
 * Fields come as functions so that a switched-off log costs nothing.
 */
import { createHash } from 'node:crypto'
import type { SignetError } from '../../base/error.ts'
import { TwoForms } from '../../base/log-text.ts'
import type { Log, LogFields } from '../../base/ports.ts'
import { codeNameOf, codeOf } from '../../wire/status.ts'
import type { Connection } from '../connection.ts'

export interface Audit {
  /** For the record of the call as a whole. */
  add(fields: () => LogFields): void
  success(fields?: () => LogFields): void
  failure(error: SignetError): void
  /** A record of its own, without what `add` gathered. */
  item(error: SignetError | undefined, fields: () => LogFields): void
}

const MESSAGE = 'API accessed'

export const noAudit: Audit = {
  add: () => {},
  success: () => {},
  failure: () => {},
  item: () => {},
}

/** `log` carries request id and caller already; a local caller is named here. */
export function createAudit(log: Log, connection: Connection): Audit {
  const process = connection.process
  const records = log.with({
    type: 'audit',
    ...(process !== undefined && {
      caller_uid: process.uid,
      caller_gid: process.gid,
      ...(process.path !== '' && { caller_path: process.path }),
    }),
  })
  let gathered: LogFields = {}
  return {
    add(fields) {
      gathered = { ...gathered, ...fields() }
    },
    success: (fields) => records.info(MESSAGE, { status: 'success', ...gathered, ...fields?.() }),
    failure: (error) => records.info(MESSAGE, { ...gathered, ...statusOf(error) }),
    item: (error, fields) => records.info(MESSAGE, { ...fields(), ...statusOf(error) }),
  }
}

/** Of DER: hex, as SPIRE's audit records have it; empty for nothing. */
export function sha256Field(der: Uint8Array): string {
  return der.length === 0 ? '' : createHash('sha256').update(der).digest('hex')
}

/** A number, as SPIRE logs it; text where a double would round. */
export function integerField(value: bigint): number | string {
  const number = Number(value)
  return Number.isSafeInteger(number) ? number : value.toString()
}

const MATCHES = ['MATCH_EXACT', 'MATCH_SUBSET', 'MATCH_SUPERSET', 'MATCH_ANY']

/** The name of a MatchBehavior, of selectors or of trust domains. */
export function matchField(behavior: number): string {
  return MATCHES[behavior] ?? String(behavior)
}

function statusOf(error: SignetError | undefined): LogFields {
  if (error === undefined) return { status: 'success' }
  return {
    status: 'error',
    status_code: new TwoForms(codeNameOf(error.kind), codeOf(error.kind)),
    status_message: error.message,
  }
}
