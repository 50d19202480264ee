/** Stub ports and a call context for handler tests: what a test does not set must not be called. */
import type { SignetError } from '../../../../src/base/error.ts'
import type { LogFields } from '../../../../src/base/ports.ts'
import type { Issuance, IssuedX509Svid } from '../../../../src/ca/issuance.ts'
import type { Connection } from '../../../../src/server/connection.ts'
import type { Audit } from '../../../../src/server/rpc/audit.ts'
import type { CallContext, Caller } from '../../../../src/server/rpc/context.ts'
import type { HandlerPorts } from '../../../../src/server/rpc/ports.ts'
import type { Stream } from '../../../../src/server/rpc/route.ts'
import type { AttestedAgent } from '../../../../src/spiffe/attested-agent.ts'
import type { RegistrationEntry } from '../../../../src/spiffe/registration-entry.ts'
import { SpiffeId } from '../../../../src/spiffe/spiffe-id.ts'
import { TrustDomain } from '../../../../src/spiffe/trust-domain.ts'
import { FakeClock } from '../../../fakes/fake-clock.ts'
import { createMemoryLog, type MemoryLog } from '../../../fakes/memory-log.ts'
import { createSeededRandom } from '../../../fakes/seeded-random.ts'

export const TRUST_DOMAIN = TrustDomain.parse('example.org')
export const NOW = 1_800_000_000

export const AGENT: AttestedAgent = {
  id: SpiffeId.parse('spiffe://example.org/spire/agent/x509pop/one'),
  attestationType: 'x509pop',
  serialNumber: '7',
  expiresAt: NOW + 3600,
  newSerialNumber: '',
  newExpiresAt: 0,
  canReattest: false,
  agentVersion: '',
  selectors: [{ type: 'x509pop', value: 'a' }],
  clusterId: 9,
}

export function entryOf(id: string, change: Partial<RegistrationEntry> = {}): RegistrationEntry {
  return {
    id,
    spiffeId: SpiffeId.parse(`spiffe://example.org/${id}`),
    parentId: AGENT.id,
    selectors: [{ type: 'unix', value: 'uid:1' }],
    x509SvidTtlSeconds: 60,
    jwtSvidTtlSeconds: 30,
    federatesWith: [],
    admin: false,
    downstream: false,
    expiresAt: 0,
    dnsNames: [],
    revisionNumber: 0n,
    storeSvid: false,
    hint: '',
    createdAt: NOW,
    disableX509SvidPrefetch: false,
    jwtSvidIncludeJti: false,
    ...change,
  }
}

type Stubs = { readonly [K in keyof HandlerPorts]?: Partial<HandlerPorts[K]> }

/** Ports of which only the given parts exist. */
export function portsWith(stubs: Stubs): HandlerPorts {
  const defaults = {
    trustDomain: TRUST_DOMAIN,
    clock: new FakeClock(NOW),
    random: createSeededRandom(),
    defaultClusterId: 2,
    agentSpiffeIdAsSelector: false,
    jwtSvidsDisabled: false,
    nodeAttestors: new Map(),
    logLevel: { launchLevel: 'info' as const, level: () => 'info' as const, setLevel: () => {} },
  }
  return new Proxy({ ...defaults, ...stubs } as HandlerPorts, {
    get: (ports, name: keyof HandlerPorts) => {
      if (!(name in ports)) throw new Error(`port ${name} was not expected to be used`)
      return ports[name]
    },
  })
}

interface AuditRecord {
  readonly error: SignetError | undefined
  readonly fields: LogFields
}

export interface TestContext extends CallContext {
  readonly log: MemoryLog
  readonly records: readonly AuditRecord[]
}

export const ADMIN: Caller = { kind: 'local', via: 'transport' }
export const AGENT_CALLER: Caller = {
  kind: 'agent',
  via: 'datastore',
  spiffeId: AGENT.id,
  agent: AGENT,
}

export function contextOf(caller: Caller, signal = new AbortController().signal): TestContext {
  const records: AuditRecord[] = []
  return {
    method: '/test/Method',
    connection: connectionOf({}),
    caller,
    requestId: 'request-1',
    actor: { kind: caller.kind, id: 'caller-1', requestId: 'request-1' },
    log: createMemoryLog(),
    audit: recordingAudit(records),
    deadlineMs: Number.POSITIVE_INFINITY,
    signal,
    records,
  }
}

export function connectionOf(change: Partial<Connection>): Connection {
  return {
    peer: '10.0.0.1:4000',
    transport: 'tcp',
    remoteIp: '10.0.0.1',
    chain: [],
    close: () => {},
    ...change,
  }
}

function recordingAudit(records: AuditRecord[]): Audit {
  let gathered: LogFields = {}
  return {
    add: (fields) => {
      gathered = { ...gathered, ...fields() }
    },
    success: (fields) => {
      records.push({ error: undefined, fields: { ...gathered, ...fields?.() } })
    },
    failure: (error) => void records.push({ error, fields: gathered }),
    item: (error, fields) => void records.push({ error, fields: fields() }),
  }
}

/** A client that sends these messages and then is done; what the server sent is kept. */
export function streamOf<Request, Response>(
  requests: readonly (Request | ((sent: readonly Response[]) => Request))[],
): Stream<Request, Response> & { readonly sent: Response[] } {
  const queue = [...requests]
  const sent: Response[] = []
  return {
    sent,
    receive: async () => {
      const next = queue.shift()
      return typeof next === 'function'
        ? (next as (sent: readonly Response[]) => Request)(sent)
        : next
    },
    send: async (response) => void sent.push(response),
  }
}

export function issuedFor(
  spiffeId: SpiffeId,
  change: Partial<IssuedX509Svid> = {},
): IssuedX509Svid {
  return {
    spiffeId,
    chain: [Uint8Array.of(1), Uint8Array.of(2)],
    serialNumber: Uint8Array.of(1, 0),
    notBefore: NOW - 10,
    notAfter: NOW + 60,
    ...change,
  }
}

/** Issues whatever is ordered, and keeps the orders. */
export function issuanceStub(): Issuance & {
  readonly orders: Parameters<Issuance['issueX509Svids']>[0][number][]
  readonly requests: (Uint8Array | undefined)[]
} {
  const orders: Parameters<Issuance['issueX509Svids']>[0][number][] = []
  const requests: (Uint8Array | undefined)[] = []
  return {
    orders,
    requests,
    issueX509Svids: async (ordered, _caller, message) => {
      orders.push(...ordered)
      requests.push(message)
      return ordered.map((order) => ({ ok: true, value: issuedFor(order.spiffeId) }))
    },
    issueJwtSvid: async (order) => ({
      spiffeId: order.spiffeId,
      token: `jwt.${order.audience.join('+')}.${order.includeJti}`,
      issuedAt: NOW,
      expiresAt: NOW + order.ttlSeconds,
    }),
  }
}
