import { describe, expect, test } from 'vitest'
import type { NodeAttestationContext } from '../../../../src/attestors/contract.ts'
import { SignetError } from '../../../../src/base/error.ts'
import {
  ATTESTATION_BYTES_MAX,
  ATTESTATION_CHALLENGES_MAX,
  NODE_SELECTORS_MAX,
} from '../../../../src/base/limits.ts'
import type { AgentAttestation, JoinToken } from '../../../../src/server/ports.ts'
import { createAttestHandler } from '../../../../src/server/rpc/agent/v1/attest.ts'
import type { Caller } from '../../../../src/server/rpc/context.ts'
import type { HandlerPorts } from '../../../../src/server/rpc/ports.ts'
import { SpiffeId } from '../../../../src/spiffe/spiffe-id.ts'
import {
  AttestAgentRequest,
  type AttestAgentResponse,
} from '../../../../src/wire/gen/spire/api/server/agent/v1/agent.ts'
import { AGENT, contextOf, issuanceStub, NOW, portsWith, streamOf } from './rig.ts'

const CSR = Uint8Array.of(9, 9)
const STRANGER: Caller = { kind: 'nobody', via: '' }
const away = new SignetError('unavailable', 'database', 'database is unavailable')
const bannedNow = new SignetError('permission_denied', 'agent_banned', 'banned')

const first = (type: string, payload: Uint8Array = Uint8Array.of(1)) =>
  AttestAgentRequest.create({ params: { data: { type, payload }, params: { csr: CSR } } })
const response = (...bytes: number[]) =>
  AttestAgentRequest.create({ challengeResponse: Uint8Array.from(bytes) })

interface Setup {
  readonly attest?: (context: NodeAttestationContext) => Promise<unknown>
  readonly token?: JoinToken | undefined
  readonly known?: typeof AGENT
  readonly recordFails?: SignetError
  readonly change?: Parameters<typeof portsWith>[0]
}

const ATTESTED = { agentId: AGENT.id, selectors: AGENT.selectors, canReattest: true }

function attesting(setup: Setup = {}) {
  const recorded: AgentAttestation[] = []
  const issuance = issuanceStub()
  const attest = setup.attest ?? (async () => ATTESTED)
  const ports = portsWith({
    issuance,
    nodeAttestors: new Map([['x509pop', { type: 'x509pop', attest }]]) as never,
    joinTokenStore: { redeemJoinToken: async () => setup.token },
    agentStore: {
      getAgent: async () => setup.known,
      recordAttestation: async (attestation) => {
        if (setup.recordFails !== undefined) throw setup.recordFails
        recorded.push(attestation)
        return AGENT
      },
    } satisfies Partial<HandlerPorts['agentStore']>,
    ...setup.change,
  })
  const context = contextOf(STRANGER)
  const handle = createAttestHandler(ports)
  const run = async (...requests: AttestAgentRequest[]) => {
    const stream = streamOf<AttestAgentRequest, AttestAgentResponse>(requests)
    await handle(stream, context)
    return stream.sent
  }
  return { run, recorded, issuance, context }
}

describe('the first message', () => {
  test.each([
    [[], 'failed to receive request from stream: EOF'],
    [[response(1)], 'malformed param: missing params'],
    [[AttestAgentRequest.create({ params: {} })], 'malformed param: missing attestation data'],
    [
      [AttestAgentRequest.create({ params: { data: {} } })],
      'malformed param: missing X509-SVID parameters',
    ],
    [
      [AttestAgentRequest.create({ params: { data: {}, params: {} } })],
      'malformed param: missing CSR',
    ],
    [[first('')], 'malformed param: missing attestation data type'],
    [[first('x509pop', new Uint8Array())], 'malformed param: missing attestation data payload'],
    [
      [first('x509pop', new Uint8Array(ATTESTATION_BYTES_MAX + 1))],
      'malformed param: attestation data payload is too large',
    ],
  ])('%#', async (requests, message) => {
    const { run, issuance } = attesting()
    await expect(run(...requests)).rejects.toMatchObject({ kind: 'invalid_argument', message })
    expect(issuance.orders).toEqual([])
  })

  test('a payload at the limit is taken', async () => {
    const { run } = attesting()
    expect(await run(first('x509pop', new Uint8Array(ATTESTATION_BYTES_MAX)))).toHaveLength(1)
  })

  test('an unknown attestor', async () => {
    await expect(attesting().run(first('aws_iid'))).rejects.toMatchObject({
      kind: 'failed_precondition',
      message: 'error getting node attestor: could not find node attestor type "aws_iid"',
    })
  })
})

