/**
 * Ledger rows as PostgreSQL's binary COPY format (PostgreSQL 18, "COPY", Binary Format), with the
 * protocol messages around it, in one buffer: Query, CopyData, CopyDone.
 *
 * The server reads messages in order, so data may follow the COPY command without waiting for its
 * answer; should the command fail, the server ignores them. The buffer is reused: a fresh one per
 * commit more than doubled the cost of single calls (signing.md §3.6).
 */
import { assert } from '../../../base/assert.ts'
import type { LedgerRow } from '../../../ca/ledger.ts'

const COPY =
  'copy signet.ledger (kind, cluster_id, authority_id, not_before, not_after, serial_number,' +
  ' spiffe_id, entry_id, caller_id, request_id, public_key_sha256, tbs_sha256)' +
  ' from stdin (format binary)'
const COLUMNS = 12
/** `PGCOPY\n\xff\r\n\0`, flags, header extension length. */
const HEADER = Buffer.concat([Buffer.from('PGCOPY\n\xff\r\n\0', 'latin1'), Buffer.alloc(8)])
/** 'Q', length, text, NUL. */
const QUERY = (() => {
  const text = Buffer.from(`${COPY}\0`, 'utf8')
  const head = Buffer.alloc(5)
  head.write('Q', 'latin1')
  head.writeUInt32BE(4 + text.length, 1)
  return Buffer.concat([head, text])
})()
/** 'c' and its length. */
const COPY_DONE = Buffer.from([0x63, 0, 0, 0, 4])
const TRAILER = 0xffff
/** Fixed parts of a row: column count, 12 lengths, three int8 and one int4. */
const ROW_FIXED_BYTES = 2 + COLUMNS * 4 + 3 * 8 + 4
const INITIAL_BYTES = 64 * 1024
/** A larger buffer is used once and dropped. */
const KEPT_BYTES_MAX = 1024 * 1024

export class CopyEncoder {
  #buffer = Buffer.allocUnsafeSlow(INITIAL_BYTES)
  #at = 0

  /** Valid until the next call. */
  encode(rows: readonly LedgerRow[]): Buffer {
    assert(rows.length > 0, 'a group has rows')
    if (this.#buffer.length > KEPT_BYTES_MAX) this.#buffer = Buffer.allocUnsafeSlow(INITIAL_BYTES)
    this.#reserve(boundOf(rows))
    const buffer = this.#buffer
    this.#at = QUERY.copy(buffer, 0)
    const dataAt = this.#at
    buffer[this.#at++] = 0x64 // 'd': CopyData
    this.#at += 4
    this.#at += HEADER.copy(buffer, this.#at)
    for (const row of rows) this.#row(row)
    this.#at = buffer.writeUInt16BE(TRAILER, this.#at)
    buffer.writeUInt32BE(this.#at - dataAt - 1, dataAt + 1)
    this.#at += COPY_DONE.copy(buffer, this.#at)
    return buffer.subarray(0, this.#at)
  }

  #reserve(bytes: number): void {
    if (this.#buffer.length < bytes) this.#buffer = Buffer.allocUnsafeSlow(bytes)
  }

  #row(row: LedgerRow): void {
    this.#at = this.#buffer.writeUInt16BE(COLUMNS, this.#at)
    // An enum travels as its label.
    this.#text(row.kind)
    this.#int4(row.clusterId)
    this.#int8(row.authorityId)
    this.#int8(row.notBefore)
    this.#int8(row.notAfter)
    this.#bytes(row.serialNumber)
    this.#text(row.spiffeId)
    this.#text(row.entryId)
    this.#text(row.callerId)
    this.#text(row.requestId)
    this.#bytes(row.publicKeySha256)
    this.#bytes(row.tbsSha256)
  }

  #int4(value: number): void {
    this.#at = this.#buffer.writeInt32BE(4, this.#at)
    this.#at = this.#buffer.writeInt32BE(value, this.#at)
  }

  #int8(value: number): void {
    assert(Number.isSafeInteger(value), 'a ledger number is an integer')
    this.#at = this.#buffer.writeInt32BE(8, this.#at)
    this.#at = this.#buffer.writeInt32BE(Math.floor(value / 2 ** 32), this.#at)
    this.#at = this.#buffer.writeUInt32BE(value >>> 0, this.#at)
  }

  #text(value: string): void {
    const length = this.#buffer.write(value, this.#at + 4, 'utf8')
    this.#buffer.writeInt32BE(length, this.#at)
    this.#at += 4 + length
  }

  #bytes(value: Uint8Array): void {
    this.#at = this.#buffer.writeInt32BE(value.length, this.#at)
    this.#buffer.set(value, this.#at)
    this.#at += value.length
  }
}

/** UTF-8 takes at most three bytes per UTF-16 unit. */
function boundOf(rows: readonly LedgerRow[]): number {
  let bytes = QUERY.length + 5 + HEADER.length + 2 + COPY_DONE.length
  for (const row of rows) {
    const units =
      row.kind.length +
      row.spiffeId.length +
      row.entryId.length +
      row.callerId.length +
      row.requestId.length
    bytes += ROW_FIXED_BYTES + 3 * units
    bytes += row.serialNumber.length + row.publicKeySha256.length + row.tbsSha256.length
  }
  return bytes
}
