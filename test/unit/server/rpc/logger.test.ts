/** The Logger service on a log that really writes. */
import { expect, test } from 'vitest'
import { createStreamLog } from '../../../../src/base/log.ts'
import { createLoggerHandlers } from '../../../../src/server/rpc/logger/v1/handlers.ts'
import { LogLevel } from '../../../../src/wire/gen/spire/api/types/logger.ts'
import { FakeClock } from '../../../fakes/fake-clock.ts'
import { ADMIN, contextOf } from './rig.ts'

function rig() {
  const written: string[] = []
  const out = { write: (line: string) => void written.push(line) }
  const log = createStreamLog({ format: 'text', level: 'warning' }, new FakeClock(), out)
  const context = contextOf(ADMIN)
  return { log, written, context, handlers: createLoggerHandlers({ logLevel: log }) }
}

test('the log level is changed for the whole process and reset to that of the start', async () => {
  const { log, written, context, handlers } = rig()
  const child = log.with({ subsystem_name: 'x' })
  expect(await handlers.getLogger({}, context)).toEqual({
    currentLevel: LogLevel.WARN,
    launchLevel: LogLevel.WARN,
  })
  child.debug('before')
  expect(await handlers.setLogLevel({ newLevel: LogLevel.DEBUG }, context)).toEqual({
    currentLevel: LogLevel.DEBUG,
    launchLevel: LogLevel.WARN,
  })
  child.debug('during')
  expect(await handlers.resetLogLevel({}, context)).toEqual({
    currentLevel: LogLevel.WARN,
    launchLevel: LogLevel.WARN,
  })
  child.debug('after')
  expect(written.map((line) => /msg=(\w+)/.exec(line)?.[1])).toEqual(['during'])
  expect(context.records.map(({ error }) => error)).toEqual([undefined, undefined, undefined])
})

test.each([
  [LogLevel.UNSPECIFIED, 'newLevel value cannot be LogLevel_UNSPECIFIED'],
  [99, 'unsupported log level'],
])('level %s is refused and changes nothing', async (newLevel, message) => {
  const { log, context, handlers } = rig()
  const request = { newLevel: newLevel as LogLevel }
  await expect(handlers.setLogLevel(request, context)).rejects.toMatchObject({
    kind: 'invalid_argument',
    message,
  })
  expect(log.level()).toBe('warning')
})
