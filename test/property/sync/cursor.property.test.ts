import fc from 'fast-check'
import { expect, test } from 'vitest'
import { CursorCodec, trustDomainsDigest } from '../../../src/server/sync/cursor.ts'
import { createSeededRandom } from '../../fakes/seeded-random.ts'

const agentId = fc.constantFrom('spiffe://a.test/spire/agent/1', 'spiffe://a.test/spire/agent/11')
const sequence = fc.nat({ max: Number.MAX_SAFE_INTEGER })
const domains = fc.array(fc.domain()).map(trustDomainsDigest)

test('a cursor comes back for its agent, and for no other', () => {
  const codec = new CursorCodec(createSeededRandom())
  fc.assert(
    fc.property(agentId, agentId, sequence, domains, (owner, bearer, n, digest) => {
      const position = { sequence: n, domains: digest }
      const decoded = codec.decode(bearer, codec.encode(owner, position))
      expect(decoded).toEqual(owner === bearer ? position : undefined)
    }),
  )
})

test('any change of one character, and any other text, is refused', () => {
  const codec = new CursorCodec(createSeededRandom())
  const cursor = codec.encode('a', { sequence: 7, domains: trustDomainsDigest([]) })
  const replaced = fc
    .tuple(fc.nat({ max: cursor.length - 1 }), fc.constantFrom(...'Aa0-_'))
    .map(([at, character]) => cursor.slice(0, at) + character + cursor.slice(at + 1))
  fc.assert(
    fc.property(fc.oneof(replaced, fc.string()), (text) => {
      fc.pre(text !== cursor)
      expect(codec.decode('a', text)).toBeUndefined()
    }),
  )
})

test('a new run, and another process, take no earlier cursor', () => {
  const codec = new CursorCodec(createSeededRandom())
  const cursor = codec.encode('a', { sequence: 7, domains: trustDomainsDigest([]) })
  expect(new CursorCodec(createSeededRandom('other')).decode('a', cursor)).toBeUndefined()
  codec.startRun()
  expect(codec.decode('a', cursor)).toBeUndefined()
})

test('the digest of trust domains knows a set from another, not its order', () => {
  expect(trustDomainsDigest(['a', 'b'])).toEqual(trustDomainsDigest(new Set(['b', 'a'])))
  expect(trustDomainsDigest(['a', 'b'])).not.toEqual(trustDomainsDigest(['ab']))
  expect(trustDomainsDigest([])).not.toEqual(trustDomainsDigest(['a']))
})
