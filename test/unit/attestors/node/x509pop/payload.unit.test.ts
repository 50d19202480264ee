import { Buffer } from 'node:buffer'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  combineNonces,
  decodeAttestationData,
  decodeChallenge,
  decodeResponse,
  encodeAttestationData,
  encodeChallenge,
  encodeResponse,
} from '../../../../../src/attestors/node/x509pop/payload.ts'

const bytes = (text: string) => new TextEncoder().encode(text)
const text = (payload: Uint8Array) => Buffer.from(payload).toString()
const malformed = expect.objectContaining({ kind: 'invalid_argument', code: 'malformed_payload' })

describe('the spellings of Go', () => {
  test('are written', () => {
    expect(text(encodeAttestationData([Uint8Array.of(1), Uint8Array.of(2, 3)]))).toBe(
      '{"certificates":["AQ==","AgM="]}',
    )
    expect(text(encodeChallenge({ kind: 'rsa', nonce: Uint8Array.of(1) }))).toBe(
      '{"rsa_signature":{"nonce":"AQ=="},"ecdsa_signature":null}',
    )
    expect(
      text(
        encodeResponse({
          kind: 'ecdsa',
          nonce: Uint8Array.of(1),
          r: Uint8Array.of(2),
          s: Uint8Array.of(3),
        }),
      ),
    ).toBe('{"rsa_signature":null,"ecdsa_signature":{"nonce":"AQ==","r":"Ag==","s":"Aw=="}}')
  })

  test('are read without regard to case, the last key of a kind wins', () => {
    expect(decodeAttestationData(bytes('{"Certificates":["AQ=="]}'))).toEqual([Uint8Array.of(1)])
    expect(
      decodeAttestationData(bytes('{"certificates":["AQ=="],"CERTIFICATES":["Ag=="]}')),
    ).toEqual([Uint8Array.of(2)])
    expect(decodeChallenge(bytes('{"RSA_Signature":{"NONCE":"AQ=="}}'))).toEqual({
      kind: 'rsa',
      nonce: Uint8Array.of(1),
    })
    expect(decodeAttestationData(bytes('{}'))).toEqual([])
    expect(decodeAttestationData(bytes('{"certificates":null,"extra":1}'))).toEqual([])
    // Go's decoder skips line breaks in base64.
    expect(decodeAttestationData(bytes('{"certificates":["A\\nQ=="]}'))).toEqual([Uint8Array.of(1)])
  })
})

test.each([
  ['no JSON', '{'],
  ['a list', '[]'],
  ['null', 'null'],
  ['certificates that are no list', '{"certificates":"AQ=="}'],
  ['a certificate that is no string', '{"certificates":[1]}'],
  ['base64url', '{"certificates":["_w=="]}'],
  ['base64 without padding', '{"certificates":["AQ"]}'],
])('%s is refused', (_name, json) => {
  expect(() => decodeAttestationData(bytes(json))).toThrow(malformed)
})

test.each([
  ['both proofs', '{"rsa_signature":{"nonce":"AQ=="},"ecdsa_signature":{"nonce":"AQ=="}}'],
  ['none', '{"rsa_signature":null,"ecdsa_signature":null}'],
  ['a proof that is no object', '{"rsa_signature":1}'],
])('%s is refused', (_name, json) => {
  expect(() => decodeChallenge(bytes(json))).toThrow(malformed)
  expect(() => decodeResponse(bytes(json))).toThrow(malformed)
})

test('not UTF-8 is refused', () => {
  expect(() => decodeAttestationData(Uint8Array.of(0x7b, 0xff, 0x7d))).toThrow(malformed)
})

test('messages survive', () => {
  const some = fc.uint8Array({ maxLength: 80 })
  fc.assert(
    fc.property(some, some, some, (nonce, a, b) => {
      for (const kind of ['rsa', 'ecdsa'] as const) {
        expect(decodeChallenge(encodeChallenge({ kind, nonce }))).toEqual({ kind, nonce })
      }
      const rsa = { kind: 'rsa', nonce, signature: a } as const
      const ecdsa = { kind: 'ecdsa', nonce, r: a, s: b } as const
      expect(decodeResponse(encodeResponse(rsa))).toEqual(rsa)
      expect(decodeResponse(encodeResponse(ecdsa))).toEqual(ecdsa)
      expect(decodeAttestationData(encodeAttestationData([a, b]))).toEqual([a, b])
    }),
  )
})

test('nonces are 32 bytes each, so none can lend bytes to the other', () => {
  const nonce = new Uint8Array(32)
  expect(combineNonces(nonce, nonce)).toHaveLength(64)
  expect(() => combineNonces(new Uint8Array(31), new Uint8Array(33))).toThrow(malformed)
  expect(() => combineNonces(nonce, new Uint8Array(33))).toThrow(malformed)
})
