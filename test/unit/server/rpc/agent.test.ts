import { describe, expect, test } from 'vitest'
import { SignetError } from '../../../../src/base/error.ts'
import type { Connection } from '../../../../src/server/connection.ts'
import type { AgentFilter, EntryDraft, JoinToken } from '../../../../src/server/ports.ts'
import { createAgentHandlers } from '../../../../src/server/rpc/agent/v1/handlers.ts'
import { createJoinToken } from '../../../../src/server/rpc/agent/v1/join-token.ts'
import type { HandlerPorts } from '../../../../src/server/rpc/ports.ts'
import { SpiffeId } from '../../../../src/spiffe/spiffe-id.ts'
import { agentToProto } from '../../../../src/wire/convert/agent.ts'
import {
  CreateJoinTokenRequest,
  ListAgentsRequest,
} from '../../../../src/wire/gen/spire/api/server/agent/v1/agent.ts'
import {
  ADMIN,
  AGENT,
  AGENT_CALLER,
  connectionOf,
  contextOf,
  issuanceStub,
  NOW,
  portsWith,
} from './rig.ts'

const AGENT_PROTO_ID = { trustDomain: 'example.org', path: AGENT.id.path }
const missing = new SignetError('not_found', 'x', 'hidden')
const away = new SignetError('unavailable', 'database', 'database is unavailable')
const CSR = Uint8Array.of(1, 2, 3)

type Store = Partial<HandlerPorts['agentStore']>

function handlersWith(agentStore: Store, rest: Parameters<typeof portsWith>[0] = {}) {
  return createAgentHandlers(portsWith({ agentStore, ...rest }))
}

describe('administration', () => {
  test('GetAgent', async () => {
    const { getAgent } = handlersWith({
      getAgent: async (id) => (id.equals(AGENT.id) ? AGENT : undefined),
    })
    const get = (path: string) =>
      getAgent(
        { id: { trustDomain: 'example.org', path }, outputMask: undefined },
        contextOf(ADMIN),
      )
    expect(await get(AGENT.id.path)).toEqual(agentToProto(AGENT))
    await expect(get('/spire/agent/x/2')).rejects.toMatchObject({
      kind: 'not_found',
      message: 'agent not found',
    })
    await expect(get('/web')).rejects.toMatchObject({
      kind: 'invalid_argument',
      message: expect.stringMatching(/^invalid agent ID: .*not in the agent namespace$/),
    })
  })

  describe.each(['banAgent', 'deleteAgent'] as const)('%s', (method) => {
    const verb = method === 'banAgent' ? 'ban' : 'remove'

    test('acts on the store, then ends the agent’s connections', async () => {
      const steps: string[] = []
      const act = async (id: SpiffeId) => void steps.push(`store ${id}`)
      const connections = {
        closeWhere: (matches: (connection: Connection) => boolean) => {
          const other = SpiffeId.parse('spiffe://example.org/spire/agent/x509pop/two')
          steps.push(`close ${matches(connectionOf({ spiffeId: AGENT.id }))}`)
          steps.push(`keep ${!matches(connectionOf({ spiffeId: other }))}`)
          steps.push(`keep ${!matches(connectionOf({}))}`)
        },
      }
      const handlers = handlersWith({ banAgent: act, deleteAgent: act }, { connections })
      const context = contextOf(ADMIN)
      expect(await handlers[method]({ id: AGENT_PROTO_ID }, context)).toEqual({})
      expect(steps).toEqual([`store ${AGENT.id}`, 'close true', 'keep true', 'keep true'])
      const line = method === 'banAgent' ? 'Agent banned' : 'Agent deleted'
      expect(context.log.lines[0]).toMatchObject({
        level: 'info',
        message: line,
        fields: { spiffe_id: AGENT.id.toString() },
      })
      expect(context.records).toHaveLength(1)
    })

    test.each([
      [missing, 'not_found', 'agent not found'],
      [away, 'unavailable', `failed to ${verb} agent: database is unavailable`],
    ])('fails with its own words: %#', async (error, kind, message) => {
      const fail = () => Promise.reject(error)
      const handlers = handlersWith({ banAgent: fail, deleteAgent: fail })
      const acting = handlers[method]({ id: AGENT_PROTO_ID }, contextOf(ADMIN))
      await expect(acting).rejects.toMatchObject({ kind, message })
    })
  })
})

