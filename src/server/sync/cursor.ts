/**
 * Cursors of the push stream: where an agent stands in one server's order of changes. A cursor names
 * the run (one process from one full load on), the number of the last change the agent has applied,
 * and a digest of the trust domains whose bundles it holds, all bound to the agent by a MAC.
 *
 * It grants nothing: entries are authorized anew whatever a cursor says, and one that is not ours,
 * another agent's, from another server or from before a restore of the database only costs a
 * snapshot.
 *
 * Why not the change log's own position, which any server could continue from: rows are read after
 * the position they belong to, so two servers at one position may hold different versions of a row,
 * and the log does not tell what an agent could serve before. Only the process that pushed knows.
 */
import { createHash, createHmac, timingSafeEqual } from 'node:crypto'
import { fromBase64Url, toBase64Url, utf8 } from '../../base/bytes.ts'
import type { Random } from '../../base/ports.ts'

const RUN_BYTES = 8
const DIGEST_BYTES = 8
const MAC_BYTES = 16
const PAYLOAD_BYTES = RUN_BYTES + 8 + DIGEST_BYTES

export interface CursorPosition {
  readonly sequence: number
  /** Of the trust domains held (`trustDomainsDigest`). */
  readonly domains: Uint8Array
}

export class CursorCodec {
  readonly #random: Random
  readonly #key: Uint8Array
  #run: Uint8Array

  constructor(random: Random) {
    this.#random = random
    this.#key = random.bytes(32)
    this.#run = random.bytes(RUN_BYTES)
  }

  /** From now on no earlier cursor is taken. */
  startRun(): void {
    this.#run = this.#random.bytes(RUN_BYTES)
  }

  encode(agentId: string, position: CursorPosition): string {
    const cursor = new Uint8Array(PAYLOAD_BYTES + MAC_BYTES)
    cursor.set(this.#run, 0)
    new DataView(cursor.buffer).setBigUint64(RUN_BYTES, BigInt(position.sequence))
    cursor.set(position.domains, RUN_BYTES + 8)
    cursor.set(this.#mac(agentId, cursor.subarray(0, PAYLOAD_BYTES)), PAYLOAD_BYTES)
    return toBase64Url(cursor)
  }

  /** undefined for anything but this run's cursor of this agent. */
  decode(agentId: string, text: string): CursorPosition | undefined {
    // Checked first: an agent chooses how much it sends.
    if (text.length !== Math.ceil(((PAYLOAD_BYTES + MAC_BYTES) * 4) / 3)) return undefined
    const cursor = fromBase64Url(text)
    if (cursor?.length !== PAYLOAD_BYTES + MAC_BYTES) return undefined
    const payload = cursor.subarray(0, PAYLOAD_BYTES)
    if (!timingSafeEqual(cursor.subarray(PAYLOAD_BYTES), this.#mac(agentId, payload))) {
      return undefined
    }
    if (!timingSafeEqual(cursor.subarray(0, RUN_BYTES), this.#run)) return undefined
    const view = new DataView(payload.buffer, payload.byteOffset)
    return {
      sequence: Number(view.getBigUint64(RUN_BYTES)),
      domains: payload.slice(RUN_BYTES + 8),
    }
  }

  #mac(agentId: string, payload: Uint8Array): Uint8Array {
    return createHmac('sha256', this.#key)
      .update(payload)
      .update(utf8(agentId))
      .digest()
      .subarray(0, MAC_BYTES)
  }
}

export function trustDomainsDigest(names: Iterable<string>): Uint8Array {
  // Names hold no separator.
  const digest = createHash('sha256')
    .update([...names].sort().join(' '))
    .digest()
  return new Uint8Array(digest.subarray(0, DIGEST_BYTES))
}
