/** What the canned APIs answer to command lines: one of everything, the odd cases included. */
import { fileURLToPath } from 'node:url'
import { status } from '@grpc/grpc-js'
import { Agent } from '../../src/wire/gen/spire/api/types/agent.ts'
import { Bundle } from '../../src/wire/gen/spire/api/types/bundle.ts'
import { Entry } from '../../src/wire/gen/spire/api/types/entry.ts'
import { type Canned, RpcFailure, readFixtures } from './canned-apis.ts'

export const FIXTURES = readFixtures(
  fileURLToPath(new URL('../vectors/cli/fixtures.json', import.meta.url)),
  ['root', 'otherRoot', 'intermediate', 'leaf', 'leafKey', 'ecPublicKey', 'rsaPublicKey'],
)

const FAR = 4_102_444_800n
const id = (path: string, trustDomain = 'example.org') => ({ trustDomain, path })

const FULL_ENTRY = Entry.fromPartial({
  id: 'entry-full',
  spiffeId: id('/full'),
  parentId: id('/node'),
  selectors: [
    { type: 'unix', value: 'uid:1000' },
    { type: 'k8s', value: 'ns:<a>&b' },
  ],
  x509SvidTtl: 300,
  jwtSvidTtl: 60,
  federatesWith: ['other.example', 'third.example'],
  admin: true,
  downstream: true,
  expiresAt: 1_800_000_000n,
  dnsNames: ['a.example', 'b.example'],
  revisionNumber: 7n,
  storeSvid: true,
  hint: 'external',
  createdAt: 1_700_000_000n,
  additionalAttributes: { disableX509SvidPrefetch: true, jwtSvidIncludeJti: true },
})
const PLAIN_ENTRY = Entry.fromPartial({
  id: 'entry-plain',
  spiffeId: id('/alpha'),
  parentId: id('/node'),
  selectors: [{ type: 'unix', value: 'uid:0' }],
  createdAt: 1_700_000_001n,
})

const AGENT = Agent.fromPartial({
  id: id('/spire/agent/join_token/t1'),
  attestationType: 'join_token',
  x509svidSerialNumber: '12345678901234567890',
  x509svidExpiresAt: FAR,
  agentVersion: '1.15.3',
  selectors: [{ type: 'spiffe_id', value: 'spiffe://example.org/spire/agent/join_token/t1' }],
})
const BANNED_AGENT = Agent.fromPartial({
  id: id('/spire/agent/x509pop/abc'),
  attestationType: 'x509pop',
  x509svidExpiresAt: 1_600_000_000n,
  banned: true,
  canReattest: true,
})

const OWN_BUNDLE = Bundle.fromPartial({
  trustDomain: 'example.org',
  x509Authorities: [{ asn1: FIXTURES.root }, { asn1: FIXTURES.intermediate, tainted: true }],
  jwtAuthorities: [{ publicKey: FIXTURES.ecPublicKey, keyId: 'key-ec', expiresAt: FAR }],
  refreshHint: 300n,
  sequenceNumber: 42n,
})
const OTHER_BUNDLE = Bundle.fromPartial({
  trustDomain: 'other.example',
  x509Authorities: [{ asn1: FIXTURES.otherRoot }],
  jwtAuthorities: [{ publicKey: FIXTURES.rsaPublicKey, keyId: 'key-rsa' }],
})

const OK = { code: 0, message: 'OK' }
const refused = (code: number, message: string) => ({ code, message })

/** `{"alg":"ES256"}.{"sub":…,"exp":4102444800}` with a signature nobody checks. */
const TOKEN = [
  '{"alg":"ES256","kid":"key-ec","typ":"JWT"}',
  '{"aud":["aud1"],"exp":4102444800,"iat":1700000000,"sub":"spiffe://example.org/w"}',
  'x'.repeat(64),
]
  .map((part) => Buffer.from(part).toString('base64url'))
  .join('.')