describe('ListAgents and CountAgents', () => {
  function listing() {
    const filters: AgentFilter[] = []
    const handlers = handlersWith({
      listAgents: async (filter) => {
        filters.push(filter)
        return { rows: [AGENT], nextToken: '3' }
      },
      countAgents: async (filter) => {
        filters.push(filter)
        return 4
      },
    })
    return { handlers, filters }
  }

  test('pass the whole filter on', async () => {
    const { handlers, filters } = listing()
    const request = ListAgentsRequest.create({
      filter: {
        byAttestationType: 'x509pop',
        bySelectorMatch: { selectors: [{ type: 'a', value: 'b' }], match: 1 },
        byBanned: false,
        byCanReattest: true,
        byExpiresBefore: '2026-01-31 10:00:00 +0000 +00',
      },
      outputMask: { canReattest: true },
    })
    const context = contextOf(ADMIN)
    const response = await handlers.listAgents(request, context)
    expect(response.nextPageToken).toBe('3')
    expect(response.agents).toEqual([agentToProto(AGENT, request.outputMask)])
    expect(await handlers.countAgents({ filter: request.filter }, context)).toEqual({ count: 4 })
    expect(filters[0]).toEqual({
      attestationType: 'x509pop',
      selectors: { keys: ['a:b'], match: 'subset' },
      banned: false,
      canReattest: true,
      expiresBefore: 1_769_853_600,
    })
    expect(filters[1]).toEqual(filters[0])
    expect(context.records[0]?.fields).toEqual({
      node_attestor_type: 'x509pop',
      by_banned: false,
      by_can_reattest: true,
      by_selector_match: 'MATCH_SUBSET',
      by_selectors: 'a:b',
    })
  })

  test.each(['', 'yesterday', '0001-01-01 00:00:00 +0000 +00'])(
    'no filter, and %j as a time, filter nothing',
    async (byExpiresBefore) => {
      const { handlers, filters } = listing()
      await handlers.listAgents(ListAgentsRequest.create(), contextOf(ADMIN))
      const request = ListAgentsRequest.create({ filter: { byExpiresBefore } })
      await handlers.listAgents(request, contextOf(ADMIN))
      expect(filters).toEqual([{}, {}])
    },
  )

  test('an empty selector set is internal, a malformed selector is not', async () => {
    const { handlers } = listing()
    const empty = ListAgentsRequest.create({ filter: { bySelectorMatch: {} } })
    await expect(handlers.listAgents(empty, contextOf(ADMIN))).rejects.toMatchObject({
      kind: 'internal',
      message: 'failed to list agents: cannot list by empty selectors set',
    })
    await expect(
      handlers.countAgents({ filter: empty.filter }, contextOf(ADMIN)),
    ).rejects.toMatchObject({
      message: 'failed to count agents: cannot list by empty selectors set',
    })
    const unknown = ListAgentsRequest.create({
      filter: { bySelectorMatch: { selectors: [{ type: 'a', value: 'b' }], match: 4 as 0 } },
    })
    await expect(handlers.listAgents(unknown, contextOf(ADMIN))).rejects.toMatchObject({
      kind: 'internal',
      message: 'failed to list agents: datastore-sql: unhandled match behavior 4',
    })
    const bad = ListAgentsRequest.create({
      filter: { bySelectorMatch: { selectors: [{ type: 'a', value: '' }], match: 4 as 0 } },
    })
    await expect(handlers.listAgents(bad, contextOf(ADMIN))).rejects.toMatchObject({
      kind: 'invalid_argument',
      message: 'failed to parse selectors: missing selector value',
    })
  })
})

