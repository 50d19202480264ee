/**
 * BatchNewX509SVID on the hot path (spec/signing.md §3.1, §3.5). A request is decoded to views on
 * the received message, so that its CSRs reach the signer uncopied; an answer is sized first and
 * then written to one buffer.
 */
import { assert } from '../../base/assert.ts'
import type { Outcome } from '../../base/error.ts'
import type { EpochSeconds } from '../../base/ports.ts'
import type { SpiffeId } from '../../spiffe/spiffe-id.ts'
import {
  type Cursor,
  fieldSize,
  readBytes,
  readLength,
  readString,
  readTag,
  skipField,
  varintSize,
  writeBytes,
  writeHeader,
  writeVarint,
} from './protobuf.ts'
import { spiffeIdSize, statusSize, writeSpiffeId, writeStatus } from './svid-fields.ts'

/** Tags: field number * 8 + wire type. */
const REQUEST_PARAMS = 10
const PARAMS_ENTRY_ID = 10
const PARAMS_CSR = 18
const RESPONSE_RESULTS = 10
const RESULT_STATUS = 10
const RESULT_SVID = 18
const SVID_CERT_CHAIN = 10
const SVID_ID = 18
const SVID_EXPIRES_AT = 24

export interface NewX509SvidParams {
  readonly entryId: string
  /** A view on `BatchNewX509SvidRequest.message`. */
  readonly csr: Uint8Array
}

export interface BatchNewX509SvidRequest {
  /** The message as received; all CSRs lie in it. */
  readonly message: Uint8Array
  readonly params: readonly NewX509SvidParams[]
}

export interface HotX509Svid {
  readonly spiffeId: SpiffeId
  /** DER, leaf first. */
  readonly chain: readonly Uint8Array[]
  readonly notAfter: EpochSeconds
}

export function decodeBatchNewX509SvidRequest(message: Buffer): BatchNewX509SvidRequest {
  const cursor: Cursor = { bytes: message, pos: 0, end: message.length }
  const params: NewX509SvidParams[] = []
  while (cursor.pos < cursor.end) {
    const tag = readTag(cursor)
    if (tag === REQUEST_PARAMS) {
      const end = readLength(cursor)
      params.push(decodeParams({ bytes: message, pos: cursor.pos, end }))
      cursor.pos = end
    } else {
      skipField(cursor, tag)
    }
  }
  return { message, params }
}

/** A field that comes twice keeps its last value. */
function decodeParams(cursor: Cursor): NewX509SvidParams {
  let entryId = ''
  let csr = cursor.bytes.subarray(cursor.pos, cursor.pos)
  while (cursor.pos < cursor.end) {
    const tag = readTag(cursor)
    if (tag === PARAMS_ENTRY_ID) entryId = readString(cursor)
    else if (tag === PARAMS_CSR) csr = readBytes(cursor)
    else skipField(cursor, tag)
  }
  return { entryId, csr }
}

/** One result per outcome, in order; a failed one has a status and no SVID. */
export function encodeBatchNewX509SvidResponse(outcomes: readonly Outcome<HotX509Svid>[]): Buffer {
  const sizes = new Uint32Array(outcomes.length * 2)
  let total = 0
  for (let i = 0; i < outcomes.length; i++) {
    const outcome = outcomes[i]!
    let size = fieldSize(statusSize(outcome.ok ? undefined : outcome.error))
    if (outcome.ok) {
      const svid = svidSize(outcome.value)
      sizes[2 * i + 1] = svid
      size += fieldSize(svid)
    }
    sizes[2 * i] = size
    total += fieldSize(size)
  }
  const out = Buffer.allocUnsafe(total)
  let pos = 0
  for (let i = 0; i < outcomes.length; i++) {
    pos = writeHeader(out, pos, RESPONSE_RESULTS, sizes[2 * i]!)
    pos = writeResult(out, pos, outcomes[i]!, sizes[2 * i + 1]!)
  }
  assert(pos === total, 'the answer has the size computed for it')
  return out
}

function svidSize(svid: HotX509Svid): number {
  assert(svid.notAfter > 0, 'an SVID has an expiry')
  let size = fieldSize(spiffeIdSize(svid.spiffeId)) + 1 + varintSize(svid.notAfter)
  for (const certificate of svid.chain) size += fieldSize(certificate.length)
  return size
}

function writeResult(
  out: Buffer,
  start: number,
  outcome: Outcome<HotX509Svid>,
  svidLength: number,
): number {
  const error = outcome.ok ? undefined : outcome.error
  let pos = writeHeader(out, start, RESULT_STATUS, statusSize(error))
  pos = writeStatus(out, pos, error)
  if (!outcome.ok) return pos
  const { spiffeId, chain, notAfter } = outcome.value
  pos = writeHeader(out, pos, RESULT_SVID, svidLength)
  for (const certificate of chain) pos = writeBytes(out, pos, SVID_CERT_CHAIN, certificate)
  pos = writeHeader(out, pos, SVID_ID, spiffeIdSize(spiffeId))
  pos = writeSpiffeId(out, pos, spiffeId)
  out[pos] = SVID_EXPIRES_AT
  return writeVarint(out, pos + 1, notAfter)
}
