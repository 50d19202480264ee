/** SPIFFE IDs: every character at every place, the segments, the lengths (SPIFFE-ID §2). */
import { describe, expect, test } from 'vitest'
import { SpiffeId } from '../../../src/spiffe/spiffe-id.ts'

const isTaken = (text: string): boolean => {
  try {
    return SpiffeId.parse(text).toString() === text
  } catch (error) {
    expect(error).toMatchObject({ kind: 'invalid_argument', code: expect.any(String) })
    return false
  }
}
const characters = Array.from({ length: 256 }, (_, code) => String.fromCharCode(code))
const takenAt = (template: (character: string) => string) =>
  characters.filter((character) => isTaken(template(character))).join('')

const PATH = '-./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz'
const DOMAIN = '-.0123456789_abcdefghijklmnopqrstuvwxyz'

test.each([
  ['within a segment', (c: string) => `spiffe://td/a${c}b`, PATH],
  ['as the first of a segment', (c: string) => `spiffe://td/${c}b`, PATH.replace('/', '')],
  ['as the last of all', (c: string) => `spiffe://td/a${c}`, PATH.replace('/', '')],
  ['as a segment of its own', (c: string) => `spiffe://td/a/${c}`, PATH.replace('./', '')],
  ['in a trust domain', (c: string) => `spiffe://t${c}d/a`, `${DOMAIN.replace('.', './')}`],
])('of all 256 characters only SPIFFE’s are taken %s', (_where, template, taken) => {
  expect(takenAt(template)).toBe(taken)
})

describe('segments and lengths', () => {
  test.each([
    ['spiffe://td', true],
    ['spiffe://td/a/b', true],
    ['spiffe://td/...', true],
    ['spiffe://td/.a/..b', true],
    ['spiffe://td/', false],
    ['spiffe://td//a', false],
    ['spiffe://td/a//b', false],
    ['spiffe://td/a/', false],
    ['spiffe://td/.', false],
    ['spiffe://td/./a', false],
    ['spiffe://td/../a', false],
    ['spiffe://td/a/..', false],
    ['spiffe://td/%61', false],
    ['spiffe://td/é', false],
    ['spiffe://', false],
    ['spiffe:///a', false],
    ['SPIFFE://td/a', false],
    ['http://td/a', false],
    [`spiffe://${'a'.repeat(255)}/a`, true],
    [`spiffe://${'a'.repeat(256)}/a`, false],
    [`spiffe://td/${'a'.repeat(2048 - 12)}`, true],
    [`spiffe://td/${'a'.repeat(2048 - 11)}`, false],
  ])('%s: %s', (text, taken) => {
    expect(isTaken(text)).toBe(taken)
  })
})