describe('RenewAgent', () => {
  test('stores the new serial beside the current one', async () => {
    const stored: unknown[] = []
    const issuance = issuanceStub()
    const handlers = handlersWith(
      {
        getAgent: async () => AGENT,
        setNewSerial: async (id, serial, expiresAt) => void stored.push(`${id}`, serial, expiresAt),
      },
      { issuance },
    )
    const context = contextOf(AGENT_CALLER)
    const { svid } = await handlers.renewAgent({ params: { csr: CSR } }, context)
    expect(svid).toEqual({
      id: AGENT_PROTO_ID,
      certChain: [Uint8Array.of(1), Uint8Array.of(2)],
      expiresAt: BigInt(NOW + 60),
      hint: '',
    })
    expect(stored).toEqual([AGENT.id.toString(), '256', NOW + 60])
    expect(issuance.orders[0]).toMatchObject({
      profile: 'agent',
      clusterId: 1,
      spiffeId: AGENT.id,
      ttlSeconds: 0,
      proof: true,
    })
  })

  test.each<[string, Store, Uint8Array | undefined, object]>([
    [
      'no row',
      { getAgent: async () => undefined },
      CSR,
      { kind: 'not_found', message: 'agent not found' },
    ],
    [
      'a reattestable agent, before its request is looked at',
      { getAgent: async () => ({ ...AGENT, canReattest: true }) },
      undefined,
      {
        kind: 'permission_denied',
        denial: 'agent_must_reattest',
        message: 'agent must reattest instead of renew',
      },
    ],
    [
      'no params',
      { getAgent: async () => AGENT },
      undefined,
      { kind: 'invalid_argument', message: 'params cannot be nil' },
    ],
    [
      'no CSR',
      { getAgent: async () => AGENT },
      new Uint8Array(),
      { kind: 'invalid_argument', message: 'missing CSR' },
    ],
    [
      'evicted meanwhile',
      { getAgent: async () => AGENT, setNewSerial: () => Promise.reject(missing) },
      CSR,
      { kind: 'not_found', message: 'agent not found' },
    ],
    [
      'a database that is away',
      { getAgent: () => Promise.reject(away) },
      CSR,
      { kind: 'unavailable', message: 'failed to fetch agent: database is unavailable' },
    ],
  ])('%s', async (_name, store, csr, expected) => {
    const handlers = handlersWith(store, { issuance: issuanceStub() })
    const request = { params: csr && { csr } }
    const renewal = handlers.renewAgent(request, contextOf(AGENT_CALLER))
    await expect(renewal).rejects.toMatchObject(expected)
  })

  test.each([
    ['malformed_csr', 'malformed CSR: malformed DER: x', 'failed to parse CSR: malformed DER: x'],
    ['bad_csr_signature', 'invalid CSR signature', 'failed to parse CSR: invalid CSR signature'],
  ])('%s', async (code, text, message) => {
    const error = new SignetError('invalid_argument', code, text)
    const issuance = { issueX509Svids: async () => [{ ok: false as const, error }] }
    const handlers = handlersWith({ getAgent: async () => AGENT }, { issuance })
    const renewal = handlers.renewAgent({ params: { csr: CSR } }, contextOf(AGENT_CALLER))
    await expect(renewal).rejects.toMatchObject({ kind: 'invalid_argument', code, message })
  })

  test('a signer that fails keeps its kind', async () => {
    const issuance = { issueX509Svids: async () => [{ ok: false as const, error: away }] }
    const handlers = handlersWith({ getAgent: async () => AGENT }, { issuance })
    const renewal = handlers.renewAgent({ params: { csr: CSR } }, contextOf(AGENT_CALLER))
    await expect(renewal).rejects.toMatchObject({
      kind: 'unavailable',
      message: 'failed to sign X509 SVID: database is unavailable',
    })
  })
})

