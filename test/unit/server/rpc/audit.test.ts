/** The audit record of every call, field by field as SPIRE writes it (features.md §4.6). */
import { createHash, generateKeyPairSync } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import { SignetError } from '../../../../src/base/error.ts'
import { TwoForms } from '../../../../src/base/log-text.ts'
import type { LogFields } from '../../../../src/base/ports.ts'
import { createAgentHandlers } from '../../../../src/server/rpc/agent/v1/handlers.ts'
import { createJoinToken } from '../../../../src/server/rpc/agent/v1/join-token.ts'
import { createAudit, integerField, matchField } from '../../../../src/server/rpc/audit.ts'
import { createFederatedBundleHandlers } from '../../../../src/server/rpc/bundle/v1/federated.ts'
import { createBundleHandlers } from '../../../../src/server/rpc/bundle/v1/handlers.ts'
import { createEntryHandlers } from '../../../../src/server/rpc/entry/v1/handlers.ts'
import { batchNewX509Svid, newJwtSvid } from '../../../../src/server/rpc/svid/v1/issue.ts'
import { mintJwtSvid, mintX509Svid } from '../../../../src/server/rpc/svid/v1/mint.ts'
import { entryToProto } from '../../../../src/wire/convert/entry.ts'
import {
  CreateJoinTokenRequest,
  ListAgentsRequest_Filter,
} from '../../../../src/wire/gen/spire/api/server/agent/v1/agent.ts'
import { ListEntriesRequest_Filter } from '../../../../src/wire/gen/spire/api/server/entry/v1/entry.ts'
import { Bundle, BundleMask, JWTKey } from '../../../../src/wire/gen/spire/api/types/bundle.ts'
import { type Entry, EntryMask } from '../../../../src/wire/gen/spire/api/types/entry.ts'
import { createCertificateRequest } from '../../../../src/x509/csr.ts'
import { encodeName } from '../../../../src/x509/name.ts'
import { createMemoryLog } from '../../../fakes/memory-log.ts'
import {
  ADMIN,
  AGENT,
  AGENT_CALLER,
  connectionOf,
  contextOf,
  entryOf,
  issuanceStub,
  NOW,
  portsWith,
  type TestContext,
} from './rig.ts'

const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex')
const AGENT_ID = 'spiffe://example.org/spire/agent/x509pop/one'
const agentId = { trustDomain: 'example.org', path: '/spire/agent/x509pop/one' }
const webId = { trustDomain: 'example.org', path: '/web' }
const CSR = Uint8Array.of(1, 2)
const selector = { type: 'unix', value: 'uid:1' }
const PUBLIC_KEY = new Uint8Array(
  generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey.export({
    format: 'der',
    type: 'spki',
  }),
)
const KEY = JWTKey.create({ publicKey: PUBLIC_KEY, keyId: 'kid', expiresAt: 9n })
const BUNDLE = {
  trustDomain: 'example.org',
  x509Authorities: [],
  jwtAuthorities: [],
  refreshHintSeconds: 0,
  sequenceNumber: 0n,
}
const page = { pageSize: 0, pageToken: '', outputMask: undefined }

const ports = portsWith({
  agentStore: {
    getAgent: async () => AGENT,
    countAgents: async () => 1,
    listAgents: async () => ({ rows: [], nextToken: '' }),
    deleteAgent: async () => {},
    banAgent: async () => {},
    setNewSerial: async () => {},
    setAgentVersion: async () => {},
  },
  joinTokenStore: { createJoinToken: async () => {} },
  entryStore: {
    countEntries: async () => 1,
    listEntries: async () => ({ rows: [], nextToken: '' }),
    getEntry: async () => entryOf('web'),
  },
  bundleStore: {
    countBundles: async () => 1,
    listBundles: async () => ({ rows: [], nextToken: '' }),
    getBundle: async () => ({ ...BUNDLE, trustDomain: 'other.org' }),
    appendBundle: async () => BUNDLE,
  },
  bundles: { ownBundle: async () => BUNDLE },
  entries: {
    authorizedEntry: () => entryOf('web'),
    authorizedEntries: () => [entryOf('web')],
  },
  issuance: issuanceStub(),
  connections: { closeWhere: () => {} },
})
const agents = createAgentHandlers(ports)
const entries = createEntryHandlers(ports)
const bundles = createBundleHandlers(ports)

function mintRequest() {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  return createCertificateRequest({
    privateKey,
    publicKey: publicKey.export({ format: 'der', type: 'spki' }),
    uriNames: ['spiffe://example.org/web'],
    dnsNames: ['a.org', 'b.org'],
    subject: encodeName({ country: ['US'] }),
  })
}

