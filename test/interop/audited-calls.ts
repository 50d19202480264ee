/** Calls of the server API whose audit records are compared: good ones, refused ones, batches of both. */
import { generateKeyPairSync } from 'node:crypto'
import {
  AgentService,
  AttestAgentRequest,
  BanAgentRequest,
  CountAgentsRequest,
  CreateJoinTokenRequest,
  DeleteAgentRequest,
  GetAgentRequest,
  ListAgentsRequest,
  PostStatusRequest,
  RenewAgentRequest,
} from '../../src/wire/gen/spire/api/server/agent/v1/agent.ts'
import {
  AppendBundleRequest,
  BatchCreateFederatedBundleRequest,
  BatchDeleteFederatedBundleRequest,
  BatchSetFederatedBundleRequest,
  BatchUpdateFederatedBundleRequest,
  BundleService,
  CountBundlesRequest,
  GetBundleRequest,
  GetFederatedBundleRequest,
  ListFederatedBundlesRequest,
} from '../../src/wire/gen/spire/api/server/bundle/v1/bundle.ts'
import {
  BatchCreateEntryRequest,
  BatchDeleteEntryRequest,
  BatchUpdateEntryRequest,
  CountEntriesRequest,
  EntryService,
  GetAuthorizedEntriesRequest,
  GetEntryRequest,
  ListEntriesRequest,
  SyncAuthorizedEntriesRequest,
} from '../../src/wire/gen/spire/api/server/entry/v1/entry.ts'
import {
  GetLoggerRequest,
  LoggerService,
  ResetLogLevelRequest,
  SetLogLevelRequest,
} from '../../src/wire/gen/spire/api/server/logger/v1/logger.ts'
import {
  BatchNewX509SVIDRequest,
  MintJWTSVIDRequest,
  MintX509SVIDRequest,
  NewJWTSVIDRequest,
  SVIDService,
} from '../../src/wire/gen/spire/api/server/svid/v1/svid.ts'
import { createCertificateRequest } from '../../src/x509/csr.ts'
import { encodeName } from '../../src/x509/name.ts'
import { makeAuthority } from '../rigs/certificates.ts'

/** Who calls: by the admin socket, or over TLS as nobody, as an agent that has attested, as an admin. */
export type Door = 'local' | 'nobody' | 'agent' | 'banned' | 'admin'

export interface AuditedCall {
  readonly door: Door
  readonly path: string
  readonly streams: boolean
  readonly message: Buffer
}

interface Codec<Request> {
  readonly path: string
  readonly requestStream: boolean
  readonly requestSerialize: (request: Request) => Buffer
}

/** The same for both servers, so that hashes are the same in both records. */
export interface Material {
  readonly agent: Pair
  readonly banned: Pair
  readonly admin: Pair
  readonly plain: Pair
  /** DER of a CA certificate, and a JWT key. */
  readonly authority: Uint8Array
  readonly spki: Uint8Array
}

interface Pair {
  readonly keyPem: string
  readonly csr: Uint8Array
}

export const TOKENS = { agent: 'token-1', banned: 'token-2' }
const ADMIN_ID = 'spiffe://example.org/admin'
const AGENT = id('/spire/agent/join_token/token-1')
const BANNED = id('/spire/agent/join_token/token-2')
const UNKNOWN_AGENT = id('/spire/agent/none')
const NO_CSR = Uint8Array.of(1)
/** Far enough to be told from what the servers choose. */
const EXPIRES_AT = 4_000_000_000n

export async function makeMaterial(): Promise<Material> {
  const plain = pair([])
  return {
    agent: pair([]),
    banned: pair([]),
    admin: pair([ADMIN_ID], ['a.example.org', 'b.example.org']),
    plain,
    authority: (await makeAuthority('other', 'spiffe://a.org')).der,
    spki: generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey.export({
      format: 'der',
      type: 'spki',
    }),
  }
}

function pair(uriNames: readonly string[], dnsNames: readonly string[] = []): Pair {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const csr = createCertificateRequest({
    privateKey,
    publicKey: publicKey.export({ format: 'der', type: 'spki' }),
    uriNames,
    dnsNames,
    subject: encodeName({ country: ['US'], organization: ['SPIRE'] }),
  })
  return { keyPem: privateKey.export({ format: 'pem', type: 'pkcs8' }).toString(), csr }
}

