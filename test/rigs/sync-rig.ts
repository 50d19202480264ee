/**
 * A server's push streams over tables in memory, and agents that keep what they are sent. `settle`
 * lets everything run that can run; the clock moves only when a test moves it.
 */
import { SignetError } from '../../src/base/error.ts'
import { createEntryCache } from '../../src/server/entry-cache/entry-cache.ts'
import type { Change } from '../../src/server/ports.ts'
import { noAudit } from '../../src/server/rpc/audit.ts'
import type { CallContext } from '../../src/server/rpc/context.ts'
import { createBundleCache } from '../../src/server/sync/bundle-cache.ts'
import { createSyncService } from '../../src/server/sync/sync-service.ts'
import type { AttestedAgent } from '../../src/spiffe/attested-agent.ts'
import type { Bundle } from '../../src/spiffe/bundle.ts'
import type { RegistrationEntry } from '../../src/spiffe/registration-entry.ts'
import { SpiffeId } from '../../src/spiffe/spiffe-id.ts'
import { TrustDomain } from '../../src/spiffe/trust-domain.ts'
import type { SyncRequest, SyncResponse } from '../../src/wire/gen/signet/sync/v1/sync.ts'
import type { Bundle as BundleProto } from '../../src/wire/gen/spire/api/types/bundle.ts'
import type { Entry } from '../../src/wire/gen/spire/api/types/entry.ts'
import type { Certificate } from '../../src/x509/certificate.ts'
import { FakeClock } from '../fakes/fake-clock.ts'
import { makeAgent } from '../fakes/make-entry.ts'
import { createSeededRandom } from '../fakes/seeded-random.ts'
import { silentLog } from './silent-log.ts'

export const OWN = 'example.org'
const START = 1_800_000_000

export function makeBundle(trustDomain: string, sequenceNumber = 1n, size = 8): Bundle {
  const certificate = new Uint8Array(size)
  return {
    trustDomain,
    x509Authorities: [{ certificate, tainted: false }],
    jwtAuthorities: [],
    refreshHintSeconds: 0,
    sequenceNumber,
  }
}

export async function settle(): Promise<void> {
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve))
}

export class SyncRig {
  readonly clock = new FakeClock(START)
  readonly rows = {
    entries: new Map<string, RegistrationEntry>(),
    agents: new Map<string, AttestedAgent>(),
    bundles: new Map<string, Bundle>([[OWN, makeBundle(OWN)]]),
  }
  /** What reading one agent does; a database that hangs or fails is put here. */
  getAgent = async (id: SpiffeId) => this.rows.agents.get(id.toString())
  readonly entries = createEntryCache({
    trustDomain: TrustDomain.parse(OWN),
    clock: this.clock,
    source: tablesSource(this),
  })
  readonly bundles = createBundleCache({
    trustDomain: TrustDomain.parse(OWN),
    source: {
      getBundle: async (name) => this.rows.bundles.get(name),
      listBundles: async () => ({ rows: [...this.rows.bundles.values()], nextToken: '' }),
    },
  })
  readonly service = createSyncService({
    clock: this.clock,
    random: createSeededRandom(),
    metrics: { counter: () => {}, gauge: () => {}, sample: () => {} },
    trustDomain: TrustDomain.parse(OWN),
    entries: this.entries,
    bundles: this.bundles,
    store: { getAgent: (id) => this.getAgent(id) },
  })
  #position = 0

  static async start(): Promise<SyncRig> {
    const rig = new SyncRig()
    await rig.load()
    return rig
  }

  async load(): Promise<void> {
    await this.entries.load(`p${this.#position++}`)
    await this.bundles.load()
  }

  async change(...changes: Change[]): Promise<void> {
    await this.entries.handleChanges(changes, `p${this.#position++}`)
    await this.bundles.handleChanges(changes)
  }

  async putEntries(...entries: RegistrationEntry[]): Promise<void> {
    for (const entry of entries) this.rows.entries.set(entry.id, entry)
    await this.change(...entries.map(({ id }): Change => ({ kind: 'entry', id })))
  }

  async deleteEntry(id: string): Promise<void> {
    this.rows.entries.delete(id)
    await this.change({ kind: 'entry', id })
  }

  async putBundle(bundle: Bundle): Promise<void> {
    this.rows.bundles.set(bundle.trustDomain, bundle)
    await this.change({ kind: 'bundle', id: bundle.trustDomain })
  }

  async deleteBundle(name: string): Promise<void> {
    this.rows.bundles.delete(name)
    await this.change({ kind: 'bundle', id: name })
  }

  /** undefined evicts. */
  async putAgent(path: string, fields: Parameters<typeof makeAgent>[1] | undefined): Promise<void> {
    const agent = makeAgent(path, fields)
    if (fields === undefined) this.rows.agents.delete(agent.id.toString())
    else this.rows.agents.set(agent.id.toString(), agent)
    await this.change({ kind: 'agent', id: agent.id.toString() })
  }
}

function tablesSource(rig: SyncRig) {
  const among = <T>(table: ReadonlyMap<string, T>, ids: readonly string[]) =>
    ids.flatMap((id) => table.get(id) ?? [])
  return {
    async *loadAllEntries() {
      yield [...rig.rows.entries.values()]
    },
    async *loadAllAgents() {
      yield [...rig.rows.agents.values()]
    },
    getEntries: async (ids: readonly string[]) => among(rig.rows.entries, ids),
    getAgents: async (ids: readonly string[]) => among(rig.rows.agents, ids),
  }
}

