/**
 * Counts the calls of the stores under SPIRE's keys (features.md §4.2): one per call, whatever the
 * size of its batch. Nothing that signs or syncs comes through here: that is served from memory.
 */
import { toSignetError } from '../base/error.ts'
import { countCall } from '../base/metrics.ts'
import type { Clock, Metrics } from '../base/ports.ts'
import { codeNameOf } from '../wire/status.ts'
import type { Datastore } from './datastore/datastore.ts'
import type { AgentStore, BundleStore, EntryStore, JoinTokenStore } from './ports.ts'

type Keys<Store> = { readonly [Name in keyof Store]: readonly string[] }

const ENTRY_KEYS: Keys<EntryStore> = {
  createEntries: ['datastore.registration_entry.create'],
  updateEntries: ['datastore.registration_entry.update'],
  deleteEntries: ['datastore.registration_entry.delete'],
  getEntry: ['datastore.registration_entry.fetch'],
  listEntries: ['datastore.registration_entry.list'],
  countEntries: ['datastore.registration_entry.count'],
  // Only the job prunes: in SPIRE a manager does, under a key of its own.
  pruneEntries: ['datastore.registration_entry.prune', 'registration_entry.manager.prune'],
}

const AGENT_KEYS: Keys<AgentStore> = {
  // Creates or updates; SPIRE asks first and then counts one or the other.
  recordAttestation: ['datastore.node.create'],
  getAgent: ['datastore.node.fetch'],
  listAgents: ['datastore.node.list'],
  countAgents: ['datastore.node.count'],
  setNewSerial: ['datastore.node.update'],
  promoteNewSerial: ['datastore.node.update'],
  setAgentVersion: ['datastore.node.update'],
  banAgent: ['datastore.node.update'],
  deleteAgent: ['datastore.node.delete'],
  pruneAgents: ['datastore.node.prune', 'node.manager.prune'],
}

const JOIN_TOKEN_KEYS: Keys<JoinTokenStore> = {
  createJoinToken: ['datastore.join_token.create'],
  redeemJoinToken: ['datastore.join_token.delete'],
  pruneJoinTokens: ['datastore.join_token.prune'],
}

const BUNDLE_KEYS: Keys<BundleStore> = {
  getBundle: ['datastore.bundle.fetch'],
  listBundles: ['datastore.bundle.list'],
  countBundles: ['datastore.bundle.count'],
  appendBundle: ['datastore.bundle.append'],
  createBundle: ['datastore.bundle.create'],
  updateBundle: ['datastore.bundle.update'],
  setBundle: ['datastore.bundle.set'],
  deleteBundle: ['datastore.bundle.delete'],
  pruneBundle: ['datastore.bundle.prune', 'ca.manager.bundle.prune'],
}

interface MeterPorts {
  readonly metrics: Metrics
  readonly clock: Clock
}

export function meterStores(datastore: Datastore, ports: MeterPorts): Datastore {
  return {
    ...datastore,
    entries: metered(ports, ENTRY_KEYS, datastore.entries),
    agents: metered(ports, AGENT_KEYS, datastore.agents),
    joinTokens: metered(ports, JOIN_TOKEN_KEYS, datastore.joinTokens),
    bundles: metered(ports, BUNDLE_KEYS, datastore.bundles),
  }
}

/** `store` with its named methods counted; the others are as they were. */
export function metered<Port extends object, Store extends Port>(
  ports: MeterPorts,
  keys: Keys<Port>,
  store: Store,
): Store {
  const counted: Record<string, unknown> = {}
  for (const [name, all] of Object.entries<readonly string[]>(keys)) {
    const method = (store as Record<string, unknown>)[name] as (...args: never[]) => unknown
    counted[name] = async (...args: never[]) => {
      const calls = all.map((key) => countCall(ports.metrics, ports.clock, key))
      let status = 'OK'
      try {
        return await method(...args)
      } catch (thrown) {
        status = codeNameOf(toSignetError(thrown).kind)
        throw thrown
      } finally {
        for (const done of calls) done(status)
      }
    }
  }
  return { ...store, ...counted }
}