describe('an attestor', () => {
  test('challenges as often as it likes, and the agent gets its certificate', async () => {
    const { run, recorded, issuance, context } = attesting({
      attest: async ({ payload, challenge, remoteIp }) => {
        expect([...payload]).toEqual([1])
        expect(remoteIp).toBe('10.0.0.1')
        expect([...(await challenge(Uint8Array.of(5)))]).toEqual([6])
        expect([...(await challenge(new Uint8Array()))]).toEqual([])
        return ATTESTED
      },
    })
    const sent = await run(first('x509pop'), response(6), response())
    expect(sent).toEqual([
      { challenge: Uint8Array.of(5) },
      { challenge: new Uint8Array() },
      {
        result: {
          svid: {
            id: { trustDomain: 'example.org', path: AGENT.id.path },
            certChain: [Uint8Array.of(1), Uint8Array.of(2)],
            expiresAt: BigInt(NOW + 60),
            hint: '',
          },
          reattestable: true,
        },
      },
    ])
    // Names come from the attestor; of the CSR the key counts, and that it is the agent's.
    expect(issuance.orders[0]).toMatchObject({
      profile: 'agent',
      clusterId: 1,
      spiffeId: AGENT.id,
      dnsNames: [],
      csr: CSR,
      proof: true,
    })
    expect(recorded).toEqual([
      {
        id: AGENT.id,
        attestationType: 'x509pop',
        serialNumber: '256',
        expiresAt: NOW + 60,
        canReattest: true,
        selectors: AGENT.selectors,
        clusterId: 2,
      },
    ])
    expect(context.log.lines.at(-1)).toMatchObject({
      message: 'Agent attestation request completed',
      fields: { node_attestor_type: 'x509pop', agent_id: AGENT.id.toString() },
    })
    expect(context.records).toEqual([
      {
        error: undefined,
        fields: { node_attestor_type: 'x509pop', agent_id: AGENT.id.toString() },
      },
    ])
  })

  test('may name the cluster; selectors are stored once', async () => {
    const selector = { type: 'x509pop', value: 'a' }
    const { run, recorded } = attesting({
      attest: async () => ({ ...ATTESTED, selectors: [selector, { ...selector }], clusterId: 5 }),
      change: { agentSpiffeIdAsSelector: true as never },
    })
    await run(first('x509pop'))
    expect(recorded[0]).toMatchObject({
      clusterId: 5,
      selectors: [selector, { type: 'spiffe_id', value: AGENT.id.toString() }],
    })
  })

  test('that refuses keeps its code and text', async () => {
    const verdict = new SignetError('permission_denied', 'x', 'x509pop: not trusted')
    const { run } = attesting({ attest: () => Promise.reject(verdict) })
    await expect(run(first('x509pop'))).rejects.toBe(verdict)
  })

  test('whose agent goes away mid-challenge', async () => {
    const { run } = attesting({
      attest: async ({ challenge }) => challenge(Uint8Array.of(1)),
    })
    await expect(run(first('x509pop'))).rejects.toMatchObject({
      kind: 'internal',
      message: 'failed to receive challenge from agent: EOF',
    })
  })

  test('gets responses and challenges within bounds', async () => {
    const { run } = attesting({ attest: async ({ challenge }) => challenge(Uint8Array.of(1)) })
    const large = response(...new Array(0))
    const oversized = { ...large, challengeResponse: new Uint8Array(ATTESTATION_BYTES_MAX + 1) }
    await expect(run(first('x509pop'), oversized)).rejects.toMatchObject({
      kind: 'invalid_argument',
      message: 'challenge response is too large',
    })
    const endless = attesting({
      attest: async ({ challenge }) => {
        for (;;) await challenge(Uint8Array.of(1))
      },
    })
    const responses = Array.from({ length: ATTESTATION_CHALLENGES_MAX }, () => response(1))
    await expect(endless.run(first('x509pop'), ...responses)).rejects.toMatchObject({
      kind: 'invalid_argument',
      message: 'too many challenges',
    })
  })

  test.each([
    ['/spire/server', 'agent ID cannot collide with the server ID'],
    ['/web', 'invalid agent ID: "spiffe://example.org/web" is not in the agent namespace'],
  ])('may not name %s', async (path, message) => {
    const agentId = SpiffeId.parse(`spiffe://example.org${path}`)
    const { run, issuance } = attesting({ attest: async () => ({ ...ATTESTED, agentId }) })
    await expect(run(first('x509pop'))).rejects.toMatchObject({ kind: 'internal', message })
    expect(issuance.orders).toEqual([])
  })

  test('of another namespace is only warned about', async () => {
    const agentId = SpiffeId.parse('spiffe://example.org/spire/agent/other/1')
    const { run, context } = attesting({ attest: async () => ({ ...ATTESTED, agentId }) })
    await run(first('x509pop'))
    expect(context.log.lines[0]).toMatchObject({ level: 'warn' })
  })

  test('brings a bounded number of selectors', async () => {
    const selectors = (count: number) =>
      Array.from({ length: count }, (_, i) => ({ type: 'x509pop', value: `${i}` }))
    const at = (count: number) =>
      attesting({ attest: async () => ({ ...ATTESTED, selectors: selectors(count) }) })
    await at(NODE_SELECTORS_MAX).run(first('x509pop'))
    await expect(at(NODE_SELECTORS_MAX + 1).run(first('x509pop'))).rejects.toMatchObject({
      kind: 'invalid_argument',
    })
  })
})

