import { expect, test } from 'vitest'
import { hasAddress } from '../../../../../src/attestors/node/x509pop/client-ip.ts'

const V4 = Uint8Array.of(10, 0, 0, 1)
const V6 = new Uint8Array(Buffer.from('fd000000000000000000000000000001', 'hex'))

test.each([
  ['10.0.0.1', true],
  ['10.0.0.2', false],
  ['fd00::1', true],
  ['fd00:0:0:0:0:0:0:1', true],
  ['fd00::1%eth0', true],
  ['fd00::2', false],
  ['', false],
  ['localhost', false],
])('%s: %s', (remoteIp, expected) => {
  expect(hasAddress([V4, V6], remoteIp)).toBe(expected)
  expect(hasAddress([], remoteIp)).toBe(false)
})
