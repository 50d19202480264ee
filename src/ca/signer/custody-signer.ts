/**
 * The signer of one process: custody makes, seals and opens keys, an engine computes with them.
 *
 * Owns every private key it made or opened until it is closed; PKCS#8 exists only for the moment
 * between custody and engine and is wiped there. What it releases it has checked by a second
 * computation where design.md §3 asks for it: the first signature of each key, every RSA signature
 * (a fault in RSA-CRT gives the key away), and one in `VERIFY_EVERY` of the others.
 */
import {
  createPrivateKey,
  createPublicKey,
  generateKeyPair,
  type KeyObject,
  verify,
} from 'node:crypto'
import { promisify } from 'node:util'
import { assert } from '../../base/assert.ts'
import { bytesEqual } from '../../base/bytes.ts'
import { type Custody, unsealable } from './custody.ts'
import {
  ITEM,
  ITEM_STATUS,
  ITEM_WORDS,
  type KeyHandle,
  type Signer,
  type SigningBatch,
  type SigningEngine,
  type SigningKeyType,
  type SigningResults,
} from './port.ts'

/** 65 µs each: one in 1024 costs 0.06 µs a signature and finds a failing machine within seconds. */
const VERIFY_EVERY = 1024
const EMPTY = new Uint8Array(0)

export interface SignerParts {
  readonly engine: SigningEngine
  readonly custody: Custody
}

interface HeldKey {
  readonly publicKey: KeyObject
  readonly digest: 'sha256' | 'sha384'
  readonly isRsa: boolean
  /** Signatures until the next full check. */
  countdown: number
}

export function createSigner({ engine, custody }: SignerParts): Signer {
  const held = new Map<KeyHandle, HeldKey>()
  const hold = (pkcs8: Uint8Array, spki: Uint8Array): KeyHandle => {
    const handle = engine.importKey(pkcs8)
    held.set(handle, heldKey(spki))
    return handle
  }
  const closeKey = (handle: KeyHandle) => {
    if (held.delete(handle)) engine.closeKey(handle)
  }
  return {
    async generateKey(type, binding) {
      const { publicKey, pkcs8 } = await generate(type)
      try {
        const sealed = custody.seal(pkcs8, binding, publicKey)
        if (sealed) checkReadBack(custody.open(sealed, binding, publicKey), pkcs8)
        return { handle: hold(pkcs8, publicKey), publicKey, sealed }
      } finally {
        pkcs8.fill(0)
      }
    },
    async openKey(sealed, binding, publicKey) {
      const pkcs8 = custody.open(sealed, binding, publicKey)
      try {
        if (!bytesEqual(publicKeyOf(pkcs8), publicKey)) {
          throw unsealable('sealed key does not belong to its public key')
        }
        return hold(pkcs8, publicKey)
      } finally {
        pkcs8.fill(0)
      }
    },
    closeKey,
    async sign(batch) {
      return checkResults(batch, await engine.sign(batch), held)
    },
    async [Symbol.asyncDispose]() {
      for (const handle of [...held.keys()]) closeKey(handle)
    },
  }
}

const generateKeyPairAsync = promisify(generateKeyPair)
const DER = {
  publicKeyEncoding: { type: 'spki', format: 'der' },
  privateKeyEncoding: { type: 'pkcs8', format: 'der' },
} as const

async function generate(
  type: SigningKeyType,
): Promise<{ readonly publicKey: Uint8Array; readonly pkcs8: Uint8Array }> {
  const pair =
    type === 'rsa-2048' || type === 'rsa-4096'
      ? await generateKeyPairAsync('rsa', {
          ...DER,
          modulusLength: type === 'rsa-2048' ? 2048 : 4096,
        })
      : await generateKeyPairAsync('ec', {
          ...DER,
          namedCurve: type === 'ec-p256' ? 'P-256' : 'P-384',
        })
  return { publicKey: new Uint8Array(pair.publicKey), pkcs8: pair.privateKey }
}

function checkReadBack(opened: Uint8Array, pkcs8: Uint8Array): void {
  const same = bytesEqual(opened, pkcs8)
  opened.fill(0)
  assert(same, 'a sealed key opens to what was sealed')
}

function publicKeyOf(pkcs8: Uint8Array): Uint8Array {
  try {
    const der = Buffer.from(pkcs8.buffer, pkcs8.byteOffset, pkcs8.length)
    const key = createPublicKey(createPrivateKey({ key: der, format: 'der', type: 'pkcs8' }))
    return key.export({ type: 'spki', format: 'der' })
  } catch {
    throw unsealable('sealed key is not a private key')
  }
}

function heldKey(spki: Uint8Array): HeldKey {
  const publicKey = createPublicKey({ key: Buffer.from(spki), format: 'der', type: 'spki' })
  return {
    publicKey,
    digest: publicKey.asymmetricKeyDetails?.namedCurve === 'secp384r1' ? 'sha384' : 'sha256',
    isRsa: publicKey.asymmetricKeyType === 'rsa',
    countdown: 0,
  }
}

/** A signature that does not verify becomes `failed`; the rest of the batch stands. */
function checkResults(
  batch: SigningBatch,
  results: SigningResults,
  held: ReadonlyMap<KeyHandle, HeldKey>,
): SigningResults {
  let signatures = results.signatures
  for (let i = 0; i < results.status.length; i++) {
    if (results.status[i] !== ITEM_STATUS.ok) continue
    const word = i * ITEM_WORDS
    const key = held.get(batch.items[word + ITEM.keyHandle]!)
    if (key && key.countdown-- > 0 && !key.isRsa) continue
    const from = batch.items[word + ITEM.messageOffset]!
    const message = batch.messages.subarray(from, from + batch.items[word + ITEM.messageLength]!)
    if (key && verify(key.digest, message, key.publicKey, signatures[i]!)) {
      key.countdown = VERIFY_EVERY - 1
      continue
    }
    if (key) key.countdown = 0
    results.status[i] = ITEM_STATUS.failed
    signatures = signatures.with(i, EMPTY)
  }
  return { status: results.status, signatures }
}
