/** What SIGUSR1 does to plugins, and what it leaves alone. */
import { expect, test } from 'vitest'
import {
  configurePlugin,
  type Reconfigurable,
  reconfigureAll,
} from '../../../src/base/config/reconfigure.ts'
import { createMemoryLog } from '../../fakes/memory-log.ts'

function rig(texts: Record<string, string>) {
  const log = createMemoryLog()
  const reconfigurables = new Set<Reconfigurable>()
  const context = {
    log: log.with({ plugin_name: 'p' }),
    files: { readText: (path: string) => texts[path] ?? fail(path) },
    reconfigurables,
  }
  const signal = () => {
    log.lines.length = 0
    reconfigureAll(log, reconfigurables)
    return log.lines.map(({ level, message }) => `${level} ${message}`)
  }
  return { log, context, signal }
}

function fail(path: string): never {
  throw Object.assign(new Error(`no ${path}`), { code: 'ENOENT' })
}

const value = (data: Readonly<Record<string, unknown>>) => {
  if (data.bad !== undefined) throw new Error('bad is bad')
  return { value: data.a, files: [] }
}

test('a plugin_data_file is read again; what is unchanged or bad stays in force', () => {
  const texts: Record<string, string> = { f: 'a = "1"' }
  const { log, context, signal } = rig(texts)
  const current = configurePlugin({ type: 'p', data: {}, dataFile: 'f' }, context, value)
  expect(current()).toBe('1')
  const started = log.lines[0]!
  expect(started).toMatchObject({ message: 'Configured plugin', fields: { reconfigurable: true } })

  expect(signal()).toEqual([
    'info Reconfigure signal received',
    'info Plugin not reconfigured since the config is unchanged',
  ])
  texts.f = 'a = "2"'
  expect(signal()).toContain('info Plugin reconfigured')
  expect(log.lines[1]!.fields).toMatchObject({
    plugin_name: 'p',
    old_hash: started.fields.hash,
    new_hash: expect.stringMatching(/^[0-9a-f]{32}$/),
  })
  expect(current()).toBe('2')

  for (const text of ['bad = 1', 'a = {{', undefined]) {
    if (text === undefined) delete texts.f
    else texts.f = text
    expect(signal()).toContain('error Failed to reconfigure plugin')
    expect(current()).toBe('2')
  }
  texts.f = 'a = "2"'
  expect(signal()).toContain('info Plugin not reconfigured since the config is unchanged')
})

test('files that the data names count too', () => {
  const { context, signal } = rig({})
  let file = 'old'
  const current = configurePlugin({ type: 'p', data: {}, dataFile: '' }, context, () => ({
    value: file,
    files: [Buffer.from(file)],
  }))
  expect(signal()).toContain('info Plugin not reconfigured since the config is unchanged')
  file = 'new'
  expect(signal()).toContain('info Plugin reconfigured')
  expect(current()).toBe('new')
})

test('data in the configuration stays, and a signal with nothing to do says so', () => {
  const { log, context, signal } = rig({})
  configurePlugin({ type: 'p', data: { a: 1 }, dataFile: '' }, context, value)
  expect(log.lines[0]!.fields).toEqual({ plugin_name: 'p', reconfigurable: false })
  expect(signal()).toEqual([
    'info Reconfigure signal received',
    'info Nothing to reconfigure: no plugin is configured from a file',
  ])
})

test('a configuration that cannot work is said as SPIRE says it', () => {
  const { log, context } = rig({})
  expect(() =>
    configurePlugin({ type: 'p', data: { bad: 1 }, dataFile: '' }, context, value),
  ).toThrow('failed to configure plugin "p": rpc error: code = InvalidArgument desc = bad is bad')
  expect(log.lines).toMatchObject([
    {
      message: 'Failed to configure plugin',
      fields: { plugin_name: 'p', error: 'rpc error: code = InvalidArgument desc = bad is bad' },
    },
  ])
})