const agentFilter = ListAgentsRequest_Filter.create({
  byAttestationType: 'x509pop',
  byBanned: false,
  byCanReattest: true,
  bySelectorMatch: { match: 3, selectors: [selector, selector] },
})
const agentFilterFields = {
  node_attestor_type: 'x509pop',
  by_banned: false,
  by_can_reattest: true,
  by_selector_match: 'MATCH_ANY',
  by_selectors: 'unix:uid:1,unix:uid:1',
}
const entryFilter = ListEntriesRequest_Filter.create({
  bySpiffeId: webId,
  byParentId: agentId,
  bySelectors: { match: 0, selectors: [selector] },
  byFederatesWith: { match: 2, trustDomains: ['a.org', 'b.org'] },
  byHint: 'h',
  byDownstream: false,
})
const entryFilterFields = {
  spiffe_id: 'spiffe://example.org/web',
  parent_id: AGENT_ID,
  by_selector_match: 'MATCH_EXACT',
  by_selectors: 'unix:uid:1',
  federates_with_match: 'MATCH_SUPERSET',
  federates_with: 'a.org,b.org',
  hint: 'h',
  downstream: false,
}
const keyFields = {
  jwt_authority_expires_at: 9,
  jwt_authority_key_id: 'kid',
  jwt_authority_public_key_sha256: sha256(PUBLIC_KEY),
}
const csr = mintRequest()

type Run = (context: TestContext) => Promise<unknown>

describe('one record for the call', () => {
  test.each<[string, Run, LogFields]>([
    ['CountAgents', (c) => agents.countAgents({ filter: agentFilter }, c), agentFilterFields],
    [
      'ListAgents',
      (c) => agents.listAgents({ ...page, filter: agentFilter }, c),
      agentFilterFields,
    ],
    ['ListAgents without filter', (c) => agents.listAgents({ ...page, filter: undefined }, c), {}],
    [
      'GetAgent',
      (c) => agents.getAgent({ id: agentId, outputMask: undefined }, c),
      { spiffe_id: AGENT_ID },
    ],
    ['DeleteAgent', (c) => agents.deleteAgent({ id: agentId }, c), { spiffe_id: AGENT_ID }],
    ['BanAgent', (c) => agents.banAgent({ id: agentId }, c), { spiffe_id: AGENT_ID }],
    ['RenewAgent', (c) => agents.renewAgent({ params: { csr: CSR } }, c), { csr: sha256(CSR) }],
    [
      'PostStatus',
      (c) => agents.postStatus({ currentBundleSerial: 0n, agentVersion: '1.2' }, c),
      { spiffe_id: AGENT_ID, agent_version: '1.2' },
    ],
    [
      'CreateJoinToken',
      (c) => createJoinToken(ports, CreateJoinTokenRequest.create({ ttl: 5, agentId: webId }), c),
      { ttl: 5, spiffe_id: 'spiffe://example.org/web' },
    ],
    ['CountEntries', (c) => entries.countEntries({ filter: entryFilter }, c), entryFilterFields],
    [
      'ListEntries',
      (c) => entries.listEntries({ ...page, filter: entryFilter }, c),
      entryFilterFields,
    ],
    ['CountEntries without filter', (c) => entries.countEntries({ filter: undefined }, c), {}],
    [
      'GetEntry',
      (c) => entries.getEntry({ id: 'web', outputMask: undefined }, c),
      { entry_id: 'web' },
    ],
    ['GetAuthorizedEntries', (c) => entries.getAuthorizedEntries({ outputMask: undefined }, c), {}],
    ['CountBundles', (c) => bundles.countBundles({}, c), {}],
    [
      'GetBundle',
      (c) => bundles.getBundle({ outputMask: undefined }, c),
      { trust_domain_id: 'example.org' },
    ],
    [
      'AppendBundle',
      (c) =>
        bundles.appendBundle(
          {
            x509Authorities: [],
            jwtAuthorities: [KEY],
            witAuthorities: [],
            outputMask: undefined,
          },
          c,
        ),
      Object.fromEntries(Object.entries(keyFields).map(([name, value]) => [`${name}.0`, value])),
    ],
    [
      'PublishJWTAuthority',
      (c) => bundles.publishJwtAuthority({ jwtAuthority: KEY }, c),
      keyFields,
    ],
    ['ListFederatedBundles', (c) => bundles.listFederatedBundles(page, c), {}],
    [
      'GetFederatedBundle',
      (c) => bundles.getFederatedBundle({ trustDomain: 'other.org', outputMask: undefined }, c),
      { trust_domain_id: 'other.org' },
    ],
    [
      'MintX509SVID',
      (c) => mintX509Svid(ports, { csr, ttl: 7 }, c),
      {
        csr: sha256(csr),
        ttl: 7,
        spiffe_id: 'spiffe://example.org/web',
        dns_name: 'a.org,b.org',
        subject: 'C=US',
        expires_at: new Date((NOW + 60) * 1000).toISOString().replace('.000Z', 'Z'),
      },
    ],
    [
      'MintJWTSVID',
      (c) => mintJwtSvid(ports, { id: webId, audience: ['a', 'b'], ttl: 7 }, c),
      { spiffe_id: 'spiffe://example.org/web', audience: 'a,b', ttl: 7 },
    ],
    [
      'NewJWTSVID',
      (c) => newJwtSvid(ports, { entryId: 'web', audience: ['a', 'b'] }, c),
      { entry_id: 'web', spiffe_id: 'spiffe://example.org/web', audience: 'a,b', ttl: 30 },
    ],
  ])('%s', async (_name, run, fields) => {
    const context = contextOf(AGENT_CALLER)
    await run(context)
    expect(context.records).toEqual([{ error: undefined, fields }])
  })

  test('what a filter asked for is on record even when it is refused', async () => {
    const context = contextOf(ADMIN)
    const filter = ListEntriesRequest_Filter.create({ bySelectors: { match: 1, selectors: [] } })
    await expect(entries.countEntries({ filter }, context)).rejects.toMatchObject({
      kind: 'invalid_argument',
    })
    // The door writes the record then.
    context.audit.failure(new SignetError('invalid_argument', 'x', 'x'))
    expect(context.records[0]?.fields).toEqual({
      by_selector_match: 'MATCH_SUBSET',
      by_selectors: '',
    })
  })

  test('an ID that is none, or may not be asked for, is no field', async () => {
    const context = contextOf(ADMIN)
    const bySpiffeId = { trustDomain: 'UPPER', path: '/x' }
    const byParentId = { trustDomain: 'other.org', path: '/x' }
    const filter = ListEntriesRequest_Filter.create({ bySpiffeId, byParentId, byHint: 'h' })
    await expect(entries.countEntries({ filter }, context)).rejects.toThrow()
    context.audit.failure(new SignetError('invalid_argument', 'x', 'x'))
    expect(context.records[0]?.fields).toEqual({ hint: 'h' })
  })
})

