import { mkdtempSync, readFileSync, renameSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { SignetError } from '../../../src/base/error.ts'
import { LOG_FIELD_CHARS_MAX } from '../../../src/base/limits.ts'
import { createLog, createStreamLog, type LogOptions } from '../../../src/base/log.ts'
import {
  errorText,
  goQuote,
  localRfc3339,
  logTime,
  parseLogLevel,
  TwoForms,
  textLine,
} from '../../../src/base/log-text.ts'
import type { Clock } from '../../../src/base/ports.ts'

const NOW_MS = Date.UTC(2026, 0, 2, 3, 4, 5, 60)

const clock: Clock = {
  nowSeconds: () => Math.floor(NOW_MS / 1000),
  nowMs: () => NOW_MS,
  monotonicMs: () => 0,
  sleep: async () => {},
  every: () => ({ [Symbol.dispose]: () => {} }),
}

function logTo(options: LogOptions) {
  const lines: string[] = []
  const log = createStreamLog(options, clock, { write: (line) => lines.push(line) })
  return { log, lines }
}

describe('text form', () => {
  test.each([
    ['', 'seconds'],
    ['text', 'milliseconds'],
  ] as const)('writes time, level and message, then the fields sorted by key', (...row) => {
    const [format, precision] = row
    const { log, lines } = logTo({ format, level: 'info' })
    log.with({ subsystem_name: 'endpoints' }).warn('Starting Server APIs', { address: '/a b' })
    expect(lines).toEqual([
      `time="${localRfc3339(NOW_MS, precision)}" level=warning msg="Starting Server APIs"` +
        ` address="/a b" subsystem_name=endpoints\n`,
    ])
  })

  test.each([
    ['safe', 'a-Z0._/@^+', 'a-Z0._/@^+'],
    ['empty stays bare', '', ''],
    ['blank', 'a b', '"a b"'],
    ['colon', 'a:b', '"a:b"'],
    ['equals', 'a=b', '"a=b"'],
    ['quote and backslash', '"\\', '"\\"\\\\"'],
    ['forged line', 'x\ntime="now" level=info', '"x\\ntime=\\"now\\" level=info"'],
    ['terminal escape', '\x1b[2J', '"\\x1b[2J"'],
    ['letters', 'grün', '"grün"'],
    ['no-break space', '\u00a0', '"\\u00a0"'],
    ['list', ['a', 'b c'], '"[a b c]"'],
    ['number', 7, '7'],
    ['null', null, '"<nil>"'],
  ])('quotes as logrus does: %s', (_name, value, written) => {
    expect(textLine('t', 'info', 'm', { k: value })).toBe(`time=t level=info msg=m k=${written}\n`)
  })

  test('a line never holds a raw control character before its end', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), (text) => {
        const line = textLine('t', 'info', text, { key: text })
        // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
        expect(line.slice(0, -1)).not.toMatch(/[\u0000-\u001f\u007f-\u009f]/)
      }),
    )
  })

  test('quoting keeps distinct texts distinct', () => {
    fc.assert(
      fc.property(fc.string(), fc.string(), (a, b) => {
        expect(goQuote(a) === goQuote(b)).toBe(a === b)
      }),
    )
  })
})

describe('json form', () => {
  test('carries level, msg, time and the fields', () => {
    const { log, lines } = logTo({ format: 'json', level: 'debug' })
    log.debug('hello', { level: 'mine', n: 1, list: ['a'] })
    log.warn('careful')
    expect(lines.map((line) => JSON.parse(line))).toEqual([
      {
        level: 'debug',
        time: localRfc3339(NOW_MS, 'milliseconds'),
        'fields.level': 'mine',
        n: 1,
        list: ['a'],
        msg: 'hello',
      },
      { level: 'warning', time: localRfc3339(NOW_MS, 'milliseconds'), msg: 'careful' },
    ])
  })
})

describe('levels', () => {
  test.each([
    ['PANIC', 'panic'],
    ['Fatal', 'fatal'],
    ['error', 'error'],
    ['WARN', 'warning'],
    ['warning', 'warning'],
    ['INFO', 'info'],
    ['Debug', 'debug'],
    ['TRACE', 'trace'],
  ])('%s', (text, level) => {
    expect(parseLogLevel(text)).toBe(level)
  })

  test.each(['', 'loud', 'info '])('refuses %j', (text) => {
    expect(() => parseLogLevel(text)).toThrow(expect.objectContaining({ code: 'bad_log_level' }))
  })

  test('can be changed at run time, also for derived logs', () => {
    const { log, lines } = logTo({ format: 'text', level: 'error' })
    const derived = log.with({ a: 1 })
    derived.info('no')
    log.setLevel('info')
    derived.info('yes')
    expect(lines).toHaveLength(1)
    expect([log.level(), log.launchLevel]).toEqual(['info', 'error'])
  })
})