/** Before anybody has attested. */
export function tokenCalls(): AuditedCall[] {
  const { createJoinToken } = AgentService
  const token = (request: Partial<CreateJoinTokenRequest>) =>
    call('local', createJoinToken, CreateJoinTokenRequest.fromPartial(request))
  return [
    token({ ttl: 600, token: TOKENS.agent, agentId: id('/node') }),
    token({ ttl: 600, token: TOKENS.banned }),
    token({ ttl: 0 }),
    token({ ttl: 5, agentId: { trustDomain: 'other.org', path: '/x' } }),
  ]
}

export function attestCall(token: string, csr: Uint8Array): AuditedCall {
  const data = { type: 'join_token', payload: new TextEncoder().encode(token) }
  const request = AttestAgentRequest.fromPartial({ params: { data, params: { csr } } })
  return call('nobody', AgentService.attestAgent, request)
}

export function mintAdmin({ admin }: Material): AuditedCall {
  const request = MintX509SVIDRequest.fromPartial({ csr: admin.csr, ttl: 600 })
  return call('local', SVIDService.mintX509Svid, request)
}

/** By those who have attested, and by administrators; after `entryCalls`, once `ENTRY` is served. */
export function calls(material: Material): AuditedCall[] {
  return [
    attestCall('no-such-token', material.plain.csr),
    ...agentCalls(),
    ...svidCalls(material),
    ...bundleCalls(material),
    ...otherCalls(),
  ]
}

/** May be made until the entry is there: of several of its records one is looked at. */
export const GET_ENTRIES = call(
  'agent',
  EntryService.getAuthorizedEntries,
  GetAuthorizedEntriesRequest.fromPartial({}),
)

/** Its record tells that all others are written. */
export const LAST_CALL = call(
  'local',
  EntryService.getEntry,
  GetEntryRequest.fromPartial({ id: 'last-call' }),
)

export const ENTRY = 'e1'

export function entryCalls(): AuditedCall[] {
  const entry = (name: string, path: string, more: object = {}) => ({
    id: name,
    spiffeId: id(path),
    parentId: AGENT,
    selectors: [selector(1), selector(2)],
    ...more,
  })
  const every = { x509SvidTtl: 10, jwtSvidTtl: 20, dnsNames: ['a.b', 'c.d'], hint: 'h' }
  const create = BatchCreateEntryRequest.fromPartial({
    entries: [
      entry(ENTRY, '/w1', { ...every, expiresAt: EXPIRES_AT }),
      entry('e2', '/w1'),
      entry('e3', '/w3', { federatesWith: ['nowhere.org'] }),
      entry('e4', '/w4', { selectors: [] }),
      entry('', '/w5', { parentId: undefined }),
      entry('e6', '/w6', { spiffeId: { trustDomain: 'UPPER', path: 'x' } }),
      entry('e7', '/admin', { admin: true }),
    ],
  })
  const update = {
    masked: BatchUpdateEntryRequest.fromPartial({
      inputMask: { hint: true, dnsNames: true },
      entries: [entry(ENTRY, '/w1', { hint: 'h2' }), entry('none', '/x'), entry('', '/x')],
    }),
    whole: BatchUpdateEntryRequest.fromPartial({
      entries: [entry(ENTRY, '/w1', { hint: 'h3' }), entry(ENTRY, '/w1', { selectors: [] })],
    }),
  }
  const filter = {
    bySpiffeId: id('/w1'),
    byParentId: id('/p'),
    bySelectors: { match: 0, selectors: [selector(1), selector(2)] },
    byFederatesWith: { match: 1, trustDomains: ['a.org', 'b.org'] },
    byHint: 'h',
    byDownstream: true,
  }
  const odd = { bySpiffeId: { trustDomain: 'x_Y', path: 'q' }, byHint: '' }
  const empty = { bySelectors: { match: 2, selectors: [] } }
  const list = (door: Door, request: object) =>
    call(door, EntryService.listEntries, ListEntriesRequest.fromPartial(request))
  const count = (door: Door, request: object) =>
    call(door, EntryService.countEntries, CountEntriesRequest.fromPartial(request))
  const get = (name: string) =>
    call('local', EntryService.getEntry, GetEntryRequest.fromPartial({ id: name }))
  return [
    call('local', EntryService.batchCreateEntry, create),
    call('local', EntryService.batchUpdateEntry, update.masked),
    call('local', EntryService.batchUpdateEntry, update.whole),
    ...[ENTRY, 'none', ''].map(get),
    ...[{ filter, pageSize: 3 }, {}, { filter: empty }, { filter: odd }].map((request) =>
      list('local', request),
    ),
    ...[{ filter }, {}, { filter: empty }].map((request) => count('local', request)),
    count('admin', {}),
    // Who is not let in leaves no record.
    count('agent', {}),
    count('nobody', {}),
    call('agent', EntryService.syncAuthorizedEntries, SyncAuthorizedEntriesRequest.fromPartial({})),
    call(
      'local',
      EntryService.batchDeleteEntry,
      BatchDeleteEntryRequest.fromPartial({ ids: ['e7', 'none', ''] }),
    ),
  ]
}

