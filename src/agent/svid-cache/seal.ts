/**
 * A sealed file: AES-256-GCM under a random key kept elsewhere, so that the data directory alone, a
 * backup or a stolen disk, holds no workload's key. Bound to what it is for by additional data;
 * what does not open is treated as absent.
 */
import { createCipheriv, createDecipheriv } from 'node:crypto'
import { concatBytes, utf8 } from '../../base/bytes.ts'
import type { Random } from '../../base/ports.ts'

export const SEAL_KEY_BYTES = 32
/** RFC 5116 §5.1: random nonces of 96 bits are good for 2^32 seals under one key. */
const NONCE_BYTES = 12
const TAG_BYTES = 16
const MAGIC = utf8('signet-sealed-1\n')

export function seal(
  key: Uint8Array,
  purpose: string,
  plaintext: Uint8Array,
  random: Random,
): Uint8Array {
  const nonce = random.bytes(NONCE_BYTES)
  const cipher = createCipheriv('aes-256-gcm', key, nonce)
  cipher.setAAD(concatBytes([MAGIC, utf8(purpose)]))
  return concatBytes([MAGIC, nonce, cipher.update(plaintext), cipher.final(), cipher.getAuthTag()])
}

/** undefined when the file is not ours, was changed, is for something else or the key is another. */
export function unseal(
  key: Uint8Array,
  purpose: string,
  sealed: Uint8Array,
): Uint8Array | undefined {
  const headBytes = MAGIC.length + NONCE_BYTES
  if (sealed.length < headBytes + TAG_BYTES) return undefined
  if (Buffer.compare(sealed.subarray(0, MAGIC.length), MAGIC) !== 0) return undefined
  const nonce = sealed.subarray(MAGIC.length, headBytes)
  const tag = sealed.subarray(sealed.length - TAG_BYTES)
  const decipher = createDecipheriv('aes-256-gcm', key, nonce, { authTagLength: TAG_BYTES })
  decipher.setAAD(concatBytes([MAGIC, utf8(purpose)]))
  decipher.setAuthTag(tag)
  try {
    const opened = decipher.update(sealed.subarray(headBytes, sealed.length - TAG_BYTES))
    return concatBytes([opened, decipher.final()])
  } catch {
    return undefined
  }
}
