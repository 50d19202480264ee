/**
 * The signer: the only part that touches private keys. Its contract is final: key handles, never
 * key objects; batches of buffers in, batches of buffers out; proof-of-possession checks included,
 * so that one call (later one message to another process, or one crossing into native code) carries
 * a whole batch.
 *
 * `Signer` is what the CA calls. Below it sits a `SigningEngine` (node:crypto now; native and
 * multi-buffer engines later) that knows keys and arithmetic but no policy.
 */

export type SigningKeyType = 'ec-p256' | 'ec-p384' | 'rsa-2048' | 'rsa-4096'

/** Refers to a key inside the signer's address space; valid until closed, never persisted. */
export type KeyHandle = number

/** What a sealed key is bound to (AES-256-GCM additional data): a row moved elsewhere will not open. */
export interface KeyBinding {
  readonly trustDomain: string
  readonly clusterId: number
  readonly kind: 'x509_root' | 'x509_intermediate' | 'jwt'
  /** Unique per key made. */
  readonly generation: string
}

export interface GeneratedKey {
  readonly handle: KeyHandle
  /** DER SubjectPublicKeyInfo. */
  readonly publicKey: Uint8Array
  /** The private key under the key-encryption key, or undefined when the signer keeps keys in memory only. */
  readonly sealed: SealedKey | undefined
}

export interface SealedKey {
  /** Which key-encryption key seals it: lower-case hex. */
  readonly kekId: string
  /** nonce ‖ ciphertext ‖ tag. */
  readonly blob: Uint8Array
}

/** Words per item of `SigningBatch.items`. */
export const ITEM_WORDS = 10
/** Offsets into an item's words. Bytes offsets are absolute in their buffer. */
export const ITEM = {
  keyHandle: 0,
  /** In `messages`: the bytes to sign (a linted TBSCertificate, or a JWS signing input). */
  messageOffset: 1,
  messageLength: 2,
  /** In `requests`: the CSR whose self-signature proves possession; length 0 asks for no check. */
  infoOffset: 3,
  infoLength: 4,
  publicKeyOffset: 5,
  publicKeyLength: 6,
  signatureOffset: 7,
  signatureLength: 8,
  /** One of `PROOF_ALGORITHM`, the CSR's signatureAlgorithm. */
  proofAlgorithm: 9,
} as const

export const PROOF_ALGORITHM = {
  none: 0,
  ecdsaSha256: 1,
  ecdsaSha384: 2,
  ecdsaSha512: 3,
  rsaSha256: 4,
  rsaSha384: 5,
  rsaSha512: 6,
  ed25519: 7,
} as const

export const ITEM_STATUS = { ok: 0, proofFailed: 1, digestMismatch: 2, failed: 3 } as const

export interface SigningBatch {
  /** Holds the CSRs; the received gRPC message itself, so nothing is copied. */
  readonly requests: Uint8Array
  readonly messages: Uint8Array
  /** `ITEM_WORDS` words per item. */
  readonly items: Uint32Array
  /**
   * SHA-256 of each message as it was linted and recorded in the ledger, 32 bytes an item. The
   * signer signs only what hashes to it.
   */
  readonly digests: Uint8Array
}

export interface SigningResults {
  /** One of `ITEM_STATUS` per item. */
  readonly status: Uint8Array
  /** Per item: the signature as X.509 carries it (DER for ECDSA); empty unless ok. */
  readonly signatures: readonly Uint8Array[]
}

export interface Signer extends AsyncDisposable {
  generateKey(type: SigningKeyType, binding: KeyBinding): Promise<GeneratedKey>
  /** failed_precondition `key_unsealable` when no configured key opens it, or the binding differs. */
  openKey(sealed: SealedKey, binding: KeyBinding, publicKey: Uint8Array): Promise<KeyHandle>
  closeKey(handle: KeyHandle): void
  sign(batch: SigningBatch): Promise<SigningResults>
}

export interface SigningEngine {
  readonly name: 'node' | 'native' | 'multibuffer'
  /** PKCS#8 DER in; the caller wipes its copy afterwards. */
  importKey(pkcs8: Uint8Array): KeyHandle
  closeKey(handle: KeyHandle): void
  sign(batch: SigningBatch): Promise<SigningResults>
}
