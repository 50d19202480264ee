/**
 * What the signer may be given: certificates that were linted (design.md §3, boulder's token as a
 * type).
 *
 * A `LintedBatch` is built by this module only and its brand is checked at run time, so there is
 * no other road from bytes to a signature on an X.509 certificate. Each item carries the SHA-256
 * of the bytes as they were linted: the ledger records it and the engine signs only what hashes
 * to it, so a later change of the arena cannot reach a signature.
 */
import { hash } from 'node:crypto'
import { assert } from '../../base/assert.ts'
import type { EpochSeconds } from '../../base/ports.ts'
import type { SvidPlan } from '../profile/svid-plan.ts'
import { ITEM, ITEM_WORDS, type KeyHandle, type SigningBatch } from '../signer/port.ts'
import { type LintExpectation, lintFully } from './full-rules.ts'
import { type LoadedProfile, lintPlanned } from './loaded-profile.ts'

const DIGEST_BYTES = 32

export class LintedBatch {
  readonly #messages: Buffer
  readonly #items: Uint32Array
  readonly #digests: Buffer
  #count = 0
  #used = 0

  private constructor(messages: Buffer, capacity: number) {
    this.#messages = messages
    this.#items = new Uint32Array(capacity * ITEM_WORDS)
    this.#digests = Buffer.allocUnsafeSlow(capacity * DIGEST_BYTES)
  }

  /** For SVIDs that lie in `messages`. */
  static of(messages: Buffer, capacity: number): LintedBatch {
    return new LintedBatch(messages, capacity)
  }

  /** One CA certificate, all rules. Throws internal `lint_failed`. */
  static ofCa(tbs: Uint8Array, expected: LintExpectation, issuerKey: KeyHandle): LintedBatch {
    lintFully(tbs, expected)
    const batch = new LintedBatch(Buffer.from(tbs), 1)
    batch.#append(issuerKey, 0, tbs.length)
    return batch
  }

  get count(): number {
    return this.#count
  }

  /** Lints one planned SVID and appends it; returns its index. Throws internal `lint_failed`. */
  add(
    profile: LoadedProfile,
    issuerKey: KeyHandle,
    range: { readonly start: number; readonly end: number },
    plan: SvidPlan,
    ordered: { readonly now: EpochSeconds; readonly ttlSeconds: number },
  ): number {
    lintPlanned(profile, this.#messages, range, plan, ordered)
    return this.#append(issuerKey, range.start, range.end)
  }

  /** Words of item `index`, for the proof of possession; the message's own words are ours. */
  setProof(index: number, words: ProofWords): void {
    const word = index * ITEM_WORDS
    assert(index < this.#count, 'a proof belongs to a linted item')
    const items = this.#items
    items[word + ITEM.infoOffset] = words.infoOffset
    items[word + ITEM.infoLength] = words.infoLength
    items[word + ITEM.publicKeyOffset] = words.publicKeyOffset
    items[word + ITEM.publicKeyLength] = words.publicKeyLength
    items[word + ITEM.signatureOffset] = words.signatureOffset
    items[word + ITEM.signatureLength] = words.signatureLength
    items[word + ITEM.proofAlgorithm] = words.proofAlgorithm
  }

  /** SHA-256 of item `index` as linted. */
  digest(index: number): Uint8Array {
    return this.#digests.subarray(index * DIGEST_BYTES, (index + 1) * DIGEST_BYTES)
  }

  /** The linted bytes, in the arena they lie in. */
  message(index: number): Uint8Array {
    const start = this.#items[index * ITEM_WORDS + ITEM.messageOffset]!
    const length = this.#items[index * ITEM_WORDS + ITEM.messageLength]!
    return this.#messages.subarray(start, start + length)
  }

  /** For the signer. `requests` is what the proofs' offsets refer to. */
  toSigningBatch(requests: Uint8Array): SigningBatch {
    return {
      requests,
      messages: this.#messages.subarray(0, this.#used),
      items: this.#items.subarray(0, this.#count * ITEM_WORDS),
      digests: this.#digests.subarray(0, this.#count * DIGEST_BYTES),
    }
  }

  #append(issuerKey: KeyHandle, start: number, end: number): number {
    const index = this.#count++
    const word = index * ITEM_WORDS
    assert(word < this.#items.length, 'a batch holds no more than it was made for')
    this.#items[word + ITEM.keyHandle] = issuerKey
    this.#items[word + ITEM.messageOffset] = start
    this.#items[word + ITEM.messageLength] = end - start
    this.#used = Math.max(this.#used, end)
    // As a string of bytes: a Buffer would be an ArrayBuffer of its own for each certificate.
    const digest = hash('sha256', this.#messages.subarray(start, end), 'latin1')
    this.#digests.write(digest, index * DIGEST_BYTES, 'latin1')
    return index
  }
}

export interface ProofWords {
  readonly infoOffset: number
  readonly infoLength: number
  readonly publicKeyOffset: number
  readonly publicKeyLength: number
  readonly signatureOffset: number
  readonly signatureLength: number
  readonly proofAlgorithm: number
}
