/** What PostgreSQL and its driver throw, as callers see it. */
import { describe, expect, test } from 'vitest'
import { SignetError } from '../../../src/base/error.ts'
import {
  isRetryable,
  poisonsConnection,
  toStoreError,
  violatedUnique,
} from '../../../src/server/datastore/postgres-error.ts'

const thrown = (code?: string, more = {}) => Object.assign(new Error('secret text'), { code }, more)

describe('errors', () => {
  test.each([
    [undefined, 'unavailable', 'database_connection_lost'],
    ['ECONNREFUSED', 'unavailable', 'database_connection_lost'],
    ['EPIPE', 'unavailable', 'database_connection_lost'],
    ['08006', 'unavailable', 'database_connection_lost'],
    ['25006', 'unavailable', 'database_read_only'],
    ['28P01', 'unavailable', 'database_refused'],
    ['3D000', 'unavailable', 'database_refused'],
    ['40001', 'unavailable', 'database_conflict'],
    ['40P01', 'unavailable', 'database_conflict'],
    ['53100', 'unavailable', 'database_disk_full'],
    ['53200', 'unavailable', 'database_out_of_resources'],
    ['53300', 'unavailable', 'database_too_many_connections'],
    ['55P03', 'unavailable', 'database_timeout'],
    ['57014', 'unavailable', 'database_timeout'],
    ['57P01', 'unavailable', 'database_shutting_down'],
    ['57P03', 'unavailable', 'database_shutting_down'],
    ['58030', 'unavailable', 'database_system_error'],
    ['XX001', 'unavailable', 'database_system_error'],
    ['22021', 'invalid_argument', 'bad_value'],
    ['23505', 'internal', 'database_error'],
    ['42601', 'internal', 'database_error'],
  ])('%s is %s %s', (code, kind, expected) => {
    const error = toStoreError(thrown(code))
    expect(error).toMatchObject({ kind, code: expected })
    expect(error.message).not.toContain('secret')
    expect(error.retryAfterSeconds !== undefined).toBe(kind === 'unavailable')
  })

  test('ours pass unchanged', () => {
    const error = new SignetError('not_found', 'x', 'x')
    expect(toStoreError(error)).toBe(error)
  })

  test('only conflicts are retried, also behind our own error', () => {
    const codes = ['40001', '40P01', '23505', '57P01', undefined]
    expect(codes.map((code) => isRetryable(thrown(code)))).toEqual([
      true,
      true,
      false,
      false,
      false,
    ])
    expect(isRetryable(toStoreError(thrown('40001')))).toBe(true)
  })

  test('connections are closed after what they may not survive', () => {
    const poisons = (code?: string) => poisonsConnection(toStoreError(thrown(code)))
    expect(['25006', '57P01', undefined].map(poisons)).toEqual([true, true, true])
    expect(['40001', '23505', '22021'].map(poisons)).toEqual([false, false, false])
    expect(poisonsConnection(new TypeError('ours'))).toBe(true)
  })

  test('the violated index is named', () => {
    const error = thrown('23505', { constraint: 'entry_similar' })
    expect(violatedUnique(error)).toBe('entry_similar')
    expect(violatedUnique(toStoreError(error))).toBe('entry_similar')
    expect(violatedUnique(thrown('23503'))).toBeUndefined()
  })
})
