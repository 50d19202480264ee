/**
 * The signing engine on node:crypto: always there, no addon (design.md §3).
 *
 * Synchronous calls on the main thread: node's asynchronous crypto costs 40 µs a signature
 * against 27 and 79–91 µs a verification against 65 (signing.md §1). A batch is done in chunks,
 * and the event loop runs between them, so that a batch of 500 (55 ms) starves neither handshakes
 * nor streams.
 *
 * Owns the private keys imported until they are closed. Signs only what hashes to the digest that
 * the linter computed and the ledger records.
 */
import { createPrivateKey, createPublicKey, hash, type KeyObject, sign, verify } from 'node:crypto'
import { SignetError } from '../../base/error.ts'
import {
  ITEM,
  ITEM_STATUS,
  ITEM_WORDS,
  type KeyHandle,
  PROOF_ALGORITHM,
  type SigningBatch,
  type SigningEngine,
  type SigningResults,
} from './port.ts'

/** 32 × ~110 µs: 3.5 ms without a turn of the event loop. */
const CHUNK_ITEMS = 32
const DIGEST_BYTES = 32
const EMPTY = new Uint8Array(0)

type Digest = 'sha256' | 'sha384' | 'sha512'

interface PrivateKey {
  readonly key: KeyObject
  readonly digest: Digest
}

/** CSR signature algorithms by their code in the batch. Ed25519 hashes by itself. */
const PROOFS: Readonly<
  Record<number, { readonly keyType: 'ec' | 'rsa' | 'ed25519'; readonly digest: Digest | null }>
> = {
  [PROOF_ALGORITHM.ecdsaSha256]: { keyType: 'ec', digest: 'sha256' },
  [PROOF_ALGORITHM.ecdsaSha384]: { keyType: 'ec', digest: 'sha384' },
  [PROOF_ALGORITHM.ecdsaSha512]: { keyType: 'ec', digest: 'sha512' },
  [PROOF_ALGORITHM.rsaSha256]: { keyType: 'rsa', digest: 'sha256' },
  [PROOF_ALGORITHM.rsaSha384]: { keyType: 'rsa', digest: 'sha384' },
  [PROOF_ALGORITHM.rsaSha512]: { keyType: 'rsa', digest: 'sha512' },
  [PROOF_ALGORITHM.ed25519]: { keyType: 'ed25519', digest: null },
}

/** Object identifiers of id-ecPublicKey, rsaEncryption and Ed25519, encoded. */
const KEY_ALGORITHMS = {
  ec: Buffer.from('06072a8648ce3d0201', 'hex'),
  rsa: Buffer.from('06092a864886f70d010101', 'hex'),
  ed25519: Buffer.from('06032b6570', 'hex'),
} as const

/** Runs the known-answer tests first: a machine that fails them signs nothing. */
export function createNodeEngine(): SigningEngine {
  runKnownAnswerTests()
  const keys = new Map<KeyHandle, PrivateKey>()
  let lastHandle = 0
  return {
    name: 'node',
    importKey(pkcs8) {
      const key = importPrivateKey(pkcs8)
      // Handles are words in a batch; they are not reused, so a stale one can't reach a newer key.
      lastHandle++
      keys.set(lastHandle, key)
      return lastHandle
    },
    closeKey(handle) {
      keys.delete(handle)
    },
    async sign(batch) {
      checkShape(batch)
      const count = batch.items.length / ITEM_WORDS
      const status = new Uint8Array(count)
      const signatures = new Array<Uint8Array>(count)
      for (let i = 0; i < count; i++) {
        if (i > 0 && i % CHUNK_ITEMS === 0) await nextTurn()
        signItem(keys, batch, i, status, signatures)
      }
      return { status, signatures } satisfies SigningResults
    },
  }
}

/** Two failures are told apart because only one of them is the caller's fault. */
function signItem(
  keys: ReadonlyMap<KeyHandle, PrivateKey>,
  batch: SigningBatch,
  index: number,
  status: Uint8Array,
  signatures: Uint8Array[],
): void {
  signatures[index] = EMPTY
  const word = index * ITEM_WORDS
  const { items } = batch
  const key = keys.get(items[word + ITEM.keyHandle]!)
  if (!key) {
    status[index] = ITEM_STATUS.failed
    return
  }
  const message = view(batch.messages, items, word + ITEM.messageOffset)
  if (hash('sha256', message, 'latin1') !== digestOf(batch, index)) {
    status[index] = ITEM_STATUS.digestMismatch
    return
  }
  if (items[word + ITEM.infoLength] !== 0 && !provesPossession(batch, word)) {
    status[index] = ITEM_STATUS.proofFailed
    return
  }
  try {
    signatures[index] = sign(key.digest, message, key.key)
    status[index] = ITEM_STATUS.ok
  } catch {
    // The error's text may name key parameters; the status says all that a caller may know.
    status[index] = ITEM_STATUS.failed
  }
}

