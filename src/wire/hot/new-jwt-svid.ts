/**
 * NewJWTSVID on the hot path (spec/signing.md §3.5): strings out of the message, one buffer back.
 */
import { assert } from '../../base/assert.ts'
import type { EpochSeconds } from '../../base/ports.ts'
import type { SpiffeId } from '../../spiffe/spiffe-id.ts'
import {
  type Cursor,
  fieldSize,
  readString,
  readTag,
  skipField,
  varintSize,
  writeAscii,
  writeHeader,
  writeVarint,
} from './protobuf.ts'
import { spiffeIdSize, writeSpiffeId } from './svid-fields.ts'

/** Tags: field number * 8 + wire type. */
const REQUEST_ENTRY_ID = 10
const REQUEST_AUDIENCE = 18
const RESPONSE_SVID = 10
const SVID_TOKEN = 10
const SVID_ID = 18
const SVID_EXPIRES_AT = 24
const SVID_ISSUED_AT = 32

export interface NewJwtSvidRequest {
  readonly entryId: string
  readonly audience: readonly string[]
}

export interface HotJwtSvid {
  readonly spiffeId: SpiffeId
  /** Compact JWS. */
  readonly token: string
  readonly issuedAt: EpochSeconds
  readonly expiresAt: EpochSeconds
}

export function decodeNewJwtSvidRequest(message: Buffer): NewJwtSvidRequest {
  const cursor: Cursor = { bytes: message, pos: 0, end: message.length }
  let entryId = ''
  const audience: string[] = []
  while (cursor.pos < cursor.end) {
    const tag = readTag(cursor)
    if (tag === REQUEST_ENTRY_ID) entryId = readString(cursor)
    else if (tag === REQUEST_AUDIENCE) audience.push(readString(cursor))
    else skipField(cursor, tag)
  }
  return { entryId, audience }
}

export function encodeNewJwtSvidResponse(svid: HotJwtSvid): Buffer {
  // Agents refuse an answer without these, and never ask again for it (api.md §7.4).
  assert(svid.issuedAt > 0 && svid.issuedAt <= svid.expiresAt, 'a JWT-SVID has both times')
  const idSize = spiffeIdSize(svid.spiffeId)
  const size =
    fieldSize(svid.token.length) +
    fieldSize(idSize) +
    (1 + varintSize(svid.expiresAt)) +
    (1 + varintSize(svid.issuedAt))
  const out = Buffer.allocUnsafe(fieldSize(size))
  let pos = writeHeader(out, 0, RESPONSE_SVID, size)
  pos = writeAscii(out, pos, SVID_TOKEN, svid.token)
  pos = writeHeader(out, pos, SVID_ID, idSize)
  pos = writeSpiffeId(out, pos, svid.spiffeId)
  out[pos] = SVID_EXPIRES_AT
  pos = writeVarint(out, pos + 1, svid.expiresAt)
  out[pos] = SVID_ISSUED_AT
  pos = writeVarint(out, pos + 1, svid.issuedAt)
  assert(pos === out.length, 'the answer has the size computed for it')
  return out
}
