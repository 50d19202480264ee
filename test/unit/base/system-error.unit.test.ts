import { lstatSync, mkdirSync, readFileSync } from 'node:fs'
import { connect } from 'node:net'
import { expect, test } from 'vitest'
import { isSystemError, systemErrorText } from '../../../src/base/system-error.ts'

test.each([
  [() => readFileSync('/nowhere/file'), 'open /nowhere/file: no such file or directory'],
  [() => mkdirSync('/proc'), 'mkdir /proc: file exists'],
  [() => lstatSync('/proc/version/x'), 'lstat /proc/version/x: not a directory'],
  [() => readFileSync('/'), 'read: is a directory'],
])('%s fails in Go’s words: %s', (fail, text) => {
  expect(thrownBy(fail)).toBe(text)
})

test.each([
  [{ host: '127.0.0.1', port: 1 }, 'dial tcp 127.0.0.1:1: connect: connection refused'],
  [{ path: '/nowhere/sock' }, 'dial unix /nowhere/sock: connect: no such file or directory'],
  [{ host: 'no-such-host.invalid', port: 1 }, 'dial tcp: lookup no-such-host.invalid: '],
])('a connection to %o', async (where, text) => {
  const error = await new Promise<unknown>((resolve) => connect(where).once('error', resolve))
  expect(isSystemError(error) && systemErrorText(error)).toContain(text)
})

test('what has no words here keeps Node’s', () => {
  const error = Object.assign(new Error('EODD: odd, open'), { code: 'EODD', syscall: 'open' })
  expect(systemErrorText(error)).toBe('EODD: odd, open')
})

function thrownBy(fail: () => unknown): string {
  try {
    fail()
  } catch (error) {
    if (isSystemError(error)) return systemErrorText(error)
  }
  return 'did not fail'
}