/** As a string of bytes, which costs no ArrayBuffer. */
function digestOf({ digests }: SigningBatch, index: number): string {
  const { buffer, byteOffset } = digests
  const at = byteOffset + index * DIGEST_BYTES
  return Buffer.from(buffer, at, DIGEST_BYTES).toString('latin1')
}

/** The CSR's self-signature. False for a key that OpenSSL refuses: a point off its curve. */
function provesPossession(batch: SigningBatch, word: number): boolean {
  const { requests, items } = batch
  const proof = PROOFS[items[word + ITEM.proofAlgorithm]!]
  if (!proof) return false
  try {
    const spki = view(requests, items, word + ITEM.publicKeyOffset)
    if (!isKeyOf(spki, KEY_ALGORITHMS[proof.keyType])) return false
    // The bytes, not a KeyObject: making one for each request costs 5 µs and a weak handle.
    const key = { key: spki, format: 'der', type: 'spki' } as const
    const info = view(requests, items, word + ITEM.infoOffset)
    return verify(proof.digest, info, key, view(requests, items, word + ITEM.signatureOffset))
  } catch {
    return false
  }
}

/** Does this SubjectPublicKeyInfo begin with that algorithm identifier's OID? */
function isKeyOf(spki: Buffer, oid: Buffer): boolean {
  const length = spki[1] ?? 0
  const outer = length < 0x80 ? 2 : 2 + (length & 0x7f)
  const start = outer + 2
  return spki.compare(oid, 0, oid.length, start, Math.min(start + oid.length, spki.length)) === 0
}

/** A view by the offset and length words at `word`; bounds were checked for the whole batch. */
function view(bytes: Uint8Array, items: Uint32Array, word: number): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset + items[word]!, items[word + 1]!)
}

function checkShape(batch: SigningBatch): void {
  const { items, digests, requests, messages } = batch
  const count = items.length / ITEM_WORDS
  const inside = (bytes: Uint8Array, word: number) =>
    items[word]! + items[word + 1]! <= bytes.length
  let good = Number.isInteger(count) && digests.length >= count * DIGEST_BYTES
  for (let word = 0; good && word < items.length; word += ITEM_WORDS) {
    good =
      inside(messages, word + ITEM.messageOffset) &&
      inside(requests, word + ITEM.infoOffset) &&
      inside(requests, word + ITEM.publicKeyOffset) &&
      inside(requests, word + ITEM.signatureOffset)
  }
  if (!good) throw new SignetError('internal', 'bad_signing_batch', 'signing batch is malformed')
}

function importPrivateKey(pkcs8: Uint8Array): PrivateKey {
  const der = Buffer.from(pkcs8.buffer, pkcs8.byteOffset, pkcs8.byteLength)
  const key = createPrivateKey({ key: der, format: 'der', type: 'pkcs8' })
  const curve = key.asymmetricKeyDetails?.namedCurve
  const supported =
    key.asymmetricKeyType === 'rsa' || curve === 'prime256v1' || curve === 'secp384r1'
  if (!supported) {
    throw new SignetError('internal', 'unsupported_signing_key', 'unsupported signing key type')
  }
  // Pairwise test: a key that does not verify what it signs must not reach a certificate.
  const digest = curve === 'secp384r1' ? 'sha384' : 'sha256'
  const probe = Buffer.from('signet pairwise consistency test')
  if (!verify(digest, probe, createPublicKey(key), sign(digest, probe, key))) {
    throw new SignetError('internal', 'signing_key_broken', 'signing key failed its self-test')
  }
  return { key, digest }
}

function nextTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve))
}

/**
 * RFC 6979 §A.2.5 (P-256, SHA-256, message "sample") and a SHA-256 vector of FIPS 180-4:
 * verification must accept the vector and refuse it with one bit turned.
 */
function runKnownAnswerTests(): void {
  const ok =
    hash('sha256', 'abc', 'hex') ===
      'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad' &&
    vectorVerifies(0) &&
    !vectorVerifies(1)
  if (!ok) {
    throw new SignetError('internal', 'engine_self_test', 'signing engine failed its self-test')
  }
}

function vectorVerifies(flip: number): boolean {
  const key = createPublicKey({
    format: 'jwk',
    key: {
      kty: 'EC',
      crv: 'P-256',
      x: base64Url('60fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb6'),
      y: base64Url('7903fe1008b8bc99a41ae9e95628bc64f2f1b20c2d7e9f5177a3c294d4462299'),
    },
  })
  const signature = Buffer.from(
    'efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716' +
      'f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8',
    'hex',
  )
  signature[0] = signature[0]! ^ flip
  return verify('sha256', Buffer.from('sample'), { key, dsaEncoding: 'ieee-p1363' }, signature)
}

function base64Url(hex: string): string {
  return Buffer.from(hex, 'hex').toString('base64url')
}
