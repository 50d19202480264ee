/** The hand-written codec of the hot messages against the generated one, both ways. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { type Outcome, SignetError } from '../../../src/base/error.ts'
import { SpiffeId } from '../../../src/spiffe/spiffe-id.ts'
import {
  BatchNewX509SVIDRequest,
  BatchNewX509SVIDResponse,
  NewJWTSVIDRequest,
  NewJWTSVIDResponse,
} from '../../../src/wire/gen/spire/api/server/svid/v1/svid.ts'
import {
  decodeBatchNewX509SvidRequest,
  encodeBatchNewX509SvidResponse,
  type HotX509Svid,
} from '../../../src/wire/hot/batch-new-x509-svid.ts'
import {
  decodeNewJwtSvidRequest,
  encodeNewJwtSvidResponse,
} from '../../../src/wire/hot/new-jwt-svid.ts'

const text = fc.string({ unit: 'binary' }).map((s) => s.toWellFormed())
const bytes = fc.uint8Array({ maxLength: 400 })
const epoch = fc.integer({ min: 1, max: 2 ** 40 })
const spiffeId = fc
  .tuple(
    fc.stringMatching(/^[a-z0-9._-]{1,40}$/),
    fc.array(fc.stringMatching(/^[A-Za-z0-9_-]{1,200}$/), { maxLength: 5 }),
  )
  .map(([name, segments]) =>
    SpiffeId.parse(`spiffe://${name}${segments.map((segment) => `/${segment}`).join('')}`),
  )
const svid = fc.record({
  spiffeId,
  chain: fc.array(bytes, { maxLength: 4 }),
  notAfter: epoch,
})
const failure = fc
  .tuple(fc.constantFrom('not_found', 'invalid_argument', 'internal', 'unavailable'), text)
  .map(([kind, message]) => new SignetError(kind as 'not_found', 'any', message))
const outcome: fc.Arbitrary<Outcome<HotX509Svid>> = fc.oneof(
  svid.map((value) => ({ ok: true as const, value })),
  failure.map((error) => ({ ok: false as const, error })),
)

describe('BatchNewX509SVID', () => {
  test('decodes what the generated code encodes, to views on the message', () => {
    const params = fc.array(fc.record({ entryId: text, csr: bytes }), { maxLength: 20 })
    fc.assert(
      fc.property(params, (list) => {
        const message = encoded(BatchNewX509SVIDRequest, { params: list })
        const decoded = decodeBatchNewX509SvidRequest(message)
        expect(decoded.message).toBe(message)
        expect(decoded.params.map(plain)).toEqual(list.map(plain))
        for (const { csr } of decoded.params) expect(csr.buffer).toBe(message.buffer)
      }),
    )
  })

  test('encodes what the generated code decodes', () => {
    fc.assert(
      fc.property(fc.array(outcome, { maxLength: 20 }), (outcomes) => {
        const buffer = encodeBatchNewX509SvidResponse(outcomes)
        expect(BatchNewX509SVIDResponse.decode(new Uint8Array(buffer)).results).toEqual(
          outcomes.map(resultOf),
        )
      }),
    )
  })

  test('the bytes are those of the generated encoder', () => {
    fc.assert(
      fc.property(fc.array(outcome, { maxLength: 20 }), (outcomes) => {
        const expected = encoded(BatchNewX509SVIDResponse, { results: outcomes.map(resultOf) })
        expect(encodeBatchNewX509SvidResponse(outcomes).equals(expected)).toBe(true)
      }),
    )
  })
})

describe('NewJWTSVID', () => {
  test('decodes what the generated code encodes', () => {
    const request = fc.record({ entryId: text, audience: fc.array(text, { maxLength: 8 }) })
    fc.assert(
      fc.property(request, (value) => {
        expect(decodeNewJwtSvidRequest(encoded(NewJWTSVIDRequest, value))).toEqual(value)
      }),
    )
  })

  test('encodes what the generated code decodes', () => {
    const token = fc.stringMatching(/^[A-Za-z0-9._-]{1,2000}$/)
    fc.assert(
      fc.property(spiffeId, token, epoch, fc.nat(), (id, jws, issuedAt, lifetime) => {
        const expiresAt = issuedAt + lifetime
        const buffer = encodeNewJwtSvidResponse({ spiffeId: id, token: jws, issuedAt, expiresAt })
        expect(NewJWTSVIDResponse.decode(new Uint8Array(buffer))).toEqual({
          svid: {
            token: jws,
            id: { trustDomain: id.trustDomain.name, path: id.path },
            issuedAt: BigInt(issuedAt),
            expiresAt: BigInt(expiresAt),
            hint: '',
          },
        })
      }),
    )
  })
})

describe('malformed requests', () => {
  const decoders = [decodeBatchNewX509SvidRequest, decodeNewJwtSvidRequest]

  // Method: any bytes either decode or are refused with the one error of this codec.
  test('never fail in another way', () => {
    fc.assert(
      fc.property(fc.constantFrom(...decoders), fc.uint8Array({ maxLength: 60 }), (decode, raw) => {
        expect(codeOf(() => decode(Buffer.from(raw)))).toMatch(/^(ok|malformed_message)$/)
      }),
      { numRuns: 5_000 },
    )
  })

  test('cut at any place, a message decodes to a prefix or is refused', () => {
    const params = ['a', 'b', 'c'].map((entryId) => ({ entryId, csr: new Uint8Array(200) }))
    const message = encoded(BatchNewX509SVIDRequest, { params })
    for (let length = 0; length < message.length; length++) {
      const code = codeOf(() => decodeBatchNewX509SvidRequest(message.subarray(0, length)))
      expect(code).toBe(length % (message.length / 3) === 0 ? 'ok' : 'malformed_message')
    }
  })

  test.each([
    ['field number zero', [0x00, 0x01]],
    ['group', [0x0b, 0x0c]],
    ['end of group', [0x0c]],
    ['length beyond the message', [0x0a, 0x05, 0x0a]],
    ['length beyond the params', [0x0a, 0x02, 0x0a, 0x05, 0x41, 0x41]],
    ['varint of eleven bytes', [0x08, ...new Array(10).fill(0xff), 0x01]],
    ['length of six bytes', [0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]],
    ['truncated fixed64', [0x09, 1, 2, 3]],
    ['truncated fixed32', [0x0d, 1]],
    ['invalid UTF-8', [0x0a, 0x03, 0x0a, 0x01, 0xff]],
  ])('%s is refused', (_name, raw) => {
    expect(codeOf(() => decodeBatchNewX509SvidRequest(Buffer.from(raw)))).toBe('malformed_message')
  })

  test('unknown fields of every wire type are skipped', () => {
    const unknown = [
      0x18,
      0xff,
      0x01,
      0x21,
      ...new Array(8).fill(7),
      0x2a,
      2,
      1,
      2,
      0x35,
      1,
      2,
      3,
      4,
    ]
    const message = Buffer.concat([Buffer.from(unknown), Buffer.from([0x0a, 1, 0x61])])
    expect(decodeNewJwtSvidRequest(message)).toEqual({ entryId: 'a', audience: [] })
  })
})

interface Codec<T> {
  encode(message: T): { finish(): Uint8Array }
}

function encoded<T>(codec: Codec<T>, value: T): Buffer {
  return Buffer.from(codec.encode(value).finish())
}

function plain(params: { entryId: string; csr: Uint8Array }) {
  return { entryId: params.entryId, csr: [...params.csr] }
}

function resultOf(outcome: Outcome<HotX509Svid>) {
  if (!outcome.ok) {
    const code = { not_found: 5, invalid_argument: 3, internal: 13, unavailable: 14 }[
      outcome.error.kind as 'not_found'
    ]
    return { status: { code, message: outcome.error.message }, svid: undefined }
  }
  const { spiffeId: id, chain, notAfter } = outcome.value
  return {
    status: { code: 0, message: 'OK' },
    svid: {
      certChain: [...chain],
      id: { trustDomain: id.trustDomain.name, path: id.path },
      expiresAt: BigInt(notAfter),
      hint: '',
    },
  }
}

function codeOf(run: () => unknown): string {
  try {
    run()
    return 'ok'
  } catch (thrown) {
    return thrown instanceof SignetError ? thrown.code : `${thrown}`
  }
}
