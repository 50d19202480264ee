import { describe, expect, test } from 'vitest'
import { createJoinTokenAgent } from '../../../../../src/attestors/node/join-token/agent.ts'
import { createJoinTokenServer } from '../../../../../src/attestors/node/join-token/server.ts'
import { FakeClock } from '../../../../fakes/fake-clock.ts'
import { NOW, TD } from '../../../../rigs/issuing.ts'

function setUp(tokens: Record<string, number>) {
  const left = new Map(Object.entries(tokens))
  const asked: string[] = []
  const server = createJoinTokenServer({
    clock: new FakeClock(NOW),
    trustDomain: TD,
    tokens: {
      async redeemJoinToken(value) {
        asked.push(value)
        const expiresAt = left.get(value)
        left.delete(value)
        return expiresAt === undefined ? undefined : { value, expiresAt, clusterId: 7 }
      },
    },
  })
  const attest = (payload: Uint8Array) =>
    server.attest({ payload, remoteIp: '', challenge: () => Promise.reject(new Error('unused')) })
  return { attest, asked }
}

const bytes = (text: string) => new TextEncoder().encode(text)
const unknown = {
  kind: 'invalid_argument',
  code: 'join_token_unknown',
  message: 'failed to attest: join token does not exist or has already been used',
}

test('a token names an agent, once', async () => {
  const { attest } = setUp({ 'abc-1': NOW })
  const session = await createJoinTokenAgent('abc-1').attest()
  const attestation = await attest(session.payload)
  expect(attestation.agentId.toString()).toBe('spiffe://example.org/spire/agent/join_token/abc-1')
  expect(attestation).toMatchObject({ selectors: [], canReattest: false, clusterId: 7 })
  await expect(attest(session.payload)).rejects.toMatchObject(unknown)
})

test('500 redemptions at once, one wins', async () => {
  const { attest } = setUp({ abc: NOW })
  const results = await Promise.allSettled(Array.from({ length: 500 }, () => attest(bytes('abc'))))
  expect(results.filter((result) => result.status === 'fulfilled')).toHaveLength(1)
})

test('an expired token is used up', async () => {
  const { attest } = setUp({ abc: NOW - 1 })
  await expect(attest(bytes('abc'))).rejects.toMatchObject({
    kind: 'invalid_argument',
    code: 'join_token_expired',
    message: 'join token expired',
  })
  await expect(attest(bytes('abc'))).rejects.toMatchObject(unknown)
})

describe('what is no token is not even asked for (SPI-01-007)', () => {
  test.each([
    ['empty', bytes('')],
    ['zero byte', bytes('abc\0')],
    ['trailing space', bytes('abc ')],
    ['not ASCII', Uint8Array.of(0x61, 0xff)],
    ['too long', bytes('a'.repeat(1025))],
  ])('%s', async (_name, payload) => {
    const { attest, asked } = setUp({ abc: NOW })
    await expect(attest(payload)).rejects.toMatchObject(unknown)
    expect(asked).toEqual([])
  })

  test.each(['ABC', 'abcd', '../abc', 'abc%00'])('%s is another token', async (text) => {
    const { attest } = setUp({ abc: NOW })
    await expect(attest(bytes(text))).rejects.toMatchObject(unknown)
  })
})

test('a stored token that makes no SPIFFE ID attests nobody', async () => {
  const { attest } = setUp({ 'a/../b': NOW })
  await expect(attest(bytes('a/../b'))).rejects.toMatchObject({ code: 'bad_spiffe_id' })
})

test('the agent answers no challenge and wants a token', async () => {
  const session = await createJoinTokenAgent('abc').attest()
  await expect(session.respond(new Uint8Array())).rejects.toMatchObject({
    code: 'unexpected_challenge',
  })
  await expect(createJoinTokenAgent('').attest()).rejects.toMatchObject({
    code: 'join_token_missing',
  })
})
