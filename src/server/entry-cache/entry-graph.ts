/**
 * The graph of registration entries: each entry is an edge from its parent ID to its own. Walked
 * downwards for "what may this agent serve", upwards for "who may serve this". Owns the one copy of
 * every SPIFFE ID and selector that entries share.
 */
import type { RegistrationEntry } from '../../spiffe/registration-entry.ts'
import type { SpiffeId } from '../../spiffe/spiffe-id.ts'
import { type Few, membersOf, withMember, withoutMember } from './few.ts'
import type { SelectorTable } from './selector-table.ts'

/** A SPIFFE ID that some entry has as its own or as its parent's. */
export interface IdNode {
  readonly id: SpiffeId
  /** Entries whose parent this is. */
  children: Few<RegistrationEntry>
  /** Entries that give this ID. */
  named: Few<RegistrationEntry>
}

const NO_NAMES: readonly string[] = []

export class EntryGraph {
  readonly #selectors: SelectorTable
  readonly #nodes = new Map<string, IdNode>()

  constructor(selectors: SelectorTable) {
    this.#selectors = selectors
  }

  get size(): number {
    return this.#nodes.size
  }

  node(id: SpiffeId): IdNode | undefined {
    return this.#nodes.get(id.toString())
  }

  /** Takes the entry in and returns the copy to keep, made of shared parts. */
  insert(entry: RegistrationEntry): RegistrationEntry {
    const parent = this.#obtain(entry.parentId)
    const own = this.#obtain(entry.spiffeId)
    const kept = sharing(entry, parent.id, own.id, this.#selectors.acquire(entry.selectors))
    parent.children = withMember(parent.children, kept)
    own.named = withMember(own.named, kept)
    return kept
  }

  /** `kept` as `insert` returned it. */
  remove(kept: RegistrationEntry): void {
    const parent = this.#obtain(kept.parentId)
    const own = this.#obtain(kept.spiffeId)
    parent.children = withoutMember(parent.children, kept)
    own.named = withoutMember(own.named, kept)
    this.#selectors.release(kept.selectors)
    this.#dropIfUnused(parent)
    this.#dropIfUnused(own)
  }

  /**
   * Calls `visit` once for each entry below the starting IDs; true goes on below that entry. Cycles
   * end at an ID seen before.
   */
  walkDown(
    start: Iterable<IdNode | undefined>,
    visit: (entry: RegistrationEntry) => boolean,
  ): void {
    const seen = new Set<IdNode>()
    const pending: IdNode[] = []
    const push = (node: IdNode | undefined) => {
      if (node === undefined || seen.has(node)) return
      seen.add(node)
      pending.push(node)
    }
    for (const node of start) push(node)
    for (let node = pending.pop(); node !== undefined; node = pending.pop()) {
      for (const entry of membersOf(node.children)) {
        if (visit(entry)) push(this.node(entry.spiffeId))
      }
    }
  }

  /**
   * Calls `visit` once for each ID above `start`, itself first: the parents of the entries that
   * give it, and so on, until it returns false. `through` says which entries lead upwards.
   */
  walkUp(
    start: SpiffeId,
    visit: (id: SpiffeId) => boolean,
    through: (entry: RegistrationEntry) => boolean,
  ): void {
    const seen = new Set<string>([start.toString()])
    const pending: SpiffeId[] = [start]
    for (let id = pending.pop(); id !== undefined; id = pending.pop()) {
      if (!visit(id)) return
      for (const entry of membersOf(this.node(id)?.named)) {
        if (!through(entry) || seen.has(entry.parentId.toString())) continue
        seen.add(entry.parentId.toString())
        pending.push(entry.parentId)
      }
    }
  }

  #obtain(id: SpiffeId): IdNode {
    const text = id.toString()
    let node = this.#nodes.get(text)
    if (node === undefined) {
      node = { id, children: undefined, named: undefined }
      this.#nodes.set(text, node)
    }
    return node
  }

  #dropIfUnused(node: IdNode): void {
    if (node.children === undefined && node.named === undefined) {
      this.#nodes.delete(node.id.toString())
    }
  }
}

/** Written out, so that all entries have one shape in memory. */
function sharing(
  entry: RegistrationEntry,
  parentId: SpiffeId,
  spiffeId: SpiffeId,
  selectors: RegistrationEntry['selectors'],
): RegistrationEntry {
  return {
    id: entry.id,
    spiffeId,
    parentId,
    selectors,
    x509SvidTtlSeconds: entry.x509SvidTtlSeconds,
    jwtSvidTtlSeconds: entry.jwtSvidTtlSeconds,
    federatesWith: entry.federatesWith.length === 0 ? NO_NAMES : entry.federatesWith,
    admin: entry.admin,
    downstream: entry.downstream,
    expiresAt: entry.expiresAt,
    dnsNames: entry.dnsNames.length === 0 ? NO_NAMES : entry.dnsNames,
    revisionNumber: entry.revisionNumber,
    storeSvid: entry.storeSvid,
    hint: entry.hint,
    createdAt: entry.createdAt,
    disableX509SvidPrefetch: entry.disableX509SvidPrefetch,
    jwtSvidIncludeJti: entry.jwtSvidIncludeJti,
  }
}
