import { expect, test } from 'vitest'
import { createHealth, type HealthState, serveHealth } from '../../../src/base/http-health.ts'
import { FakeClock } from '../../fakes/fake-clock.ts'
import { createMemoryLog } from '../../fakes/memory-log.ts'

const CONFIG = {
  listenerEnabled: true,
  bindAddress: 'localhost',
  bindPort: 0,
  livePath: '/live',
  readyPath: '/ready',
}

const GOOD: HealthState = { live: true, ready: true, liveDetails: {}, readyDetails: {} }
const BAD: HealthState = {
  live: true,
  ready: false,
  liveDetails: {},
  readyDetails: { get_bundle_err: 'unable to fetch bundle' },
}

test('answers with the details of each subsystem, 500 until all are good', async () => {
  const health = createHealth(new FakeClock(), createMemoryLog(), CONFIG, 10_000)
  let state = BAD
  health.add('server', () => state)
  health.add('server.ca', () => ({ live: true, ready: true }))
  expect(health.answer('/live').status).toBe(500)
  await health.step()
  expect(health.answer('/live')).toMatchObject({
    status: 200,
    contentType: 'application/json',
    body: '{"server":{},"server.ca":null}\n',
  })
  expect(health.answer('/ready')).toMatchObject({
    status: 500,
    body: '{"server":{"get_bundle_err":"unable to fetch bundle"},"server.ca":null}\n',
  })
  state = GOOD
  await health.step()
  expect(health.answer('/ready').status).toBe(200)
  expect(health.answer('/').status).toBe(404)
})

test('a check that throws is neither live nor ready', async () => {
  const health = createHealth(new FakeClock(), createMemoryLog(), CONFIG, 10_000)
  health.add('server', () => {
    throw new Error('canary')
  })
  await health.step()
  expect(health.answer('/live')).toMatchObject({ status: 500, body: '{"server":null}\n' })
})

test('failure and recovery are logged once each, starting is no error', async () => {
  const log = createMemoryLog()
  const clock = new FakeClock()
  const health = createHealth(clock, log, CONFIG, 10_000)
  let state: HealthState = { ...BAD, started: false }
  health.add('agent', () => state)
  await health.step()
  await health.step()
  state = BAD
  await health.step()
  clock.advanceSeconds(5)
  state = GOOD
  await health.step()
  expect(log.lines.map(({ level, message }) => `${level} ${message}`)).toEqual([
    'warn Health check has failed. Starting up still.',
    'warn Health check failed',
    'error Health check has failed',
    'info Health check recovered',
  ])
  expect(log.lines.at(-1)?.fields).toMatchObject({ check: 'agent', failures: 3, duration: 5 })
  expect(log.lines[1]?.fields.details).toEqual({
    Started: false,
    Live: true,
    Ready: false,
    LiveDetails: {},
    ReadyDetails: BAD.readyDetails,
  })
})

test('checks run every second until all is good, then at the steady pace', async () => {
  const clock = new FakeClock()
  const health = createHealth(clock, createMemoryLog(), CONFIG, 10_000)
  const stop = new AbortController()
  let state = BAD
  let runs = 0
  health.add('server', () => {
    runs++
    return state
  })
  const running = health.run(stop.signal)
  await clock.untilArmed()
  clock.advanceMs(1_000)
  await clock.untilArmed()
  expect(runs).toBe(2)
  state = GOOD
  clock.advanceMs(1_000)
  await clock.untilArmed()
  clock.advanceMs(9_999)
  expect(runs).toBe(3)
  clock.advanceMs(1)
  await clock.untilArmed()
  expect(runs).toBe(4)
  stop.abort()
  await running
})

test('checks that are added after the start are run within a second', async () => {
  const clock = new FakeClock()
  const health = createHealth(clock, createMemoryLog(), CONFIG, 10_000)
  const stop = new AbortController()
  const running = health.run(stop.signal)
  await clock.untilArmed()
  health.add('server', () => GOOD)
  clock.advanceMs(1_000)
  await clock.untilArmed()
  expect(health.answer('/ready').status).toBe(200)
  stop.abort()
  await running
})

test('is served over HTTP', async () => {
  const log = createMemoryLog()
  const health = createHealth(new FakeClock(), log, CONFIG, 10_000)
  health.add('server', () => GOOD)
  await health.step()
  await using listener = await serveHealth(health, CONFIG, log)
  const answer = await fetch(`http://127.0.0.1:${listener.port}/ready`)
  expect([answer.status, await answer.json()]).toEqual([200, { server: {} }])
})
