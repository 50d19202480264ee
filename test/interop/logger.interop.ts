/** SPIRE's CLI changes the log level of our server. */
import { expect, test } from 'vitest'
import { Deployment } from './rig.ts'

test('spire-server logger get, set and reset', async () => {
  await using deployment = await Deployment.create('signet')
  const server = await deployment.startServer({ logLevel: 'WARN' })
  const logger = async (...args: string[]) =>
    JSON.parse(await deployment.serverOk(['logger', ...args, '-output', 'json'], 'spire'))
  expect(await logger('get')).toEqual({ current_level: 'WARN', launch_level: 'WARN' })
  expect(server.output).not.toContain('GetLogger Called')
  expect(await logger('set', '-level', 'debug')).toEqual({
    current_level: 'DEBUG',
    launch_level: 'WARN',
  })
  await logger('get')
  await server.untilPrinted('msg="GetLogger Called"')
  expect(await logger('reset')).toEqual({ current_level: 'WARN', launch_level: 'WARN' })
})
