/** AttestAgent over a real gRPC socket, with clients that wait, leave, and come in crowds. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { credentials, Server, ServerCredentials } from '@grpc/grpc-js'
import { afterEach, describe, expect, test } from 'vitest'
import type { SignetError } from '../../../../src/base/error.ts'
import {
  ATTESTATION_WAIT_MS_MAX,
  ATTESTATIONS_MAX,
  ATTESTATIONS_PER_ADDRESS_MAX,
} from '../../../../src/base/limits.ts'
import { createAttestHandler } from '../../../../src/server/rpc/agent/v1/attest.ts'
import {
  createAttestationSlots,
  impatient,
} from '../../../../src/server/rpc/agent/v1/attest-bounds.ts'
import { addRoutes } from '../../../../src/server/rpc/door.ts'
import { stream } from '../../../../src/server/rpc/route.ts'
import {
  AgentClient,
  AgentService,
  AttestAgentRequest,
  type AttestAgentResponse,
} from '../../../../src/wire/gen/spire/api/server/agent/v1/agent.ts'
import { fromGrpcError } from '../../../../src/wire/status.ts'
import { FakeClock } from '../../../fakes/fake-clock.ts'
import { createMemoryLog, createMemoryMetrics } from '../../../fakes/memory-log.ts'
import { createSeededRandom } from '../../../fakes/seeded-random.ts'
import { until } from '../../../rigs/until.ts'
import { AGENT, connectionOf, issuanceStub, NOW, portsWith } from './rig.ts'

const cleanups: (() => void)[] = []
afterEach(() => {
  for (const cleanup of cleanups.splice(0).reverse()) cleanup()
})

/** The attestor challenges once; `handling` counts the handlers that are busy. */
async function serve() {
  const clock = new FakeClock(NOW)
  const ports = portsWith({
    clock,
    issuance: issuanceStub(),
    agentStore: { getAgent: async () => undefined, recordAttestation: async () => AGENT },
    nodeAttestors: new Map([
      [
        'x509pop',
        {
          type: 'x509pop',
          attest: async ({ challenge }: { challenge: (data: Uint8Array) => Promise<unknown> }) => {
            await challenge(Uint8Array.of(1))
            return { agentId: AGENT.id, selectors: [], canReattest: true }
          },
        },
      ],
    ]) as never,
  })
  const handle = createAttestHandler(ports)
  const state = { handling: 0 }
  const route = stream(AgentService.attestAgent, ['any'], async (s, context) => {
    state.handling++
    await handle(s, context).finally(() => state.handling--)
  })
  const directory = mkdtempSync(join(tmpdir(), 'signet-attest-'))
  const address = `unix:${join(directory, 'api.sock')}`
  const server = new Server()
  addRoutes(server, [route], {
    clock,
    random: createSeededRandom(),
    log: createMemoryLog(),
    metrics: createMemoryMetrics(),
    connections: { get: () => connectionOf({}), closeWhere: () => {} },
    authorize: async () => ({ kind: 'nobody', via: '' }),
    rateLimiter: { wait: async () => {}, [Symbol.dispose]: () => {} },
    auditLogEnabled: false,
  })
  await new Promise<void>((resolve, reject) => {
    const bound = (error: Error | null) => (error ? reject(error) : resolve())
    server.bindAsync(address, ServerCredentials.createInsecure(), bound)
  })
  const client = new AgentClient(address, credentials.createInsecure())
  cleanups.push(() => {
    client.close()
    server.forceShutdown()
    rmSync(directory, { recursive: true, force: true })
  })
  return { client, clock, state }
}

const PARAMS = AttestAgentRequest.create({
  params: {
    data: { type: 'x509pop', payload: Uint8Array.of(1) },
    params: { csr: Uint8Array.of(9) },
  },
})

/** A call with what came back, and how it ended. */
function attesting(client: AgentClient) {
  const call = client.attestAgent()
  const received: AttestAgentResponse[] = []
  call.on('data', (message: AttestAgentResponse) => received.push(message))
  const ended = new Promise<SignetError | undefined>((resolve) => {
    call.on('error', (error) => resolve(fromGrpcError(error as never)))
    call.on('end', () => resolve(undefined))
  })
  return { call, received, ended }
}

const late = { kind: 'deadline_exceeded', message: 'agent did not answer in time' }