describe('what is written of a value', () => {
  test.each([
    ['', 'NotFound', '2026-01-02 03:04:05 +0000 UTC'],
    ['text', 'NotFound', '2026-01-02 03:04:05 +0000 UTC'],
    ['json', 5, '2026-01-02T03:04:05Z'],
  ] as const)('codes and times as Go writes them: %j', (format, code, time) => {
    const { log, lines } = logTo({ format, level: 'info' })
    const fields = { status_code: new TwoForms('NotFound', 5), expiration: logTime(NOW_MS / 1000) }
    log.info('m', fields)
    if (format === 'json') {
      expect(JSON.parse(lines[0]!)).toMatchObject({ status_code: code, expiration: time })
    } else expect(lines[0]).toContain(` expiration="${time}" status_code=${code}\n`)
  })

  test('an error is its message and its causes, never its stack or fields', () => {
    const cause = new Error('connection refused')
    const error = new SignetError('unavailable', 'db', 'datastore is unavailable', {
      cause,
      fields: { sql: 'SELECT canary' },
    })
    expect(errorText(error)).toBe('datastore is unavailable: connection refused')
    const { log, lines } = logTo({ format: 'json', level: 'info' })
    log.error('Failed', { error })
    expect(lines[0]).not.toMatch(/canary|\.ts:/)
    expect(JSON.parse(lines[0]!).error).toBe('datastore is unavailable: connection refused')
  })

  test('what the message says already is not said again', () => {
    const cause = Object.assign(new Error("ENOENT: no such file or directory, open '/k'"), {
      code: 'ENOENT',
      syscall: 'open',
      path: '/k',
    })
    expect(errorText(cause)).toBe('open /k: no such file or directory')
    const middle = new Error(`unable to load: ${errorText(cause)}`, { cause })
    expect(errorText(new Error(`agent: ${middle.message}`, { cause: middle }))).toBe(
      'agent: unable to load: open /k: no such file or directory',
    )
  })

  test.each([
    ['', String.raw`details="{\"Ready\":false}"`],
    ['json', '"details":{"Ready":false}'],
  ] as const)('a plain object is JSON, in JSON no text: %j', (format, written) => {
    const { log, lines } = logTo({ format, level: 'info' })
    log.info('m', { details: { Ready: false } })
    expect(lines[0]).toContain(written)
  })

  test('a cause that names itself ends', () => {
    const error = new Error('loop')
    error.cause = error
    expect(errorText(error)).toBe('loop')
  })

  test('long values are cut, private keys and bytes are not written', () => {
    const { log, lines } = logTo({ format: 'json', level: 'info' })
    const pem = '-----BEGIN EC PRIVATE KEY-----\ncanary\n-----END EC PRIVATE KEY-----'
    log.info('m', {
      atLimit: 'x'.repeat(LOG_FIELD_CHARS_MAX),
      over: 'x'.repeat(LOG_FIELD_CHARS_MAX + 1),
      pem: `a ${pem} b`,
      bytes: new Uint8Array([1, 2]),
      id: { toString: () => 'spiffe://td/x' },
    })
    const written = JSON.parse(lines[0]!)
    expect(written.atLimit).toHaveLength(LOG_FIELD_CHARS_MAX)
    expect(written.over).toBe(`${'x'.repeat(LOG_FIELD_CHARS_MAX)}…`)
    expect(written.pem).toBe('a [private key] b')
    expect(written.bytes).toBe('[2 bytes]')
    expect(written.id).toBe('spiffe://td/x')
  })
})

test('the file is made with mode 0640 and reopened after rotation', () => {
  const file = join(mkdtempSync(join(tmpdir(), 'log-')), 'server.log')
  const log = createLog({ format: 'text', level: 'info', file }, clock)
  log.info('one')
  expect(statSync(file).mode & 0o777 & ~0o640).toBe(0)
  renameSync(file, `${file}.1`)
  log.info('two')
  log.reopen()
  log.info('three')
  log.flush()
  expect(readFileSync(`${file}.1`, 'utf8').match(/msg=\w+/g)).toEqual(['msg=one', 'msg=two'])
  expect(readFileSync(file, 'utf8').match(/msg=\w+/g)).toEqual(['msg=three'])
})

test('the caller can be named on each line', () => {
  const { log, lines } = logTo({ format: 'json', level: 'info', sourceLocation: true })
  log.info('here')
  expect(JSON.parse(lines[0]!).file).toMatch(/^log\.unit\.test\.ts:\d+$/)
})
