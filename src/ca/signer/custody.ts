/**
 * Custody: what happens to a private key outside the running signer. `sealed` keeps it in the
 * database under a key-encryption key (AES-256-GCM, NIST SP 800-38D); `memory` keeps it nowhere.
 * Both see PKCS#8 only between making and importing a key, and never store it in clear.
 */
import { createCipheriv, createDecipheriv, createHash } from 'node:crypto'
import { concatBytes, utf8 } from '../../base/bytes.ts'
import { SignetError } from '../../base/error.ts'
import type { Random } from '../../base/ports.ts'
import type { KeyEncryptionKey } from './kek.ts'
import type { KeyBinding, SealedKey } from './port.ts'

const CIPHER = 'aes-256-gcm'
const NONCE_BYTES = 12
const TAG_BYTES = 16
const BINDING_DOMAIN = 'signet sealed key v1'

export interface Custody {
  /** undefined: this custody keeps nothing. */
  seal(pkcs8: Uint8Array, binding: KeyBinding, publicKey: Uint8Array): SealedKey | undefined
  /** PKCS#8, which the caller wipes. Throws failed_precondition `key_unsealable`. */
  open(sealed: SealedKey, binding: KeyBinding, publicKey: Uint8Array): Uint8Array
}

export function createMemoryCustody(): Custody {
  return {
    seal: () => undefined,
    open: () => {
      throw unsealable('keys are kept in memory only, a sealed key cannot be opened')
    },
  }
}

/** `keks` as loaded: the first seals, all open. */
export function createSealedCustody(
  keks: readonly [KeyEncryptionKey, ...KeyEncryptionKey[]],
  random: Random,
): Custody {
  return {
    seal(pkcs8, binding, publicKey) {
      const [kek] = keks
      // Random nonces are safe far beyond the number of authorities there will ever be (2^32 each
      // key).
      const nonce = random.bytes(NONCE_BYTES)
      const cipher = createCipheriv(CIPHER, kek.key, nonce, { authTagLength: TAG_BYTES })
      cipher.setAAD(encodeBinding(binding, publicKey, kek.id))
      const ciphertext = concatBytes([cipher.update(pkcs8), cipher.final()])
      const blob = concatBytes([nonce, ciphertext, cipher.getAuthTag()])
      return { kekId: kek.id, blob }
    },
    open(sealed, binding, publicKey) {
      const kek = keks.find((candidate) => candidate.id === sealed.kekId)
      if (!kek) throw unsealable(`no key-encryption key ${sealed.kekId} is configured`)
      if (sealed.blob.length <= NONCE_BYTES + TAG_BYTES) throw unsealable('sealed key is truncated')
      return decrypt(kek, sealed.blob, encodeBinding(binding, publicKey, kek.id))
    },
  }
}

function decrypt(kek: KeyEncryptionKey, blob: Uint8Array, binding: Uint8Array): Uint8Array {
  const nonce = blob.subarray(0, NONCE_BYTES)
  const tag = blob.subarray(blob.length - TAG_BYTES)
  const decipher = createDecipheriv(CIPHER, kek.key, nonce, { authTagLength: TAG_BYTES })
  decipher.setAAD(binding)
  decipher.setAuthTag(tag)
  const plain = decipher.update(blob.subarray(NONCE_BYTES, blob.length - TAG_BYTES))
  try {
    decipher.final()
  } catch {
    plain.fill(0)
    throw unsealable('sealed key is damaged or belongs to another authority')
  }
  // GCM is a stream mode: final() adds no bytes.
  return plain
}

/**
 * The additional data. Every field has its length before it, so no two bindings share an encoding.
 * The authority id is bound too: it derives from the key that is hashed here (authority-id.ts).
 */
export function encodeBinding(
  binding: KeyBinding,
  publicKey: Uint8Array,
  kekId: string,
): Uint8Array {
  const fields = [
    utf8(BINDING_DOMAIN),
    utf8(binding.trustDomain),
    utf8(String(binding.clusterId)),
    utf8(binding.kind),
    utf8(binding.generation),
    createHash('sha256').update(publicKey).digest(),
    utf8(kekId),
  ]
  return concatBytes(fields.flatMap((field) => [lengthPrefix(field.length), field]))
}

function lengthPrefix(length: number): Uint8Array {
  const bytes = new Uint8Array(4)
  new DataView(bytes.buffer).setUint32(0, length)
  return bytes
}

export function unsealable(message: string): SignetError {
  return new SignetError('failed_precondition', 'key_unsealable', message)
}
