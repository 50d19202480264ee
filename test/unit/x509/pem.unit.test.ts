import { expect, test } from 'vitest'
import { formatPem, parsePem, parsePemOf } from '../../../src/x509/pem.ts'

const CERT = formatPem('CERTIFICATE', Uint8Array.of(1, 2, 3))
const KEY = formatPem('PRIVATE KEY', Uint8Array.of(4))

test('blocks come in file order, whatever stands between and however lines end', () => {
  const text = `subject: x\n${CERT}\n# note\n${KEY}${CERT}`.replaceAll('\n', '\r\n')
  expect(parsePem(text).map((block) => block.label)).toEqual([
    'CERTIFICATE',
    'PRIVATE KEY',
    'CERTIFICATE',
  ])
  expect(parsePemOf(text, 'CERTIFICATE')).toEqual([Uint8Array.of(1, 2, 3), Uint8Array.of(1, 2, 3)])
  expect(parsePem('nothing')).toEqual([])
})

test('lines are 64 characters', () => {
  const lines = formatPem('X', new Uint8Array(100)).split('\n')
  expect(lines[1]!.length).toBe(64)
  expect(formatPem('X', new Uint8Array())).toBe('-----BEGIN X-----\n-----END X-----\n')
})

test.each([
  ['a block that does not end', CERT.split('-----END')[0]!],
  ['an end without a beginning', '-----END CERTIFICATE-----'],
  ['another label at the end', CERT.replace('END CERTIFICATE', 'END X')],
  ['a block within a block', CERT.replace('AQID', '-----BEGIN X-----')],
  ['a body that is not base64', CERT.replace('AQID', 'AQI*')],
  ['base64 without padding', formatPem('X', Uint8Array.of(1)).replace('==', '')],
])('%s is refused', (_name, text) => {
  expect(() => parsePem(text)).toThrow(expect.objectContaining({ code: 'malformed_pem' }))
})