/** An agent with one stream at a time. Its state outlives the stream, as a real agent's does. */
export class RigAgent {
  readonly id: SpiffeId
  serial = 1
  notAfter = START + 3_600
  readonly entries = new Map<string, Entry>()
  readonly bundles = new Map<string, BundleProto>()
  /** Every message of all streams. */
  readonly messages: SyncResponse[] = []
  cursor = ''
  /** How the last stream ended; undefined while it runs, null after a clean end. */
  ended: SignetError | null | undefined
  connectionsClosed = 0
  readonly #rig: SyncRig
  #inbox: (SyncRequest | undefined)[] = []
  #wake: (() => void) | undefined
  #gate: { promise: Promise<void>; resolve: () => void } | undefined
  #abort = new AbortController()
  #pending: SyncResponse[] = []

  constructor(rig: SyncRig, path: string) {
    this.#rig = rig
    this.id = SpiffeId.parse(`spiffe://${OWN}${path}`)
  }

  connect(hello: SyncRequest['hello'] | null = this.hello()): Promise<void> {
    // As a real agent: what an earlier stream still brings is not listened to.
    this.#abort.abort(new SignetError('canceled', 'canceled', 'context canceled'))
    this.#inbox = hello === null ? [] : [{ hello }]
    this.#pending = []
    this.#abort = new AbortController()
    this.ended = undefined
    const abort = this.#abort
    const stream = {
      receive: () => this.#receive(abort.signal),
      send: (message: SyncResponse) => this.#take(message, abort.signal),
    }
    return this.#rig.service.subscribe(stream, this.#context()).then(
      () => {
        if (abort === this.#abort) this.ended = null
      },
      (error) => {
        if (abort === this.#abort) this.ended = error
      },
    )
  }

  hello() {
    const bundleSequence = this.bundles.get(OWN)?.sequenceNumber ?? 0n
    return { cursor: this.cursor, bundleSequence, agentVersion: '1.0' }
  }

  post(request: SyncRequest | undefined): void {
    this.#inbox.push(request)
    this.#wake?.()
  }

  acknowledge(): void {
    const { cursor, bundleSequence } = this.hello()
    this.post({ ack: { cursor, bundleSequence } })
  }

  /** The connection breaks. */
  async disconnect(): Promise<void> {
    this.#abort.abort(new SignetError('canceled', 'canceled', 'context canceled'))
    this.resumeReading()
    await settle()
  }

  stopReading(): void {
    this.#gate ??= Promise.withResolvers<void>()
  }

  resumeReading(): void {
    this.#gate?.resolve()
    this.#gate = undefined
  }

  entryIds(): string[] {
    return [...this.entries.keys()].sort()
  }

  async #receive(signal: AbortSignal): Promise<SyncRequest | undefined> {
    for (;;) {
      signal.throwIfAborted()
      if (this.#inbox.length > 0) return this.#inbox.shift()
      await new Promise<void>((resolve) => {
        this.#wake = resolve
        signal.addEventListener('abort', () => resolve(), { once: true })
      })
    }
  }

  async #take(message: SyncResponse, signal: AbortSignal): Promise<void> {
    await this.#gate?.promise
    signal.throwIfAborted()
    this.messages.push(message)
    this.#pending.push(message)
    if (message.cursor === '') return
    for (const part of this.#pending) this.#apply(part)
    this.#pending = []
    this.cursor = message.cursor
  }

  #apply({ snapshotBegin, snapshotPage, delta }: SyncResponse): void {
    if (snapshotBegin !== undefined) {
      this.entries.clear()
      this.bundles.clear()
    }
    for (const id of delta?.entryIdsRemoved ?? []) this.entries.delete(id)
    for (const name of delta?.trustDomainsRemoved ?? []) this.bundles.delete(name)
    for (const entry of snapshotPage?.entries ?? delta?.entriesUpserted ?? []) {
      this.entries.set(entry.id, entry)
    }
    for (const bundle of snapshotPage?.bundles ?? delta?.bundlesUpserted ?? []) {
      this.bundles.set(bundle.trustDomain, bundle)
    }
  }

  #context(): CallContext {
    const leaf = { serialNumber: Uint8Array.of(this.serial), notAfter: this.notAfter }
    const agent = this.#rig.rows.agents.get(this.id.toString()) ?? makeAgent(this.id.path)
    return {
      method: '/signet.sync.v1.Sync/Subscribe',
      connection: {
        peer: 'test',
        transport: 'tcp',
        remoteIp: '127.0.0.1',
        chain: [leaf as Certificate],
        spiffeId: this.id,
        close: () => {
          this.connectionsClosed += 1
        },
      },
      caller: { kind: 'agent', via: 'datastore', spiffeId: this.id, agent },
      requestId: 'r',
      actor: { kind: 'agent', id: this.id.toString(), requestId: 'r' },
      log: silentLog,
      audit: noAudit,
      deadlineMs: Number.POSITIVE_INFINITY,
      signal: this.#abort.signal,
    }
  }
}
