/** Batches as the signing engine takes them. */
import { hash } from 'node:crypto'
import { ITEM, ITEM_WORDS, type SigningBatch } from '../../src/ca/signer/port.ts'
import { proofAlgorithm } from '../../src/ca/signer/proof.ts'
import { parseCertificateRequest } from '../../src/x509/csr.ts'

interface Item {
  readonly handle: number
  readonly message: Uint8Array
  readonly csr?: Uint8Array
  readonly digest?: Uint8Array
}

/** Lays items out as issuance does: everything in two buffers. */
export function batchOf(list: readonly Item[]): SigningBatch {
  const items = new Uint32Array(list.length * ITEM_WORDS)
  const digests = new Uint8Array(list.length * 32)
  let [message, request] = [0, 3]
  list.forEach((item, i) => {
    const words = items.subarray(i * ITEM_WORDS)
    words[ITEM.keyHandle] = item.handle
    words[ITEM.messageOffset] = message
    words[ITEM.messageLength] = item.message.length
    digests.set(item.digest ?? hash('sha256', item.message, 'buffer'), i * 32)
    message += item.message.length
    if (!item.csr) return
    const parsed = parseCertificateRequest(item.csr)
    words[ITEM.infoOffset] = request + parsed.info.offset
    words[ITEM.infoLength] = parsed.info.length
    words[ITEM.publicKeyOffset] = request + parsed.publicKey.offset
    words[ITEM.publicKeyLength] = parsed.publicKey.length
    words[ITEM.signatureOffset] = request + parsed.signature.offset
    words[ITEM.signatureLength] = parsed.signature.length
    words[ITEM.proofAlgorithm] = proofAlgorithm(parsed.signatureAlgorithm)
    request += item.csr.length
  })
  const csrs = list.flatMap((item) => (item.csr ? [item.csr] : []))
  return {
    items,
    digests,
    messages: new Uint8Array(Buffer.concat(list.map((item) => item.message))),
    requests: new Uint8Array(Buffer.concat([Buffer.alloc(3), ...csrs])),
  }
}