function agentCalls(): AuditedCall[] {
  const filter = {
    byAttestationType: 'join_token',
    byBanned: false,
    byCanReattest: false,
    bySelectorMatch: { match: 3, selectors: [selector(1)] },
    byExpiresBefore: '2035-01-01 00:00:00 +0000 UTC',
  }
  const { banAgent, countAgents, deleteAgent, getAgent, listAgents, postStatus } = AgentService
  const list = (request: object) =>
    call('local', listAgents, ListAgentsRequest.fromPartial(request))
  const count = (request: object) =>
    call('local', countAgents, CountAgentsRequest.fromPartial(request))
  const get = (request: object) => call('local', getAgent, GetAgentRequest.fromPartial(request))
  const ban = (who: SpiffeIdProto) =>
    call('local', banAgent, BanAgentRequest.fromPartial({ id: who }))
  const remove = (who: SpiffeIdProto) =>
    call('local', deleteAgent, DeleteAgentRequest.fromPartial({ id: who }))
  const post = (request: object) =>
    call('agent', postStatus, PostStatusRequest.fromPartial(request))
  return [
    ...[{ filter, pageSize: 2 }, {}].map(list),
    ...[{ filter }, {}].map(count),
    ...[{ id: AGENT }, { id: UNKNOWN_AGENT }, { id: id('/w') }, {}].map(get),
    ...[UNKNOWN_AGENT, id('/w'), BANNED].map(ban),
    call('banned', postStatus, PostStatusRequest.fromPartial({})),
    ...[UNKNOWN_AGENT, id('/w'), BANNED].map(remove),
    ...[{ currentBundleSerial: 7n, agentVersion: '1.2.3' }, {}].map(post),
  ]
}

function svidCalls({ plain, admin, agent }: Material): AuditedCall[] {
  const { csr } = plain
  const batch = (params: object[]) =>
    call('agent', SVIDService.batchNewX509Svid, BatchNewX509SVIDRequest.fromPartial({ params }))
  const jwt = (request: object) =>
    call('agent', SVIDService.newJwtsvid, NewJWTSVIDRequest.fromPartial(request))
  const mint = (request: object) =>
    call('local', SVIDService.mintX509Svid, MintX509SVIDRequest.fromPartial(request))
  const mintJwt = (request: object) =>
    call('local', SVIDService.mintJwtsvid, MintJWTSVIDRequest.fromPartial(request))
  const renew = (request: object) =>
    call('agent', AgentService.renewAgent, RenewAgentRequest.fromPartial(request))
  const foreign = { trustDomain: 'other.org', path: '/j' }
  return [
    batch([
      { entryId: ENTRY, csr },
      { entryId: 'none', csr },
      { entryId: ENTRY, csr: NO_CSR },
      { entryId: '', csr },
      { entryId: ENTRY },
    ]),
    batch([]),
    // Over the burst: the record names what was asked for all the same.
    batch(Array.from({ length: 501 }, (_, i) => ({ entryId: i === 0 ? ENTRY : 'e2', csr }))),
    jwt({ entryId: ENTRY, audience: ['x', 'y'] }),
    jwt({ entryId: 'none', audience: ['x'] }),
    jwt({ entryId: ENTRY, audience: [] }),
    mint({ csr: admin.csr, ttl: 7 }),
    mint({ csr: NO_CSR, ttl: 5 }),
    mint({ csr }),
    mint({}),
    mintJwt({ id: id('/j'), audience: ['a', 'b'], ttl: 7 }),
    mintJwt({ id: foreign, audience: ['a'] }),
    mintJwt({ id: id('/j') }),
    renew({}),
    renew({ params: {} }),
    renew({ params: { csr: NO_CSR } }),
    renew({ params: { csr: agent.csr } }),
  ]
}

