import { expect, test } from 'vitest'
import { lastWordsOf } from '../../../src/server/datastore/embedded.ts'

const PANIC = 'PANIC:  could not write to file "pg_wal/1": No space left on device'
const FATAL = 'FATAL:  lock file "postmaster.pid" already exists'
const LOG = 'LOG:  checkpoint complete'
const TO_CLIENTS = 'FATAL:  the database system is starting up'

test.each([
  ['a panic', [FATAL, PANIC, LOG, TO_CLIENTS], PANIC],
  ['a fatal error', [PANIC, FATAL, TO_CLIENTS, LOG], FATAL],
  ['nothing, if it was killed', [LOG, TO_CLIENTS], ''],
  ['nothing, if it said nothing', [], ''],
])('the last words of PostgreSQL: %s', (_case, lines, expected) => {
  expect(lastWordsOf(lines.join('\n'))).toBe(expected.replace(/^\w+: +/, ''))
})
