/** PEM (RFC 7468): what files and some wire fields carry. Text outside blocks is ignored. */
import { SignetError } from '../base/error.ts'

export interface PemBlock {
  readonly label: string
  readonly der: Uint8Array
}

/**
 * Blocks in file order. Throws invalid_argument `malformed_pem` for a block that is not closed or
 * not base64.
 */
export function parsePem(text: string): PemBlock[] {
  const blocks: PemBlock[] = []
  let label: string | undefined
  let body: string[] = []
  for (const line of text.split(/\r?\n/)) {
    const begin = /^-----BEGIN ([A-Z0-9 ]+)-----\s*$/.exec(line)
    const end = /^-----END ([A-Z0-9 ]+)-----\s*$/.exec(line)
    if (begin) {
      if (label !== undefined) throw malformedPem('block starts inside a block')
      label = begin[1]!
      body = []
    } else if (end) {
      if (label === undefined || end[1] !== label)
        throw malformedPem('block ends with another label')
      blocks.push({ label, der: decodeBody(body.join('')) })
      label = undefined
    } else if (label !== undefined) {
      body.push(line.trim())
    }
  }
  if (label !== undefined) throw malformedPem('block does not end')
  return blocks
}

export function parsePemOf(text: string, label: string): Uint8Array[] {
  return parsePem(text).flatMap((block) => (block.label === label ? [block.der] : []))
}

export function formatPem(label: string, der: Uint8Array): string {
  const base64 = Buffer.from(der.buffer, der.byteOffset, der.byteLength).toString('base64')
  const lines = base64.match(/.{1,64}/g) ?? []
  return [`-----BEGIN ${label}-----`, ...lines, `-----END ${label}-----`, ''].join('\n')
}

function decodeBody(base64: string): Uint8Array {
  const bytes = Buffer.from(base64, 'base64')
  if (bytes.toString('base64') !== base64) throw malformedPem('block is not base64')
  return new Uint8Array(bytes)
}

function malformedPem(what: string): SignetError {
  return new SignetError('invalid_argument', 'malformed_pem', `malformed PEM: ${what}`)
}