function writeResults({ entries }: { entries: Entry[] }) {
  return {
    results: entries.map((entry) =>
      entry.spiffeId?.path === '/refused'
        ? { status: refused(6, 'similar "entry" already exists'), entry: undefined }
        : { status: OK, entry: { ...entry, id: entry.id || 'made-by-server' } },
    ),
  }
}

function listEntries({ pageToken, filter }: { pageToken: string; filter?: { byHint?: string } }) {
  if (filter?.byHint === 'none') return { entries: [], nextPageToken: '' }
  return pageToken === ''
    ? { entries: [FULL_ENTRY], nextPageToken: 'more' }
    : { entries: [PLAIN_ENTRY], nextPageToken: '' }
}

function getAgent({ id: { path } }: { id: { path: string } }) {
  if (path.endsWith('/abc')) return BANNED_AGENT
  if (path.endsWith('/t1')) return AGENT
  throw new RpcFailure(status.NOT_FOUND, 'agent not found')
}

const SERVER_ANSWERS: Readonly<Record<string, Canned>> = {
  'spire.api.server.entry.v1.Entry/ListEntries': listEntries,
  'spire.api.server.entry.v1.Entry/CountEntries': ({
    filter,
  }: {
    filter: { byHint?: string }
  }) => ({
    count: filter.byHint === undefined ? 2 : 1,
  }),
  'spire.api.server.entry.v1.Entry/GetEntry': ({ id: entryId }: { id: string }) => {
    if (entryId === 'entry-full') return FULL_ENTRY
    throw new RpcFailure(status.NOT_FOUND, 'entry not found')
  },
  'spire.api.server.entry.v1.Entry/BatchCreateEntry': writeResults,
  'spire.api.server.entry.v1.Entry/BatchUpdateEntry': writeResults,
  'spire.api.server.entry.v1.Entry/BatchDeleteEntry': ({ ids }: { ids: string[] }) => ({
    results: ids.map((entryId) => ({
      id: entryId,
      status: entryId === 'missing' ? refused(5, 'entry not found') : OK,
    })),
  }),
  'spire.api.server.agent.v1.Agent/ListAgents': ({
    filter,
    pageToken,
  }: {
    filter?: { byAttestationType: string }
    pageToken: string
  }) => {
    if (filter?.byAttestationType === 'none') return { agents: [], nextPageToken: '' }
    return pageToken === '' && filter?.byAttestationType !== 'x509pop'
      ? { agents: [AGENT], nextPageToken: '1' }
      : { agents: [BANNED_AGENT], nextPageToken: '' }
  },
  'spire.api.server.agent.v1.Agent/CountAgents': () => ({ count: 1 }),
  'spire.api.server.agent.v1.Agent/GetAgent': getAgent,
  'spire.api.server.agent.v1.Agent/BanAgent': (request: { id: { path: string } }) => {
    getAgent(request)
    return {}
  },
  'spire.api.server.agent.v1.Agent/DeleteAgent': (request: { id: { path: string } }) => {
    getAgent(request)
    return {}
  },
  'spire.api.server.agent.v1.Agent/CreateJoinToken': ({ ttl }: { ttl: number }) => {
    if (ttl === 0) throw new RpcFailure(status.INVALID_ARGUMENT, 'ttl is required')
    return { value: 'a-token', expiresAt: 1_700_000_600n }
  },
  'spire.api.server.bundle.v1.Bundle/GetBundle': () => OWN_BUNDLE,
  'spire.api.server.bundle.v1.Bundle/CountBundles': () => ({ count: 1 }),
  'spire.api.server.bundle.v1.Bundle/ListFederatedBundles': () => ({
    bundles: [OTHER_BUNDLE, { ...OTHER_BUNDLE, trustDomain: 'third.example' }],
    nextPageToken: '',
  }),
  'spire.api.server.bundle.v1.Bundle/GetFederatedBundle': ({
    trustDomain,
  }: {
    trustDomain: string
  }) => {
    if (trustDomain === 'other.example') return OTHER_BUNDLE
    throw new RpcFailure(status.NOT_FOUND, 'bundle not found')
  },
  'spire.api.server.bundle.v1.Bundle/BatchSetFederatedBundle': ({
    bundle,
  }: {
    bundle: Bundle[]
  }) => ({
    results: bundle.map((one) =>
      one.trustDomain === 'refused.example'
        ? { status: refused(3, 'not allowed'), bundle: undefined }
        : { status: OK, bundle: one },
    ),
  }),
  'spire.api.server.bundle.v1.Bundle/BatchDeleteFederatedBundle': ({
    trustDomains,
  }: {
    trustDomains: string[]
  }) => ({
    results: trustDomains.map((trustDomain) => ({
      trustDomain,
      status: trustDomain === 'missing.example' ? refused(5, 'bundle not found') : OK,
    })),
  }),
  'spire.api.server.svid.v1.SVID/MintX509SVID': () => ({
    svid: {
      certChain: [FIXTURES.leaf, FIXTURES.intermediate],
      id: id('/workload'),
      expiresAt: FAR,
      hint: '',
    },
  }),
  'spire.api.server.svid.v1.SVID/MintJWTSVID': () => ({
    svid: { token: TOKEN, id: id('/w'), expiresAt: FAR, issuedAt: 1_700_000_000n, hint: '' },
  }),
  'spire.api.server.debug.v1.Debug/GetInfo': () => ({
    svidChain: [
      { id: id('/spire/server'), expiresAt: FAR, subject: 'O=SPIRE,C=US' },
      { id: undefined, expiresAt: FAR, subject: 'CN=root' },
    ],
    uptime: 3_723,
    agentsCount: 2,
    entriesCount: 3,
    federatedBundlesCount: 4,
  }),
}

