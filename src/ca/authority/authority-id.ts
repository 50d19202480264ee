/**
 * Authority ids, derived from the public key. X.509: the subject key identifier, as SPIRE shows it.
 * JWT: the kid, 32 characters of [a-zA-Z0-9] as in SPIRE (api.md §8.3), opaque to everybody.
 *
 * Differs from SPIRE: the kid is a hash of the key, not random, so that a sealed key, which is
 * bound to its public key, can't be given another kid by who can write the database. To readers it
 * looks alike.
 */
import { hash } from 'node:crypto'
import { concatBytes, toHex, utf8 } from '../../base/bytes.ts'
import { subjectKeyId } from '../../x509/spki.ts'
import type { AuthorityKind } from './authority.ts'

const KEY_ID_DOMAIN = utf8('signet jwt key id v1\0')
const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789'
const KEY_ID_CHARS = 32
/**
 * The largest multiple of 62 in a byte: what lies above is skipped, so no character is favoured.
 */
const UNBIASED_BELOW = 248

export function authorityIdOf(kind: AuthorityKind, publicKey: Uint8Array): string {
  return kind === 'jwt' ? keyIdOf(publicKey) : toHex(subjectKeyId(publicKey))
}

/** 190 bits: no two keys meet. */
export function keyIdOf(publicKey: Uint8Array): string {
  let id = ''
  for (let block = 0; id.length < KEY_ID_CHARS; block++) {
    const input = concatBytes([KEY_ID_DOMAIN, Uint8Array.of(block), publicKey])
    for (const byte of hash('sha256', input, 'buffer')) {
      if (byte < UNBIASED_BELOW && id.length < KEY_ID_CHARS) id += ALPHABET[byte % ALPHABET.length]
    }
  }
  return id
}