describe('one record for each item', () => {
  const refused = new SignetError('not_found', 'x', 'x')

  test('entries: what was given, masked by what is changed', async () => {
    const handlers = createEntryHandlers(
      portsWith({
        entryStore: {
          createEntries: async (drafts) => drafts.map(() => ({ ok: false, error: refused })),
          updateEntries: async (patches) =>
            patches.map(({ id }) => ({ ok: true, value: entryOf(id) })),
          deleteEntries: async (ids) =>
            ids.map((id, i) => (i === 0 ? { ok: true, value: id } : { ok: false, error: refused })),
        },
      }),
    )
    const entry: Entry = {
      ...entryToProto(
        entryOf('web', {
          federatesWith: ['a.org', 'b.org'],
          dnsNames: ['x.org', 'y.org'],
          hint: 'h',
          expiresAt: 9,
          revisionNumber: 3n,
        }),
      ),
    }
    const context = contextOf(ADMIN)
    await handlers.batchCreateEntry({ entries: [entry], outputMask: undefined }, context)
    const inputMask = EntryMask.create({ hint: true })
    await handlers.batchUpdateEntry({ entries: [entry], inputMask, outputMask: undefined }, context)
    await handlers.batchDeleteEntry({ ids: ['a', 'b'] }, context)
    expect(context.records.map(({ error, fields }) => [error?.kind, fields])).toEqual([
      [
        'not_found',
        {
          entry_id: 'web',
          spiffe_id: 'spiffe://example.org/web',
          parent_id: AGENT_ID,
          selectors: 'unix:uid:1',
          x509_svid_ttl: 60,
          jwt_svid_ttl: 30,
          federates_with: 'a.org,b.org',
          admin: false,
          downstream: false,
          expires_at: 9,
          dns_name: 'x.org,y.org',
          revision_number: 3,
          store_svid: false,
          hint: 'h',
          created_at: NOW,
        },
      ],
      [undefined, { entry_id: 'web', hint: 'h' }],
      [undefined, { entry_id: 'a' }],
      ['not_found', { entry_id: 'b' }],
    ])
  })

  test('federated bundles', async () => {
    const stored = { ...BUNDLE, trustDomain: 'other.org' }
    const handlers = createFederatedBundleHandlers(
      portsWith({
        bundleStore: {
          createBundle: async () => stored,
          updateBundle: async () => stored,
          setBundle: () => Promise.reject(refused),
          deleteBundle: async () => {},
        },
      }),
    )
    const bundle = Bundle.create({
      trustDomain: 'other.org',
      refreshHint: 5n,
      sequenceNumber: 2n ** 63n,
      jwtAuthorities: [KEY],
    })
    const context = contextOf(ADMIN)
    const inputMask = BundleMask.create({ refreshHint: true })
    const outputMask = undefined
    await handlers.batchCreateFederatedBundle({ bundle: [bundle], outputMask }, context)
    await handlers.batchUpdateFederatedBundle({ bundle: [bundle], inputMask, outputMask }, context)
    await handlers.batchSetFederatedBundle({ bundle: [bundle], outputMask }, context)
    await handlers.batchDeleteFederatedBundle({ trustDomains: ['other.org'], mode: 2 }, context)
    const all = {
      trust_domain_id: 'other.org',
      refresh_hint: 5,
      sequence_number: '9223372036854775808',
      'jwt_authority_expires_at.0': 9,
      'jwt_authority_key_id.0': 'kid',
      'jwt_authority_public_key_sha256.0': sha256(PUBLIC_KEY),
    }
    expect(context.records.map(({ error, fields }) => [error?.kind, fields])).toEqual([
      [undefined, all],
      [undefined, { trust_domain_id: 'other.org', refresh_hint: 5 }],
      ['not_found', all],
      [undefined, { trust_domain_id: 'other.org', mode: new TwoForms('DISSOCIATE', 2) }],
    ])
  })

  test('certificates', async () => {
    const context = contextOf(AGENT_CALLER)
    const params = [
      { entryId: 'web', csr: CSR },
      { entryId: '', csr: CSR },
    ]
    await batchNewX509Svid(ports, { message: new Uint8Array(), params }, context)
    expect(context.records.map(({ error, fields }) => [error?.kind, fields])).toEqual([
      [
        undefined,
        {
          csr: sha256(CSR),
          entry_id: 'web',
          spiffe_id: 'spiffe://example.org/web',
          expires_at: NOW + 60,
        },
      ],
      ['invalid_argument', { csr: sha256(CSR), entry_id: '', spiffe_id: '' }],
    ])
  })
})

