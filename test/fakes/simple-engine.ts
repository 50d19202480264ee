/**
 * A SigningEngine of a few lines for tests of what stands above the engine: no proofs of possession,
 * keys that can be counted, results that can be tampered with.
 */
import { createPrivateKey, hash, type KeyObject, sign } from 'node:crypto'
import { bytesEqual } from '../../src/base/bytes.ts'
import {
  ITEM,
  ITEM_STATUS,
  ITEM_WORDS,
  type SigningEngine,
  type SigningResults,
} from '../../src/ca/signer/port.ts'

export interface SimpleEngine extends SigningEngine {
  readonly keys: ReadonlyMap<number, KeyObject>
  /** Applied to results before they are returned. */
  tamper: ((results: SigningResults) => SigningResults) | undefined
  batches: number
}

export function createSimpleEngine(): SimpleEngine {
  const keys = new Map<number, KeyObject>()
  let nextHandle = 1
  const engine: SimpleEngine = {
    name: 'node',
    keys,
    tamper: undefined,
    batches: 0,
    importKey(pkcs8) {
      const key = createPrivateKey({ key: Buffer.from(pkcs8), format: 'der', type: 'pkcs8' })
      keys.set(nextHandle, key)
      return nextHandle++
    },
    closeKey: (handle) => void keys.delete(handle),
    async sign(batch) {
      engine.batches++
      const count = batch.items.length / ITEM_WORDS
      const status = new Uint8Array(count)
      const signatures: Uint8Array[] = []
      for (let i = 0; i < count; i++) {
        const words = batch.items.subarray(i * ITEM_WORDS, (i + 1) * ITEM_WORDS)
        const from = words[ITEM.messageOffset]!
        const message = batch.messages.subarray(from, from + words[ITEM.messageLength]!)
        const digest = hash('sha256', message, 'buffer')
        const key = keys.get(words[ITEM.keyHandle]!)
        if (!key) status[i] = ITEM_STATUS.failed
        else if (!bytesEqual(digest, batch.digests.subarray(i * 32, i * 32 + 32))) {
          status[i] = ITEM_STATUS.digestMismatch
        }
        const p384 = key?.asymmetricKeyDetails?.namedCurve === 'secp384r1'
        signatures.push(
          status[i] === ITEM_STATUS.ok
            ? sign(p384 ? 'sha384' : 'sha256', message, key!)
            : new Uint8Array(0),
        )
      }
      const results = { status, signatures }
      return engine.tamper ? engine.tamper(results) : results
    },
  }
  return engine
}

/** A batch of one. */
export function singleBatch(keyHandle: number, message: Uint8Array) {
  const items = new Uint32Array(ITEM_WORDS)
  items[ITEM.keyHandle] = keyHandle
  items[ITEM.messageLength] = message.length
  return {
    requests: new Uint8Array(0),
    messages: message,
    items,
    digests: new Uint8Array(hash('sha256', message, 'buffer')),
  }
}