function bundleCalls({ authority, spki }: Material): AuditedCall[] {
  const key = { keyId: 'k1', publicKey: spki, expiresAt: EXPIRES_AT }
  const bundle = (trustDomain: string, asn1 = authority) => ({
    trustDomain,
    x509Authorities: [{ asn1 }],
    jwtAuthorities: [key],
    refreshHint: 30n,
    sequenceNumber: 4n,
  })
  const list = [
    bundle('a.org'),
    bundle('a.org'),
    bundle('Not a td'),
    bundle('example.org'),
    bundle('b.org', NO_CSR),
  ]
  const local = <Request>(method: Codec<Request>, request: Request) =>
    call('local', method, request)
  const get = (trustDomain: string) =>
    local(BundleService.getFederatedBundle, GetFederatedBundleRequest.fromPartial({ trustDomain }))
  const append = (request: object) =>
    local(BundleService.appendBundle, AppendBundleRequest.fromPartial(request))
  return [
    call('nobody', BundleService.getBundle, GetBundleRequest.fromPartial({})),
    local(BundleService.countBundles, CountBundlesRequest.fromPartial({})),
    append({ x509Authorities: [{ asn1: authority }], jwtAuthorities: [key] }),
    append({ x509Authorities: [{ asn1: NO_CSR }] }),
    append({}),
    local(
      BundleService.batchCreateFederatedBundle,
      BatchCreateFederatedBundleRequest.fromPartial({ bundle: list }),
    ),
    local(
      BundleService.batchUpdateFederatedBundle,
      BatchUpdateFederatedBundleRequest.fromPartial({
        bundle: [...list, bundle('c.org')],
        inputMask: { refreshHint: true },
      }),
    ),
    local(
      BundleService.batchSetFederatedBundle,
      BatchSetFederatedBundleRequest.fromPartial({ bundle: list }),
    ),
    ...['a.org', 'none.org', 'NO NO'].map(get),
    local(
      BundleService.listFederatedBundles,
      ListFederatedBundlesRequest.fromPartial({ pageSize: 5 }),
    ),
    local(
      BundleService.batchDeleteFederatedBundle,
      BatchDeleteFederatedBundleRequest.fromPartial({
        trustDomains: ['a.org', 'none.org', 'Bad TD', 'example.org'],
        mode: 2,
      }),
    ),
  ]
}

function otherCalls(): AuditedCall[] {
  const { getLogger, resetLogLevel, setLogLevel } = LoggerService
  return [
    call('local', getLogger, GetLoggerRequest.fromPartial({})),
    call('local', setLogLevel, SetLogLevelRequest.fromPartial({ newLevel: 6 })),
    call('local', setLogLevel, SetLogLevelRequest.fromPartial({ newLevel: 0 })),
    call('local', resetLogLevel, ResetLogLevelRequest.fromPartial({})),
  ]
}

type SpiffeIdProto = ReturnType<typeof id>

function id(path: string) {
  return { trustDomain: 'example.org', path }
}

function selector(uid: number) {
  return { type: 'unix', value: `uid:${uid}` }
}

function call<Request>(door: Door, method: Codec<Request>, request: Request): AuditedCall {
  const { path, requestStream, requestSerialize } = method
  return { door, path, streams: requestStream, message: requestSerialize(request) }
}
