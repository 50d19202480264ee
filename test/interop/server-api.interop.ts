/**
 * Suites node-attestation, join-token, admin-endpoints, sync-authorized-entries and debug-endpoints on
 * the raw API, run against SPIRE's server and ours: the same calls must end in the same codes.
 */
import { generateKeyPairSync, type KeyObject } from 'node:crypto'
import { Client, credentials, type ServiceError, status } from '@grpc/grpc-js'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import {
  AgentClient,
  AgentService,
  ListAgentsRequest,
  type RenewAgentResponse,
} from '../../src/wire/gen/spire/api/server/agent/v1/agent.ts'
import {
  type BatchSetFederatedBundleResponse,
  BundleClient,
} from '../../src/wire/gen/spire/api/server/bundle/v1/bundle.ts'
import {
  DebugClient,
  type GetInfoResponse,
} from '../../src/wire/gen/spire/api/server/debug/v1/debug.ts'
import {
  type BatchCreateEntryResponse,
  EntryClient,
  EntryService,
  type GetAuthorizedEntriesResponse,
  ListEntriesRequest,
  type SyncAuthorizedEntriesResponse,
} from '../../src/wire/gen/spire/api/server/entry/v1/entry.ts'
import {
  type BatchNewX509SVIDResponse,
  SVIDClient,
} from '../../src/wire/gen/spire/api/server/svid/v1/svid.ts'
import { Bundle } from '../../src/wire/gen/spire/api/types/bundle.ts'
import { Entry } from '../../src/wire/gen/spire/api/types/entry.ts'
import { until } from '../rigs/until.ts'
import { attestWithToken, channelTo, derToPem, makeCsr, type RawIdentity } from './raw-client.ts'
import { Deployment, type Product } from './rig.ts'

const identity = (bytes: Buffer) => bytes

type Callback<T> = (error: ServiceError | null, value: T) => void

/** Resolves with the answer, or with the code and text of the refusal. */
function call<T>(
  start: (callback: Callback<T>) => unknown,
): Promise<{ value?: T; code: number; details: string; reason?: string | undefined }> {
  return new Promise((resolve) => {
    start((error, value) => {
      if (error === null) return resolve({ value, code: status.OK, details: '' })
      resolve({ code: error.code, details: error.details, reason: denialReason(error) })
    })
  })
}

/** The one byte that names the reason in PermissionDeniedDetails, wherever it lies in the trailer. */
function denialReason(error: ServiceError): string | undefined {
  const raw = error.metadata.get('grpc-status-details-bin')[0]
  if (!Buffer.isBuffer(raw)) return undefined
  const at = raw.indexOf('PermissionDeniedDetails')
  return at < 0 ? undefined : `reason ${raw[raw.length - 1]}`
}

