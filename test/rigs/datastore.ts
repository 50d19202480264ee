/** A datastore on a test database, and what its calls need. */
import { systemClock } from '../../src/base/clock.ts'
import type { Clock, EpochSeconds } from '../../src/base/ports.ts'
import { createSystemRandom } from '../../src/base/random.ts'
import type { LedgerRow } from '../../src/ca/ledger.ts'
import {
  type Datastore,
  type DatastoreOptions,
  openDatastore,
} from '../../src/server/datastore/datastore.ts'
import type { Actor, EntryDraft } from '../../src/server/ports.ts'
import { PLAIN_ENTRY } from '../../src/spiffe/registration-entry.ts'
import { SpiffeId } from '../../src/spiffe/spiffe-id.ts'
import { silentLog } from './silent-log.ts'

export const NOW: EpochSeconds = 1_800_000_000
export const TD = 'example.org'
export const ACTOR: Actor = { kind: 'local', id: 'uid:0', requestId: 'request-1' }

/** Waits in real time, dates in a fixed one that tests may move. */
export interface TestClock extends Clock {
  now: EpochSeconds
}

export function createTestClock(now: EpochSeconds = NOW): TestClock {
  const clock: TestClock = { ...systemClock, now, nowSeconds: () => clock.now }
  return clock
}

export function openTestDatastore(
  options: Partial<DatastoreOptions> & Pick<DatastoreOptions, 'poolConfig'>,
): Promise<Datastore> {
  return openDatastore({
    trustDomain: TD,
    clock: createTestClock(),
    random: createSystemRandom(),
    log: silentLog,
    metrics: { counter: () => {}, gauge: () => {}, sample: () => {} },
    ...options,
  })
}

export const id = (path: string, td = TD) => SpiffeId.parse(`spiffe://${td}${path}`)

export function draft(changes: Partial<EntryDraft> = {}): EntryDraft {
  return {
    id: '',
    spiffeId: id('/workload'),
    parentId: id('/spire/agent/x509pop/one'),
    selectors: [{ type: 'unix', value: 'uid:1000' }],
    ...PLAIN_ENTRY,
    ...changes,
  }
}

let made = 0
export function ledgerRow(changes: Partial<LedgerRow> = {}): LedgerRow {
  const serialNumber = new Uint8Array(16).fill(0x41)
  new DataView(serialNumber.buffer).setUint32(12, ++made)
  return {
    kind: 'x509_workload',
    clusterId: 2,
    authorityId: 7,
    serialNumber,
    spiffeId: 'spiffe://example.org/workload',
    entryId: 'entry-1',
    callerId: 'spiffe://example.org/spire/agent/x509pop/one',
    requestId: 'request-1',
    notBefore: NOW - 10,
    notAfter: NOW + 3600,
    publicKeySha256: new Uint8Array(32).fill(1),
    tbsSha256: new Uint8Array(32).fill(2),
    ...changes,
  }
}