describe('a banned agent', () => {
  const denied = {
    kind: 'permission_denied',
    message: 'failed to attest: agent is banned',
    denial: undefined,
  }

  test('gets no certificate', async () => {
    const { run, issuance } = attesting({ known: { ...AGENT, serialNumber: '' } })
    await expect(run(first('x509pop'))).rejects.toMatchObject(denied)
    expect(issuance.orders).toEqual([])
  })

  test('nor one banned a moment later', async () => {
    const { run } = attesting({ recordFails: bannedNow })
    await expect(run(first('x509pop'))).rejects.toMatchObject(denied)
  })
})

test('a passing fault is never PermissionDenied: that is final for an agent', async () => {
  const { run } = attesting({ recordFails: away })
  await expect(run(first('x509pop'))).rejects.toMatchObject({
    kind: 'unavailable',
    message: 'failed to update attested agent: database is unavailable',
  })
})

describe('a join token', () => {
  const payload = Buffer.from('secret-token')
  const token = (expiresAt: number) => ({ value: 'secret-token', expiresAt, clusterId: 7 })

  test('names the agent and its cluster', async () => {
    const { run, recorded } = attesting({ token: token(NOW) })
    const sent = await run(first('join_token', payload))
    expect(sent[0]?.result?.reattestable).toBe(false)
    expect(recorded[0]).toMatchObject({
      attestationType: 'join_token',
      canReattest: false,
      selectors: [],
      clusterId: 7,
    })
    expect(`${recorded[0]?.id}`).toBe('spiffe://example.org/spire/agent/join_token/secret-token')
  })

  test.each([
    [undefined, 'failed to attest: join token does not exist or has already been used'],
    [token(NOW - 1), 'join token expired'],
  ])('%#', async (found, message) => {
    const { run, issuance } = attesting({ token: found })
    const attestation = run(first('join_token', payload))
    await expect(attestation).rejects.toMatchObject({ kind: 'invalid_argument', message })
    expect(issuance.orders).toEqual([])
  })

  test('the store is asked for exactly what was sent', async () => {
    const asked: string[] = []
    const joinTokenStore = {
      redeemJoinToken: async (value: string) => {
        asked.push(value)
        return undefined
      },
    }
    const { run } = attesting({ change: { joinTokenStore } })
    await expect(run(first('join_token', payload))).rejects.toMatchObject({
      kind: 'invalid_argument',
    })
    expect(asked).toEqual(['secret-token'])
  })
})