describe.each<Product>(['spire', 'signet'])('the API of the %s server', (product) => {
  let deployment: Deployment
  let address: string
  let roots: string

  beforeAll(async () => {
    deployment = await Deployment.create(product)
    await deployment.startServer({
      server: 'admin_ids = ["spiffe://example.org/static-admin"]',
    })
    address = `localhost:${deployment.port}`
    roots = await deployment.serverOk(['bundle', 'show'])
  })
  afterAll(async () => {
    await deployment?.[Symbol.asyncDispose]()
  })

  const attest = async (): Promise<RawIdentity> =>
    attestWithToken(address, roots, await deployment.joinToken(), deployment.dir)

  test('join token: attest, renew, old and new both serve, ban, renew refused', async () => {
    const identity = await attest()
    const client = new AgentClient(address, channelTo(roots, identity))
    const renewal = await makeCsr(deployment.dir)
    const renewed = await call<RenewAgentResponse>((cb) =>
      client.renewAgent({ params: { csr: renewal.csr } }, cb),
    )
    expect(renewed.code).toBe(status.OK)
    const status2 = await call((cb) =>
      client.postStatus({ currentBundleSerial: 0n, agentVersion: '' }, cb),
    )
    expect(status2.code).toBe(status.OK)

    const next = new AgentClient(
      address,
      channelTo(roots, {
        spiffeId: identity.spiffeId,
        keyPem: renewal.keyPem,
        chainPem: (renewed.value?.svid?.certChain ?? []).map(derToPem).join(''),
      }),
    )
    const promoted = await call((cb) =>
      next.postStatus({ currentBundleSerial: 0n, agentVersion: '' }, cb),
    )
    expect(promoted.code).toBe(status.OK)
    const old = await call((cb) =>
      client.postStatus({ currentBundleSerial: 0n, agentVersion: '' }, cb),
    )
    expect(old).toMatchObject({ code: status.PERMISSION_DENIED, reason: 'reason 3' })

    await deployment.serverOk(['agent', 'ban', '-spiffeID', identity.spiffeId])
    const banned = await call((cb) => next.renewAgent({ params: { csr: renewal.csr } }, cb))
    expect(banned).toMatchObject({ code: status.PERMISSION_DENIED, reason: 'reason 4' })
    expect(banned.details).toBe(
      'authorization denied for method /spire.api.server.agent.v1.Agent/RenewAgent',
    )
    await deployment.serverOk(['agent', 'evict', '-spiffeID', identity.spiffeId])
    const evicted = await call((cb) => next.renewAgent({ params: { csr: renewal.csr } }, cb))
    expect(evicted).toMatchObject({ code: status.PERMISSION_DENIED, reason: 'reason 2' })
    client.close()
    next.close()
  })

  test('a join token is good once, an unknown one never', async () => {
    const token = await deployment.joinToken()
    await attestWithToken(address, roots, token, deployment.dir)
    for (const used of [token, 'never-issued']) {
      await expect(attestWithToken(address, roots, used, deployment.dir)).rejects.toMatchObject({
        code: status.INVALID_ARGUMENT,
        details: 'failed to attest: join token does not exist or has already been used',
      })
    }
  })

  test('of many who redeem one token at once, one wins', async () => {
    const token = await deployment.joinToken()
    const racers = Array.from({ length: 8 }, () =>
      attestWithToken(address, roots, token, deployment.dir).then(
        () => true,
        () => false,
      ),
    )
    const won = (await Promise.all(racers)).filter(Boolean)
    expect(won).toHaveLength(1)
  })

  test('who has no certificate may attest and read the bundle, nothing else', async () => {
    const anonymous = channelTo(roots)
    const bundle = await call((cb) =>
      new BundleClient(address, anonymous).getBundle({ outputMask: undefined }, cb),
    )
    expect(bundle.code).toBe(status.OK)
    const entries = await call((cb) =>
      new EntryClient(address, anonymous).countEntries({ filter: undefined }, cb),
    )
    expect(entries).toMatchObject({
      code: status.PERMISSION_DENIED,
      details: 'authorization denied for method /spire.api.server.entry.v1.Entry/CountEntries',
    })
    expect(entries.reason).toBeUndefined()
    const agents = await call((cb) =>
      new AgentClient(address, anonymous).renewAgent({ params: undefined }, cb),
    )
    expect(agents.code).toBe(status.PERMISSION_DENIED)
  })

  test('admins by entry and by configuration may, workloads and agents may not', async () => {
    const counts = async (identity: RawIdentity) =>
      (
        await call((cb) =>
          new EntryClient(address, channelTo(roots, identity)).countEntries(
            { filter: undefined },
            cb,
          ),
        )
      ).code
    const agent = await attest()
    await deployment.createEntry([
      '-parentID',
      agent.spiffeId,
      '-spiffeID',
      'spiffe://example.org/admin',
      '-selector',
      'a:1',
      '-admin',
    ])
    await deployment.createEntry([
      '-parentID',
      agent.spiffeId,
      '-spiffeID',
      'spiffe://example.org/plain',
      '-selector',
      'a:2',
    ])
    expect(await counts(await mint('spiffe://example.org/static-admin'))).toBe(status.OK)
    expect(await counts(await mint('spiffe://example.org/admin'))).toBe(status.OK)
    expect(await counts(await mint('spiffe://example.org/plain'))).toBe(status.PERMISSION_DENIED)
    expect(await counts(agent)).toBe(status.PERMISSION_DENIED)
  })

  /** A workload identity minted by the administrator. */
  async function mint(spiffeId: string): Promise<RawIdentity> {
    const out = await deployment.serverOk(['x509', 'mint', '-spiffeID', spiffeId])
    const keyPem =
      /-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?-----END [A-Z ]*PRIVATE KEY-----/.exec(out)?.[0]
    const svidPart = out.slice(0, out.indexOf('Private key:'))
    const chain = svidPart.match(/-----BEGIN CERTIFICATE-----[\s\S]*?-----END CERTIFICATE-----/g)
    return { spiffeId, keyPem: keyPem ?? '', chainPem: (chain ?? []).join('\n') }
  }

  test('the Debug service is on the admin socket only', async () => {
    const local = new DebugClient(`unix:${deployment.serverSocket}`, credentials.createInsecure())
    const info = await call<GetInfoResponse>((cb) => local.getInfo({}, cb))
    expect(info.value?.svidChain[0]?.id?.path).toBe('/spire/server')
    const admin = await mint('spiffe://example.org/static-admin')
    const remote = await call((cb) =>
      new DebugClient(address, channelTo(roots, admin)).getInfo({}, cb),
    )
    expect(remote.code).toBe(status.UNIMPLEMENTED)
  })

  test('an agent gets its entries, and SVIDs for these alone', async () => {
    const identity = await attest()
    const other = await attest()
    const mine = await deployment.createEntry([
      '-parentID',
      identity.spiffeId,
      '-spiffeID',
      'spiffe://example.org/mine',
      '-selector',
      'a:1',
    ])
    const foreign = await deployment.createEntry([
      '-parentID',
      other.spiffeId,
      '-spiffeID',
      'spiffe://example.org/theirs',
      '-selector',
      'a:1',
    ])
    const entries = new EntryClient(address, channelTo(roots, identity))
    await until('the entry to be served', async () => {
      const got = await call<GetAuthorizedEntriesResponse>((cb) =>
        entries.getAuthorizedEntries({ outputMask: undefined }, cb),
      )
      return got.value?.entries.map((e) => e.id).join() === mine
    })
    const { csr } = await makeCsr(deployment.dir)
    const svids = new SVIDClient(address, channelTo(roots, identity))
    const batch = await call<BatchNewX509SVIDResponse>((cb) =>
      svids.batchNewX509Svid(
        {
          params: [
            { entryId: mine, csr },
            { entryId: foreign, csr },
            { entryId: 'no-such', csr },
            { entryId: '', csr },
            { entryId: mine, csr: new Uint8Array() },
            { entryId: mine, csr: csr.subarray(0, csr.length - 1) },
          ],
        },
        cb,
      ),
    )
    const codes = batch.value?.results.map((r) => r.status?.code)
    expect(codes).toEqual([
      status.OK,
      status.NOT_FOUND,
      status.NOT_FOUND,
      status.INVALID_ARGUMENT,
      status.INVALID_ARGUMENT,
      status.INVALID_ARGUMENT,
    ])
    expect(batch.value?.results[1]?.status?.message).toBe('entry not found or not authorized')
    const none = await call((cb) => svids.batchNewX509Svid({ params: [] }, cb))
    expect(none).toMatchObject({ code: status.INVALID_ARGUMENT })
    expect(none.details).toContain('missing parameters')
  })

  /** The same bytes to both servers: what no client of theirs would send. */
  const sent = (path: string, bytes: Uint8Array) =>
    call<Buffer>((cb) => {
      const client = new Client(`unix:${deployment.serverSocket}`, credentials.createInsecure())
      client.makeUnaryRequest(path, identity, identity, Buffer.from(bytes), cb as never)
    })

  test.each(['18446744073709551616', '9223372036854775808', 'x', '-1', '1_0'])(
    'page token %s is refused',
    async (pageToken) => {
      const page = { pageSize: 1, pageToken }
      const agents = ListAgentsRequest.encode(ListAgentsRequest.create(page)).finish()
      expect(await sent(AgentService.listAgents.path, agents)).toMatchObject({
        code: status.INTERNAL,
        details: `failed to list agents: could not parse token '${pageToken}'`,
      })
      const entries = ListEntriesRequest.encode(ListEntriesRequest.create(page)).finish()
      const store = 'datastore-sql: rpc error: code = InvalidArgument desc = '
      expect(await sent(EntryService.listEntries.path, entries)).toMatchObject({
        code: status.INTERNAL,
        details: `failed to list entries: ${store}could not parse token '${pageToken}'`,
      })
    },
  )

  test('an unknown match behaviour is internal, an empty set comes first', async () => {
    const match = 99 as 0
    const selectors = [{ type: 'a', value: 'b' }]
    const agents = (bySelectorMatch: object) =>
      ListAgentsRequest.encode(ListAgentsRequest.create({ filter: { bySelectorMatch } })).finish()
    const unknown = await sent(AgentService.listAgents.path, agents({ selectors, match }))
    expect(unknown.code).toBe(status.INTERNAL)
    expect(unknown.details).toMatch(
      /^failed to list agents: datastore-sql: unhandled match behavior /,
    )
    const empty = await sent(AgentService.listAgents.path, agents({ match }))
    expect(empty.details).toBe('failed to list agents: cannot list by empty selectors set')
    const filter = { bySelectors: { selectors, match } }
    const entries = ListEntriesRequest.encode(ListEntriesRequest.create({ filter })).finish()
    const refused = await sent(EntryService.listEntries.path, entries)
    expect(refused.code).toBe(status.INTERNAL)
    expect(refused.details).toMatch(
      /^failed to list entries: .*unhandled selectors match behavior /,
    )
  })

  test.each(['00', '7c', '0a02fffe', '0a28', '12030a056161616161'])(
    'bytes that are no message are refused: %s',
    async (hex) => {
      const answer = await sent(EntryService.getEntry.path, Buffer.from(hex, 'hex'))
      expect(answer.code).toBe(status.INTERNAL)
    },
  )

  test('what is not there is named', async () => {
    expect(await sent('/no.such.Service/Foo', new Uint8Array())).toMatchObject({
      code: status.UNIMPLEMENTED,
      details: 'unknown service no.such.Service',
    })
    expect(await sent('/spire.api.server.entry.v1.Entry/Foo', new Uint8Array())).toMatchObject({
      details: 'unknown method Foo for service spire.api.server.entry.v1.Entry',
    })
  })

  test('the same selector or DNS name twice, and bad names, fail their items alone', async () => {
    const entry = (change: Partial<Entry>) =>
      Entry.create({
        spiffeId: { trustDomain: 'example.org', path: '/twice' },
        parentId: { trustDomain: 'example.org', path: '/parent' },
        selectors: [{ type: 'a', value: '1' }],
        ...change,
      })
    const one = { type: 'b', value: '2' }
    const client = new EntryClient(`unix:${deployment.serverSocket}`, credentials.createInsecure())
    const created = await call<BatchCreateEntryResponse>((cb) =>
      client.batchCreateEntry(
        {
          entries: [
            entry({ selectors: [one, one] }),
            entry({ dnsNames: ['a.test', 'a.test'] }),
            entry({ dnsNames: ['a..b'] }),
            entry({}),
            entry({
              selectors: [
                { type: 'a', value: '1' },
                { type: 'a', value: '1' },
              ],
            }),
          ],
          outputMask: undefined,
        },
        cb,
      ),
    )
    const [selector, name, bad, good, similar] = created.value?.results ?? []
    expect(selector?.status?.code).toBe(status.ALREADY_EXISTS)
    expect(selector?.entry).toBeUndefined()
    expect(name?.status?.code).toBe(status.ALREADY_EXISTS)
    expect(bad?.status).toEqual({
      code: status.INVALID_ARGUMENT,
      message: 'failed to convert entry: invalid DNS name: idna error\nidna: invalid label "a..b"',
    })
    expect(good?.status?.code).toBe(status.OK)
    expect(similar?.status).toEqual({
      code: status.ALREADY_EXISTS,
      message: 'similar entry already exists',
    })
    client.close()
  })

  test.each([
    ['ec', { namedCurve: 'P-224' }, status.OK],
    ['rsa', { modulusLength: 1024 }, status.OK],
    ['ec', { namedCurve: 'secp256k1' }, status.INVALID_ARGUMENT],
    ['ec', { namedCurve: 'P-256', paramEncoding: 'explicit' }, status.INVALID_ARGUMENT],
    ['ed448', {}, status.INVALID_ARGUMENT],
    ['rsa-pss', { modulusLength: 2048 }, status.INVALID_ARGUMENT],
  ])('a JWT authority of kind %s %o', async (type, options, code) => {
    const make = generateKeyPairSync as unknown as (
      type: string,
      options: object,
    ) => { publicKey: KeyObject }
    const publicKey = make(type, options).publicKey.export({ type: 'spki', format: 'der' })
    const client = new BundleClient(`unix:${deployment.serverSocket}`, credentials.createInsecure())
    const bundle = Bundle.create({
      trustDomain: 'keys.test',
      jwtAuthorities: [{ publicKey, keyId: 'k' }],
    })
    const set = await call<BatchSetFederatedBundleResponse>((cb) =>
      client.batchSetFederatedBundle({ bundle: [bundle], outputMask: undefined }, cb),
    )
    expect(set.value?.results[0]?.status?.code).toBe(code)
    client.close()
  })

  test('1,200 entries come by revisions first, then in pages', async () => {
    const identity = await attest()
    const made = JSON.stringify({
      entries: Array.from({ length: 1200 }, (_, i) => ({
        parent_id: identity.spiffeId,
        spiffe_id: `spiffe://example.org/sync/${i}`,
        selectors: [{ type: 'unix', value: `uid:${i}` }],
      })),
    })
    const created = await deployment.server(['entry', 'create', '-data', '-'], product, {
      input: made,
    })
    expect(created.code).toBe(0)
    const client = new EntryClient(address, channelTo(roots, identity))
    const ids = await until('all entries', async () => {
      const got = await firstRevisions(client)
      return got.ids.length === 1200 ? got : undefined
    })
    expect(ids.pages).toBeGreaterThan(1)
    expect(new Set(ids.ids).size).toBe(1200)
    expect(await fetchByIds(client, ids.ids.slice(0, 700))).toBe(700)
  })

  function firstRevisions(client: EntryClient): Promise<{ ids: string[]; pages: number }> {
    return new Promise((resolve, reject) => {
      const stream = client.syncAuthorizedEntries()
      const ids: string[] = []
      let pages = 0
      stream.on('data', (page: SyncAuthorizedEntriesResponse) => {
        pages += 1
        ids.push(...page.entryRevisions.map((r) => r.id))
        if (!page.more) {
          stream.end()
          resolve({ ids, pages })
        }
      })
      stream.on('error', reject)
      stream.write({ outputMask: undefined, ids: [] })
    })
  }

  function fetchByIds(client: EntryClient, wanted: readonly string[]): Promise<number> {
    return new Promise((resolve, reject) => {
      const stream = client.syncAuthorizedEntries()
      let revisions = true
      let entries = 0
      stream.on('data', (page: SyncAuthorizedEntriesResponse) => {
        entries += page.entries.length
        if (page.more) return
        if (revisions) {
          revisions = false
          stream.write({ outputMask: undefined, ids: [...wanted] })
        } else {
          stream.end()
          resolve(entries)
        }
      })
      stream.on('error', reject)
      stream.write({ outputMask: undefined, ids: [] })
    })
  }
})
