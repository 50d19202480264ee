import { Metadata, status } from '@grpc/grpc-js'
import { describe, expect, test } from 'vitest'
import { type DenialReason, type ErrorKind, SignetError } from '../../../src/base/error.ts'
import { STATUS_TEXT_BYTES_MAX } from '../../../src/base/limits.ts'
import { Status } from '../../../src/wire/gen/google/rpc/status.ts'
import { PermissionDeniedDetails } from '../../../src/wire/gen/spire/api/types/status.ts'
import {
  codeNameOf,
  fromGrpcError,
  STATUS_DETAILS_KEY,
  toGrpcStatus,
  toItemStatus,
} from '../../../src/wire/status.ts'

const KINDS: readonly (readonly [ErrorKind, number])[] = [
  ['canceled', 1],
  ['invalid_argument', 3],
  ['deadline_exceeded', 4],
  ['not_found', 5],
  ['already_exists', 6],
  ['permission_denied', 7],
  ['resource_exhausted', 8],
  ['failed_precondition', 9],
  ['aborted', 10],
  ['unimplemented', 12],
  ['internal', 13],
  ['unavailable', 14],
  ['unauthenticated', 16],
]

describe.each(KINDS)('%s', (kind, code) => {
  test(`is ${code} on the wire and back`, () => {
    const sent = toGrpcStatus(new SignetError(kind, 'some_code', 'some text'))
    expect(sent).toEqual({ code, details: 'some text' })
    expect(fromGrpcError(serviceError(sent))).toMatchObject({ kind, message: 'some text' })
    expect(toItemStatus(new SignetError(kind, 'c', 'text'))).toEqual({ code, message: 'text' })
  })
})

test.each([
  ['x'.repeat(STATUS_TEXT_BYTES_MAX), 'x'.repeat(STATUS_TEXT_BYTES_MAX)],
  ['x'.repeat(STATUS_TEXT_BYTES_MAX + 1), `${'x'.repeat(STATUS_TEXT_BYTES_MAX)}…`],
  [`${'x'.repeat(STATUS_TEXT_BYTES_MAX - 1)}üx`, `${'x'.repeat(STATUS_TEXT_BYTES_MAX - 1)}…`],
  ['ü'.repeat(STATUS_TEXT_BYTES_MAX), `${'ü'.repeat(STATUS_TEXT_BYTES_MAX / 2)}…`],
])('a text that repeats what was sent fits a trailer', (text, sent) => {
  const error = new SignetError('unavailable', 'c', text, { retryAfterSeconds: 1 })
  expect(toItemStatus(error).message).toBe(sent)
  const { details, metadata } = toGrpcStatus(error)
  expect(details).toBe(sent)
  const decoded = Status.decode(metadata?.get(STATUS_DETAILS_KEY)[0] as Buffer)
  expect(decoded.message).toBe(sent)
})

const REASONS: readonly (readonly [DenialReason, number])[] = [
  ['agent_expired', 1],
  ['agent_not_attested', 2],
  ['agent_not_active', 3],
  ['agent_banned', 4],
  ['agent_must_reattest', 5],
]

describe('details', () => {
  test.each(REASONS)('%s travels as reason %i', (denial, reason) => {
    const sent = toGrpcStatus(new SignetError('permission_denied', 'denied', 'no', { denial }))
    const details = sent.metadata?.get(STATUS_DETAILS_KEY)[0] as Buffer
    const decoded = Status.decode(details)
    expect(decoded).toMatchObject({ code: status.PERMISSION_DENIED, message: 'no' })
    expect(decoded.details.map((detail) => detail.typeUrl)).toEqual([
      'type.googleapis.com/spire.api.types.PermissionDeniedDetails',
    ])
    expect(PermissionDeniedDetails.decode(decoded.details[0]!.value)).toEqual({ reason })
    expect(fromGrpcError(serviceError(sent)).denial).toBe(denial)
  })

  test('the bytes are those a Go client decodes', () => {
    const sent = toGrpcStatus(
      new SignetError('permission_denied', 'denied', 'm', { denial: 'agent_banned' }),
    )
    const url = Buffer.from('type.googleapis.com/spire.api.types.PermissionDeniedDetails')
    const any = Buffer.concat([Buffer.from([0x0a, url.length]), url, Buffer.from([0x12, 2, 8, 4])])
    const expected = Buffer.concat([Buffer.from([8, 7, 0x12, 1, 0x6d, 0x1a, any.length]), any])
    expect(sent.metadata?.get(STATUS_DETAILS_KEY)[0]).toEqual(expected)
  })

  test.each([0, 1, 2.5, 30])('retry after %d s arrives', (retryAfterSeconds) => {
    const sent = toGrpcStatus(new SignetError('unavailable', 'x', 'y', { retryAfterSeconds }))
    expect(fromGrpcError(serviceError(sent)).retryAfterSeconds).toBe(retryAfterSeconds)
  })

  test.each([
    ['garbage', Buffer.from([0xff, 0xff])],
    ['an unknown detail', unknownDetail('type.googleapis.com/example.Other')],
    ['an unknown reason', unknownReason(99)],
    ['nothing', Buffer.alloc(0)],
  ])('%s is ignored', (_name, value) => {
    const metadata = new Metadata()
    metadata.set(STATUS_DETAILS_KEY, value)
    const error = fromGrpcError(serviceError({ code: 7, details: 'no', metadata }))
    expect(error).toMatchObject({ kind: 'permission_denied', denial: undefined })
  })
})

describe('client side', () => {
  test.each([2, 11, 15, 99])('code %i without a kind is internal and stays readable', (code) => {
    const error = fromGrpcError(serviceError({ code, details: 'odd' }))
    expect(error).toMatchObject({ kind: 'internal', message: 'odd', fields: { grpcCode: code } })
  })

  test('what is no gRPC error hides its text', () => {
    const error = fromGrpcError(new Error('secret'))
    expect(error).toMatchObject({ kind: 'internal', message: 'internal error' })
    expect(error.cause).toBeInstanceOf(Error)
  })
})

function serviceError(sent: { code?: number; details?: string; metadata?: Metadata }): Error {
  const metadata = sent.metadata ?? new Metadata()
  return Object.assign(new Error('call failed'), { ...sent, metadata })
}

function unknownDetail(typeUrl: string): Buffer {
  const details = [{ typeUrl, value: new Uint8Array([8, 4]) }]
  return Buffer.from(Status.encode({ code: 7, message: 'no', details }).finish())
}

function unknownReason(reason: number): Buffer {
  const typeUrl = 'type.googleapis.com/spire.api.types.PermissionDeniedDetails'
  const details = [{ typeUrl, value: Buffer.from([8, reason]) }]
  return Buffer.from(Status.encode({ code: 7, message: 'no', details }).finish())
}

test('code names are those Go prints', () => {
  expect(KINDS.map(([kind]) => codeNameOf(kind)).join(' ')).toBe(
    'Canceled InvalidArgument DeadlineExceeded NotFound AlreadyExists PermissionDenied ' +
      'ResourceExhausted FailedPrecondition Aborted Unimplemented Internal Unavailable ' +
      'Unauthenticated',
  )
})