describe('PostStatus', () => {
  const post = (agentVersion: string, store: Store = {}) =>
    handlersWith(store).postStatus(
      { agentVersion, currentBundleSerial: 7n },
      contextOf(AGENT_CALLER),
    )

  test('stores the version, if there is one', async () => {
    const versions: string[] = []
    const store = {
      setAgentVersion: async (_: SpiffeId, version: string) => void versions.push(version),
    }
    expect(await post('', {})).toEqual({})
    expect(await post('1.2.3', store)).toEqual({})
    expect(await post('x'.repeat(255), store)).toEqual({})
    expect(versions).toEqual(['1.2.3', 'x'.repeat(255)])
  })

  test('refuses a long one, and one of nobody', async () => {
    for (const long of ['x'.repeat(256), 'é'.repeat(128)]) {
      await expect(post(long)).rejects.toMatchObject({
        kind: 'invalid_argument',
        message: 'agent version is too long (max 255 characters)',
      })
    }
    const store = { setAgentVersion: () => Promise.reject(missing) }
    await expect(post('1', store)).rejects.toMatchObject({ message: 'agent not found' })
  })
})

describe('CreateJoinToken', () => {
  function creating(fail?: SignetError) {
    const created: { token: JoinToken; alias: EntryDraft | undefined }[] = []
    const joinTokenStore = {
      createJoinToken: async (token: JoinToken, alias: EntryDraft | undefined) => {
        if (fail !== undefined) throw fail
        created.push({ token, alias })
      },
    }
    const ports = portsWith({ joinTokenStore })
    const create = (request: Partial<CreateJoinTokenRequest>) =>
      createJoinToken(ports, CreateJoinTokenRequest.fromPartial(request), contextOf(ADMIN))
    return { create, created }
  }

  test('makes a random token with an expiry', async () => {
    const { create, created } = creating()
    const token = await create({ ttl: 600 })
    expect(token.value).toMatch(
      /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/,
    )
    expect(token.expiresAt).toBe(BigInt(NOW + 600))
    expect(created).toEqual([
      { token: { value: token.value, expiresAt: NOW + 600, clusterId: 2 }, alias: undefined },
    ])
  })

  test('with an agent ID, an alias entry comes along', async () => {
    const { create, created } = creating()
    const agentId = { trustDomain: 'example.org', path: '/node' }
    await create({ ttl: 1, token: 'given', agentId })
    const parent = 'spiffe://example.org/spire/agent/join_token/given'
    const alias = created[0]?.alias
    expect(`${alias?.spiffeId} ${alias?.parentId}`).toBe(`spiffe://example.org/node ${parent}`)
    expect(alias).toMatchObject({
      id: '',
      selectors: [{ type: 'spiffe_id', value: parent }],
      admin: false,
      downstream: false,
    })
  })

  test.each<[Partial<CreateJoinTokenRequest>, string | RegExp]>([
    [{ ttl: 0 }, 'ttl is required, you must provide one'],
    [{ ttl: -1 }, 'ttl is required, you must provide one'],
    [
      { ttl: 1, agentId: { trustDomain: 'example.org', path: '/spire/agent/x' } },
      /^invalid agent ID: .*reserved namespace$/,
    ],
    [{ ttl: 1, token: 'a/b' }, /^invalid token: /],
    [{ ttl: 1, token: '..' }, /^invalid token: /],
    [{ ttl: 1, token: 'x'.repeat(256) }, /^invalid token: /],
  ])('refused: %o', async (request, message) => {
    const { create, created } = creating()
    await expect(create(request)).rejects.toThrow(message)
    await expect(create(request)).rejects.toMatchObject({ kind: 'invalid_argument' })
    expect(created).toEqual([])
  })

  test('a taken one is internal, as in SPIRE', async () => {
    const { create } = creating(new SignetError('already_exists', 'x', 'token exists'))
    await expect(create({ ttl: 1, token: 'taken' })).rejects.toMatchObject({
      kind: 'internal',
      message: 'failed to create token: token exists',
    })
    const { create: later } = creating(away)
    await expect(later({ ttl: 1 })).rejects.toMatchObject({ kind: 'unavailable' })
  })
})
