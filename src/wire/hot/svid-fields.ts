/** Parts that both hot answers share: `types.SPIFFEID` and `types.Status`. */
import { status } from '@grpc/grpc-js'
import type { SignetError } from '../../base/error.ts'
import type { SpiffeId } from '../../spiffe/spiffe-id.ts'
import { codeOf } from '../status.ts'
import { fieldSize, varintSize, writeAscii, writeUtf8, writeVarint } from './protobuf.ts'

const TAG_CODE = 8
const TAG_MESSAGE = 18
const TAG_TRUST_DOMAIN = 10
const TAG_PATH = 18

/** An empty path is left out, as proto3 does with every default. */
export function spiffeIdSize(id: SpiffeId): number {
  const path = id.path.length === 0 ? 0 : fieldSize(id.path.length)
  return fieldSize(id.trustDomain.name.length) + path
}

export function writeSpiffeId(out: Buffer, pos: number, id: SpiffeId): number {
  const at = writeAscii(out, pos, TAG_TRUST_DOMAIN, id.trustDomain.name)
  return id.path.length === 0 ? at : writeAscii(out, at, TAG_PATH, id.path)
}

/** Code 0 and empty messages are defaults, so `OK` is the message alone. */
export function statusSize(error: SignetError | undefined): number {
  if (error === undefined) return fieldSize(2)
  const message = Buffer.byteLength(error.message)
  return 1 + varintSize(codeOf(error.kind)) + (message === 0 ? 0 : fieldSize(message))
}

export function writeStatus(out: Buffer, pos: number, error: SignetError | undefined): number {
  if (error === undefined) return writeAscii(out, pos, TAG_MESSAGE, status[status.OK])
  out[pos] = TAG_CODE
  const at = writeVarint(out, pos + 1, codeOf(error.kind))
  return error.message === '' ? at : writeUtf8(out, at, TAG_MESSAGE, error.message)
}
