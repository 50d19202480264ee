import { generateKeyPairSync } from 'node:crypto'
import { expect, test } from 'vitest'
import { authorityIdOf, keyIdOf } from '../../../../src/ca/authority/authority-id.ts'
import { subjectKeyId } from '../../../../src/x509/spki.ts'
import { createSeededRandom } from '../../../fakes/seeded-random.ts'

test('key ids are 32 letters and digits, all of them used evenly', () => {
  const random = createSeededRandom()
  const counts = new Map<string, number>()
  const ids = new Set<string>()
  for (let i = 0; i < 2000; i++) {
    const id = keyIdOf(random.bytes(91))
    expect(id).toMatch(/^[a-zA-Z0-9]{32}$/)
    ids.add(id)
    for (const character of id) counts.set(character, (counts.get(character) ?? 0) + 1)
  }
  expect(ids.size).toBe(2000)
  expect(counts.size).toBe(62)
  // 64,000 characters, 1,032 expected each; five sigma is 160. The first eight of a biased alphabet
  // (256 mod 62) would come 25 % more often.
  for (const count of counts.values()) expect(Math.abs(count - 1032)).toBeLessThan(160)
})

test('one key has one key id; X.509 authorities are named by their key identifier', () => {
  const { publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const spki = new Uint8Array(publicKey.export({ type: 'spki', format: 'der' }))
  expect(keyIdOf(spki)).toBe(keyIdOf(spki.slice()))
  expect(authorityIdOf('jwt', spki)).toBe(keyIdOf(spki))
  for (const kind of ['x509_root', 'x509_intermediate'] as const) {
    expect(authorityIdOf(kind, spki)).toBe(Buffer.from(subjectKeyId(spki)).toString('hex'))
  }
})

// Fixed for good: sealed keys in databases carry it.
test('the derivation does not change', () => {
  expect(keyIdOf(new Uint8Array(91).fill(1))).toMatchInlineSnapshot(
    `"8pkwoEzumbZ6OsaLlj6vxdXGoq1h3dUz"`,
  )
})
