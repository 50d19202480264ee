/**
 * AuthorityStore in memory, with the own bundle beside it. Held to the same contract suite as the
 * one on PostgreSQL (test/contract/ca/authority).
 */
import { toHex } from '../../src/base/bytes.ts'
import { SignetError } from '../../src/base/error.ts'
import type { EpochSeconds } from '../../src/base/ports.ts'
import type { Authority, AuthorityState, AuthorityStore } from '../../src/ca/authority/authority.ts'

export interface MemoryAuthorityStore extends AuthorityStore {
  /** What the own bundle holds: `x509:<DER in hex>` or `jwt:<kid>`, in order. */
  readonly bundle: Set<string>
  /** For tests of what comes later in the life cycle. */
  setState(id: number, state: AuthorityState): void
}

export function createMemoryAuthorityStore(): MemoryAuthorityStore {
  let rows: Authority[] = []
  let nextId = 1
  const bundle = new Set<string>()
  const drop = (gone: (row: Authority) => boolean) => {
    const dropped = rows.filter(gone)
    rows = rows.filter((row) => !gone(row))
    for (const row of dropped) {
      const element = bundleElement(row)
      if (element !== undefined) bundle.delete(element)
    }
    return dropped.length
  }
  return {
    bundle,
    async listAuthorities() {
      return [...rows]
    },
    async insertPrepared(draft) {
      const taken = rows.some(
        (row) =>
          row.generation === draft.generation || (row.state === 'prepared' && sameSlot(row, draft)),
      )
      if (taken) throw aborted('authority_already_prepared')
      const row: Authority = { ...draft, id: nextId++, state: 'prepared' }
      rows.push(row)
      const element = bundleElement(row)
      if (element !== undefined) bundle.add(element)
      return row
    },
    async activate(id) {
      const next = rows.find((row) => row.id === id)
      if (next?.state !== 'prepared') throw aborted('authority_state_moved')
      rows = rows.map((row) => {
        if (row.id === id) return { ...row, state: 'active' }
        return row.state === 'active' && sameSlot(row, next) ? { ...row, state: 'old' } : row
      })
    },
    async pruneAuthorities(expiredBefore: EpochSeconds) {
      return drop(
        (row) => (row.state === 'old' || row.state === 'prepared') && row.notAfter < expiredBefore,
      )
    },
    async dropHolder(holder) {
      drop((row) => row.holder === holder)
    },
    setState(id, state) {
      rows = rows.map((row) => (row.id === id ? { ...row, state } : row))
    },
  }
}

type Slot = Pick<Authority, 'clusterId' | 'kind' | 'holder'>

function sameSlot(a: Slot, b: Slot): boolean {
  return a.clusterId === b.clusterId && a.kind === b.kind && a.holder === b.holder
}

/** Intermediates travel in the chain, not in the bundle. */
function bundleElement(row: Authority): string | undefined {
  if (row.kind === 'x509_root') return `x509:${toHex(row.certificate!)}`
  return row.kind === 'jwt' ? `jwt:${row.authorityId}` : undefined
}

function aborted(code: string): SignetError {
  return new SignetError('aborted', code, 'another server was faster')
}