const AGENT_ANSWERS: Readonly<Record<string, Canned>> = {
  'grpc.health.v1.Health/Check': () => ({ status: 1 }),
  'spire.api.agent.debug.v1.Debug/GetInfo': () => ({
    svidChain: [{ id: id('/spire/agent/x'), expiresAt: FAR, subject: 'O=SPIRE,C=US' }],
    uptime: 59,
    svidsCount: 3,
    lastSyncSuccess: 1_700_000_000n,
    cachedX509SvidsCount: 3,
    cachedJwtSvidsCount: 2,
    cachedSvidstoreX509SvidsCount: 1,
  }),
  'SpiffeWorkloadAPI/FetchX509SVID': () => ({
    svids: [
      {
        spiffeId: 'spiffe://example.org/workload',
        x509Svid: Buffer.concat([FIXTURES.leaf, FIXTURES.intermediate]),
        x509SvidKey: FIXTURES.leafKey,
        bundle: FIXTURES.root,
        hint: 'internal',
      },
    ],
    crl: [],
    federatedBundles: { 'spiffe://other.example': FIXTURES.otherRoot },
  }),
  'SpiffeWorkloadAPI/FetchJWTSVID': ({ audience }: { audience: string[] }) => {
    if (audience.includes('nobody')) {
      throw new RpcFailure(status.PERMISSION_DENIED, 'no identity issued')
    }
    return { svids: [{ spiffeId: 'spiffe://example.org/w', svid: TOKEN, hint: 'internal' }] }
  },
  'SpiffeWorkloadAPI/FetchJWTBundles': () => ({
    bundles: { 'spiffe://example.org': Buffer.from('{"keys":[]}') },
  }),
  'SpiffeWorkloadAPI/ValidateJWTSVID': ({ audience }: { audience: string }) => {
    if (audience === 'wrong') {
      throw new RpcFailure(status.INVALID_ARGUMENT, 'expected audience in ["aud1"]')
    }
    if (audience === 'down') throw new RpcFailure(status.UNAVAILABLE, 'not now')
    return {
      spiffeId: 'spiffe://example.org/w',
      claims: { sub: 'spiffe://example.org/w', exp: 4_102_444_800, aud: ['aud1'], nil: null },
    }
  },
}

export const CLI_ANSWERS = { ...SERVER_ANSWERS, ...AGENT_ANSWERS }
