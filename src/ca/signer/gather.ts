/**
 * Gathers small batches without a timer (signing.md §3.2): what one poll phase of the event loop
 * brought is flushed together in `setImmediate`. A request that comes alone waits for nothing but
 * the rest of its own turn; a burst becomes one call, which is what the multi-buffer engine and a
 * signer in another process need to be worth their crossing.
 *
 * Batches of a group or more go by themselves, but at the same moment: by then the rows of all that
 * this turn brought are on their way to the ledger. Owns the queue between two flushes.
 */
import {
  ITEM,
  ITEM_WORDS,
  type SigningBatch,
  type SigningEngine,
  type SigningResults,
} from './port.ts'

/** Lanes of the multi-buffer path: a batch this size gains nothing from waiting. */
const GROUP_ITEMS = 8
const DIGEST_BYTES = 32

interface Waiter {
  readonly batch: SigningBatch
  readonly resolve: (results: SigningResults) => void
  readonly reject: (reason: unknown) => void
}

/** The same engine, gathering. */
export function gathering(engine: SigningEngine): SigningEngine {
  let waiting: Waiter[] = []
  const flush = () => {
    const waiters = waiting
    waiting = []
    // Small ones first: somebody waits for each of them.
    const small = waiters.filter((waiter) => !isGroup(waiter))
    if (small.length > 0) void signTogether(engine, small)
    for (const large of waiters.filter(isGroup)) void signTogether(engine, [large])
  }
  return {
    name: engine.name,
    importKey: (pkcs8) => engine.importKey(pkcs8),
    closeKey: (handle) => engine.closeKey(handle),
    sign(batch) {
      return new Promise((resolve, reject) => {
        if (waiting.length === 0) setImmediate(flush)
        waiting.push({ batch, resolve, reject })
      })
    },
  }
}

function isGroup({ batch }: Waiter): boolean {
  return batch.items.length >= GROUP_ITEMS * ITEM_WORDS
}

async function signTogether(engine: SigningEngine, waiters: readonly Waiter[]): Promise<void> {
  try {
    if (waiters.length === 1) {
      waiters[0]!.resolve(await engine.sign(waiters[0]!.batch))
      return
    }
    const results = await engine.sign(merge(waiters.map((waiter) => waiter.batch)))
    let start = 0
    for (const { batch, resolve } of waiters) {
      const end = start + batch.items.length / ITEM_WORDS
      resolve({
        status: results.status.subarray(start, end),
        signatures: results.signatures.slice(start, end),
      })
      start = end
    }
  } catch (reason) {
    for (const waiter of waiters) waiter.reject(reason)
  }
}

/** One batch of several: bytes copied, offsets moved. */
export function merge(batches: readonly SigningBatch[]): SigningBatch {
  const total = (size: (batch: SigningBatch) => number) =>
    batches.reduce((sum, batch) => sum + size(batch), 0)
  const requests = new Uint8Array(total((batch) => batch.requests.length))
  const messages = new Uint8Array(total((batch) => batch.messages.length))
  const items = new Uint32Array(total((batch) => batch.items.length))
  const digests = new Uint8Array((items.length / ITEM_WORDS) * DIGEST_BYTES)
  let [request, message, word] = [0, 0, 0]
  for (const batch of batches) {
    requests.set(batch.requests, request)
    messages.set(batch.messages, message)
    items.set(batch.items, word)
    const digestStart = (word / ITEM_WORDS) * DIGEST_BYTES
    const digestCount = (batch.items.length / ITEM_WORDS) * DIGEST_BYTES
    digests.set(batch.digests.subarray(0, digestCount), digestStart)
    for (let i = word; i < word + batch.items.length; i += ITEM_WORDS) {
      items[i + ITEM.messageOffset] = items[i + ITEM.messageOffset]! + message
      for (const field of [ITEM.infoOffset, ITEM.publicKeyOffset, ITEM.signatureOffset]) {
        items[i + field] = items[i + field]! + request
      }
    }
    request += batch.requests.length
    message += batch.messages.length
    word += batch.items.length
  }
  return { requests, messages, items, digests }
}
