/**
 * Bytes that nobody should send: every parser answers with a SignetError that blames the sender, or
 * with a value, and with nothing else (reliability.md I10).
 */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { SignetError } from '../../../src/base/error.ts'
import {
  parseCertificate,
  parseCertificates,
  splitCertificates,
} from '../../../src/x509/certificate.ts'
import {
  createCertificateRequest,
  parseCertificateRequest,
  requestedNames,
  requestedSubject,
} from '../../../src/x509/csr.ts'
import { encodeName, formatName } from '../../../src/x509/name.ts'
import { importPublicKey, parsePublicKey } from '../../../src/x509/spki.ts'
import { newHierarchy, newKey } from '../../rigs/issuing.ts'

const certificate = newHierarchy().issuer.authority.certificate!
const key = newKey('rsa-2048')
const csr = createCertificateRequest({
  ...newKey(),
  subject: encodeName({ country: ['US'], commonName: ['ü'] }),
  uriNames: ['spiffe://example.org/x'],
  dnsNames: ['a.example.org'],
})

const PARSERS: [string, Uint8Array, (der: Uint8Array) => unknown][] = [
  [
    'certificate',
    certificate,
    (der) => {
      const parsed = parseCertificate(der)
      formatName(parsed.subject)
      parsePublicKey(parsed.publicKey)
      importPublicKey(parsed.publicKey)
    },
  ],
  [
    'certificates',
    new Uint8Array([...certificate, ...certificate]),
    (der) => parseCertificates(der),
  ],
  [
    'request',
    csr,
    (der) => {
      const parsed = parseCertificateRequest(der)
      requestedNames(parsed)
      requestedSubject(parsed)
    },
  ],
  [
    'public key',
    key.publicKey,
    (der) => {
      parsePublicKey(der)
      importPublicKey(der)
    },
  ],
]

function outcome(parse: () => unknown): 'value' | string {
  try {
    parse()
    return 'value'
  } catch (thrown) {
    if (!(thrown instanceof SignetError) || thrown.kind !== 'invalid_argument') throw thrown
    return thrown.code
  }
}

describe.each(PARSERS)('%s', (_name, whole, parse) => {
  test('is accepted whole', () => expect(outcome(() => parse(whole))).toBe('value'))

  test('cut after any byte is refused', () => {
    // A sequence of certificates is complete after each of them.
    const complete = new Set([0, certificate.length].filter(() => _name === 'certificates'))
    for (let end = 0; end < whole.length; end++) {
      const result = outcome(() => parse(whole.subarray(0, end)))
      expect(result, `cut at ${end}`).toBe(complete.has(end) ? 'value' : 'malformed_der')
    }
  })

  test('with a byte more is refused', () => {
    for (const extra of [0, 0x30, 0xff]) {
      expect(outcome(() => parse(new Uint8Array([...whole, extra])))).toBe('malformed_der')
    }
  })

  test('with any byte changed in any of four ways, blames the sender or is a value', () => {
    for (let at = 0; at < whole.length; at++) {
      for (const change of [0x01, 0x80, 0xff, 0x20]) {
        const changed = whole.slice()
        changed[at] = changed[at]! ^ change
        outcome(() => parse(changed))
      }
    }
  })

  test('with any byte made a length trick', () => {
    for (let at = 0; at < whole.length; at++) {
      for (const trick of [0x00, 0x7f, 0x80, 0x81, 0x82, 0x83, 0x84, 0xff]) {
        const changed = whole.slice()
        changed[at] = trick
        outcome(() => parse(changed))
      }
    }
  })

  test('random bytes and random splices', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => void outcome(() => parse(bytes))),
    )
    const position = fc.nat({ max: whole.length })
    fc.assert(
      fc.property(position, position, fc.uint8Array({ maxLength: 20 }), (a, b, middle) => {
        const spliced = [...whole.subarray(0, a), ...middle, ...whole.subarray(b)]
        outcome(() => parse(new Uint8Array(spliced)))
      }),
      { numRuns: 1000 },
    )
  })
})

test('concatenated certificates are counted and split', () => {
  const three = new Uint8Array([...certificate, ...certificate, ...certificate])
  expect(splitCertificates(three).map((der) => der.length)).toEqual(
    [1, 2, 3].map(() => certificate.length),
  )
  expect(parseCertificates(three, 3)).toHaveLength(3)
  expect(outcome(() => parseCertificates(three, 2))).toBe('malformed_der')
  expect(parseCertificates(new Uint8Array())).toEqual([])
})

test('a certificate over 64 KiB is refused', () => {
  const huge = new Uint8Array(70_000)
  huge.set([0x30, 0x83, 0x01, 0x11, 0x6b])
  expect(outcome(() => parseCertificate(huge))).toBe('malformed_der')
})
