import { afterEach, expect, test, vi } from 'vitest'
import { onSignals, tightenUmask } from '../../../src/base/shutdown.ts'
import { createMemoryLog } from '../../fakes/memory-log.ts'

afterEach(() => vi.restoreAllMocks())

test('signals reach their actions once each, until disposed', () => {
  const seen: string[] = []
  const before = process.listenerCount('SIGUSR2')
  {
    using _signals = onSignals({
      stop: (signal) => seen.push(`stop ${signal}`),
      reconfigure: () => seen.push('reconfigure'),
      reopenLog: () => seen.push('reopen'),
    })
    process.emit('SIGUSR1', 'SIGUSR1')
    process.emit('SIGUSR2', 'SIGUSR2')
    process.emit('SIGTERM', 'SIGTERM')
  }
  expect(seen).toEqual(['reconfigure', 'reopen', 'stop SIGTERM'])
  expect(process.listenerCount('SIGUSR2')).toBe(before)
})

test('a second request to stop does not wait', () => {
  const exit = vi.spyOn(process, 'exit').mockImplementation((() => {}) as never)
  using _signals = onSignals({ stop: () => {}, reconfigure: () => {}, reopenLog: () => {} })
  process.emit('SIGINT', 'SIGINT')
  expect(exit).not.toHaveBeenCalled()
  process.emit('SIGINT', 'SIGINT')
  expect(exit).toHaveBeenCalledWith(1)
})

test.each([
  [0o022, 0o027, 'Current umask 0022 is too permissive; setting umask 0027'],
  [0o000, 0o027, 'Current umask 0000 is too permissive; setting umask 0027'],
  [0o070, 0o077, 'Current umask 0070 is too permissive; setting umask 0077'],
  [0o027, 0o027, undefined],
  [0o077, 0o077, undefined],
])('umask %o becomes %o', (before, after, said) => {
  let mask = before
  vi.spyOn(process, 'umask').mockImplementation(((next?: number) => {
    const old = mask
    if (next !== undefined) mask = next
    return old
  }) as typeof process.umask)
  const log = createMemoryLog()
  tightenUmask(log)
  expect(mask).toBe(after)
  expect(log.lines[0]?.message).toBe(said)
})
