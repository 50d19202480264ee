/** Entries and agents with plain values where a test does not care. */
import type { AttestedAgent } from '../../src/spiffe/attested-agent.ts'
import { PLAIN_ENTRY, type RegistrationEntry } from '../../src/spiffe/registration-entry.ts'
import { parseSelector, type Selector } from '../../src/spiffe/selector.ts'
import { SpiffeId } from '../../src/spiffe/spiffe-id.ts'

const td = (path: string) => SpiffeId.parse(`spiffe://example.org${path}`)

export type EntryFields = Partial<
  Omit<RegistrationEntry, 'spiffeId' | 'parentId' | 'selectors'>
> & {
  readonly id: string
  /** Paths in example.org. */
  readonly parent?: string
  readonly spiffe?: string
  /** `type:value` each. */
  readonly selectors?: readonly string[]
}

export function makeEntry(fields: EntryFields): RegistrationEntry {
  const { parent, spiffe, selectors, ...rest } = fields
  return {
    spiffeId: td(spiffe ?? `/workload/${fields.id}`),
    parentId: td(parent ?? '/spire/agent/test/a'),
    selectors: (selectors ?? ['unix:uid:1']).map(parseSelector),
    ...PLAIN_ENTRY,
    revisionNumber: 0n,
    createdAt: 1_800_000_000,
    ...rest,
  }
}

export function makeAgent(
  path: string,
  fields: Partial<Omit<AttestedAgent, 'id' | 'selectors'>> & {
    readonly selectors?: readonly Selector[]
  } = {},
): AttestedAgent {
  return {
    id: td(path),
    attestationType: 'test',
    serialNumber: '1',
    expiresAt: 2_000_000_000,
    newSerialNumber: '',
    newExpiresAt: 0,
    canReattest: true,
    agentVersion: '',
    selectors: [],
    clusterId: 2,
    ...fields,
  }
}