describe('a client of AttestAgent', () => {
  test('that says nothing is sent away', async () => {
    const { client, clock, state } = await serve()
    const silent = attesting(client)
    await until('a handler', () => state.handling === 1)
    await clock.untilArmed()
    clock.advanceMs(ATTESTATION_WAIT_MS_MAX)
    expect(await silent.ended).toMatchObject(late)
    expect(state.handling).toBe(0)
  })

  test('that does not answer a challenge is sent away', async () => {
    const { client, clock, state } = await serve()
    const silent = attesting(client)
    silent.call.write(PARAMS)
    await until('message 1', () => silent.received.length === 1)
    await until('the end', async () => {
      clock.advanceMs(ATTESTATION_WAIT_MS_MAX)
      return state.handling === 0
    })
    expect(await silent.ended).toMatchObject(late)
    expect(state.handling).toBe(0)
  })

  test('that answers gets its certificate', async () => {
    const { client } = await serve()
    const slow = attesting(client)
    slow.call.write(PARAMS)
    await until('message 1', () => slow.received.length === 1)
    slow.call.write(AttestAgentRequest.create({ challengeResponse: Uint8Array.of(1) }))
    await until('message 2', () => slow.received.length === 2)
    expect(slow.received[1]?.result?.reattestable).toBe(true)
    expect(await slow.ended).toBeUndefined()
  })

  test.each([
    ['half-closes', (call: { end(): void }) => call.end()],
    ['cancels', (call: { cancel(): void }) => call.cancel()],
  ])('that %s mid-challenge frees its handler', async (_name, leave) => {
    const { client, state } = await serve()
    const leaving = attesting(client)
    leaving.call.write(PARAMS)
    await until('message 1', () => leaving.received.length === 1)
    leave(leaving.call)
    expect(await leaving.ended).toBeDefined()
    await until('no handler', () => state.handling === 0)
  })

  test('finds room again when others have left', async () => {
    const { client, state } = await serve()
    const crowd = Array.from({ length: ATTESTATIONS_PER_ADDRESS_MAX }, () => attesting(client))
    for (const { call } of crowd) call.write(PARAMS)
    await until('challenges', () => crowd.every(({ received }) => received.length === 1))
    const oneMore = attesting(client)
    oneMore.call.write(PARAMS)
    expect(await oneMore.ended).toMatchObject({ kind: 'unavailable', retryAfterSeconds: 1 })
    crowd[0]!.call.cancel()
    await until('one less', () => state.handling === ATTESTATIONS_PER_ADDRESS_MAX - 1)
    const next = attesting(client)
    next.call.write(PARAMS)
    await until('message 1', () => next.received.length === 1)
    for (const { call } of [...crowd, next]) call.cancel()
    await until('no handler', () => state.handling === 0)
  })
})

describe('a patient stream', () => {
  const streamOf = (receive: () => Promise<number>, send = async () => {}) => ({ receive, send })

  test('is not waited for a moment longer, nor less, for each message', async () => {
    const clock = new FakeClock()
    const answers: ((value: number) => void)[] = []
    const slow = impatient(
      streamOf(() => new Promise<number>((resolve) => answers.push(resolve))),
      clock,
    )
    const first = slow.receive()
    clock.advanceMs(ATTESTATION_WAIT_MS_MAX - 1)
    answers[0]!(1)
    expect(await first).toBe(1)
    const second = slow.receive()
    clock.advanceMs(ATTESTATION_WAIT_MS_MAX - 1)
    answers[1]!(2)
    expect(await second).toBe(2)
    const third = slow.receive()
    clock.advanceMs(ATTESTATION_WAIT_MS_MAX)
    await expect(third).rejects.toMatchObject({ code: 'attestation_late' })
  })

  test('must also take what it is sent; its own failure is kept', async () => {
    const clock = new FakeClock()
    const stuck = impatient(
      streamOf(
        () => Promise.reject(new Error('ended')),
        () => new Promise(() => {}),
      ),
      clock,
    )
    await expect(stuck.receive()).rejects.toThrow('ended')
    const sending = stuck.send(undefined as never)
    clock.advanceMs(ATTESTATION_WAIT_MS_MAX)
    await expect(sending).rejects.toMatchObject({ code: 'attestation_late' })
  })
})

describe('slots', () => {
  test('per address and in all, at the limit and one more', () => {
    const slots = createAttestationSlots()
    const taken = Array.from({ length: ATTESTATIONS_MAX }, (_, i) =>
      slots.enter(`10.0.0.${i % Math.ceil(ATTESTATIONS_MAX / ATTESTATIONS_PER_ADDRESS_MAX)}`),
    )
    const code = expect.objectContaining({ code: 'attestations_crowded' })
    expect(() => slots.enter('10.9.9.9')).toThrow(code)
    taken[0]![Symbol.dispose]()
    slots.enter('10.9.9.9')
    expect(() => slots.enter('10.0.0.0')).toThrow(code)
  })
})