describe('the line', () => {
  const local = connectionOf({
    transport: 'uds',
    process: { pid: 1, uid: 1000, gid: 1001, path: '/bin/cli' },
  })
  const base = { type: 'audit', caller_uid: 1000, caller_gid: 1001, caller_path: '/bin/cli' }
  const error = new SignetError('failed_precondition', 'x', 'not now')
  const status = {
    status: 'error',
    status_code: new TwoForms('FailedPrecondition', 9),
    status_message: 'not now',
  }

  test('says who, what, and how it ended; items stand without the fields of the call', () => {
    const log = createMemoryLog()
    const audit = createAudit(log, local)
    audit.add(() => ({ a: 1 }))
    audit.add(() => ({ b: 2 }))
    audit.success(() => ({ c: 3 }))
    audit.failure(error)
    audit.item(undefined, () => ({ entry_id: 'x' }))
    audit.item(error, () => ({ entry_id: 'y' }))
    expect(log.lines.map(({ message }) => message)).toEqual(Array(4).fill('API accessed'))
    expect(log.lines.map(({ level }) => level)).toEqual(Array(4).fill('info'))
    expect(log.lines.map(({ fields }) => fields)).toEqual([
      { ...base, status: 'success', a: 1, b: 2, c: 3 },
      { ...base, ...status, a: 1, b: 2 },
      { ...base, status: 'success', entry_id: 'x' },
      { ...base, ...status, entry_id: 'y' },
    ])
  })

  test('a remote caller is named by the log it goes to', () => {
    const log = createMemoryLog()
    createAudit(log.with({ caller_id: AGENT_ID }), connectionOf({})).success()
    expect(log.lines[0]?.fields).toEqual({ caller_id: AGENT_ID, type: 'audit', status: 'success' })
  })

  test('numbers and match behaviors', () => {
    expect([integerField(-1n), integerField(2n ** 53n)]).toEqual([-1, '9007199254740992'])
    expect([matchField(1), matchField(9)]).toEqual(['MATCH_SUBSET', '9'])
  })
})
