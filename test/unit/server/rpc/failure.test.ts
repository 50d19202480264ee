import { describe, expect, test } from 'vitest'
import { SignetError } from '../../../../src/base/error.ts'
import { TwoForms } from '../../../../src/base/log-text.ts'
import { createAudit, noAudit } from '../../../../src/server/rpc/audit.ts'
import {
  attempt,
  attemptOn,
  failed,
  logFailure,
  withRequestId,
} from '../../../../src/server/rpc/failure.ts'
import { createMemoryLog } from '../../../fakes/memory-log.ts'
import { connectionOf } from './rig.ts'

describe('failed', () => {
  test('keeps everything but the text', () => {
    const cause = new Error('cause')
    const error = new SignetError('unavailable', 'database', 'away', {
      cause,
      fields: { attempt: 3 },
      retryAfterSeconds: 2,
      denial: 'agent_banned',
    })
    expect(failed('failed to list', error)).toMatchObject({
      kind: 'unavailable',
      code: 'database',
      message: 'failed to list: away',
      cause,
      fields: { attempt: 3 },
      retryAfterSeconds: 2,
      denial: 'agent_banned',
    })
  })

  test('hides what is not ours, and names the request instead', () => {
    const foreign = new Error('SELECT secret')
    const error = withRequestId(failed('failed to list', foreign), 'r-1')
    expect(error).toMatchObject({
      kind: 'internal',
      message: 'failed to list: internal error (request id r-1)',
      cause: foreign,
    })
  })

  test('internal errors with a text of their own keep it', () => {
    const error = new SignetError('internal', 'bad_agent_id', 'agent ID is bad')
    expect(withRequestId(error, 'r-1')).toBe(error)
  })
})

test('attempt and attemptOn put our words in place', async () => {
  const missing = new SignetError('not_found', 'x', 'hidden')
  await expect(attempt('failed', Promise.resolve(3))).resolves.toBe(3)
  await expect(attempt('failed', Promise.reject(missing))).rejects.toThrow('failed: hidden')
  await expect(attemptOn('failed', 'agent not found', Promise.reject(missing))).rejects.toThrow(
    /^agent not found$/,
  )
  await expect(attemptOn('failed', 'x', Promise.reject(new Error('y')))).rejects.toThrow(
    'failed: internal error',
  )
})

test.each([
  ['invalid_argument', 'error', 'Invalid argument: missing ID'],
  ['not_found', 'error', 'Missing ID'],
  ['canceled', 'debug', 'Call canceled'],
] as const)('a failure as %s is logged in SPIRE’s form', (kind, level, message) => {
  const log = createMemoryLog()
  logFailure(log, new SignetError(kind, 'code', 'missing ID'))
  expect(log.lines).toMatchObject([{ level, message }])
})

describe('the audit log', () => {
  test('gathers fields for the call, not for items', () => {
    const log = createMemoryLog()
    const audit = createAudit(log, connectionOf({}))
    audit.add(() => ({ a: 1 }))
    audit.add(() => ({ b: 2 }))
    audit.item(undefined, () => ({ c: 3 }))
    audit.item(new SignetError('already_exists', 'x', 'y'), () => ({ d: 4 }))
    audit.success(() => ({ e: 5 }))
    expect(log.lines.map(({ fields }) => fields)).toEqual([
      { type: 'audit', c: 3, status: 'success' },
      {
        type: 'audit',
        d: 4,
        status: 'error',
        status_code: new TwoForms('AlreadyExists', 6),
        status_message: 'y',
      },
      { type: 'audit', a: 1, b: 2, e: 5, status: 'success' },
    ])
    expect(new Set(log.lines.map(({ message }) => message))).toEqual(new Set(['API accessed']))
  })

  test('switched off, it does not even ask for fields', () => {
    const unreached = () => {
      throw new Error('unreached')
    }
    noAudit.add(unreached)
    noAudit.success(unreached)
    noAudit.item(undefined, unreached)
  })
})
