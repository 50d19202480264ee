/** Key ids of JWT authorities: 32 characters of [a-zA-Z0-9] (api.md §8.3), opaque to everybody. */
import type { Random } from '../../base/ports.ts'

const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789'
const KEY_ID_CHARS = 32
/** The largest multiple of 62 in a byte: what lies above is drawn again, so no character is favoured. */
const UNBIASED_BELOW = 248

export function newKeyId(random: Random): string {
  let id = ''
  while (id.length < KEY_ID_CHARS) {
    for (const byte of random.bytes(KEY_ID_CHARS)) {
      if (byte < UNBIASED_BELOW && id.length < KEY_ID_CHARS) id += ALPHABET[byte % ALPHABET.length]
    }
  }
  return id
}
