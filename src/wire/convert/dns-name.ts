/**
 * DNS names of entries and CSRs (api.md §7.3). The texts are SPIRE's: its CLI shows them.
 *
 * Differs from SPIRE: its IDNA profile checks lengths and hyphens but lets any ASCII character
 * through (spaces, slashes, control characters). Those make no DNS name and would only mislead
 * who reads the certificate, so labels hold letters, digits, hyphens and underscores here.
 */
import { domainToASCII, domainToUnicode } from 'node:url'
import { SignetError } from '../../base/error.ts'

/** RFC 1035 §2.3.4, without the root label. */
const NAME_LENGTH_MAX = 253
const LABEL = /^[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?$/

/** A name, or a wildcard for one leading label. Throws invalid_argument. */
export function checkDnsName(name: string): string {
  if (!isAscii(name)) throw invalid('name must be ascii')
  const stars = name.split('*').length - 1
  if (stars > 1) throw invalid('too many wildcards')
  if (stars === 1 && !name.startsWith('*.')) throw invalid('wildcard must be first label')
  const plain = stars === 1 ? name.slice(2) : name
  if (plain.trim() === '') throw invalid('empty or only whitespace')
  if (plain.endsWith('.')) throw invalid('domain ends with dot')
  if (plain.length > NAME_LENGTH_MAX) throw idnaError(`invalid label ${JSON.stringify(plain)}`)
  for (const label of plain.split('.')) checkLabel(label, plain)
  return name
}

/**
 * Throws when a wildcard of the list covers another name of it: the latter would be redundant.
 */
export function checkWildcardOverlap(names: readonly string[]): void {
  const all = new Set(names)
  for (const name of all) {
    if (name.startsWith('*')) continue
    const wildcard = ['*', ...name.split('.').slice(1)].join('.')
    if (!all.has(wildcard)) continue
    throw invalid(
      `name "${name}" overlaps with an existing wildcard name in the list: wildcard overlap`,
    )
  }
}

function checkLabel(label: string, name: string): void {
  const wellFormed = LABEL.test(label)
  // A label with hyphens at its third and fourth place is punycode or nothing (RFC 5891 §4.2.3.1).
  const reserved = label.length > 4 && label.slice(2, 4) === '--'
  const punycode = reserved && isPunycode(label)
  if (!wellFormed || (reserved && !punycode)) {
    // An empty label does not say which name is meant; SPIRE names the whole then.
    throw idnaError(`invalid label ${JSON.stringify(label || name)}`)
  }
}

/** Node leaves a label as it is when its punycode is invalid. */
function isPunycode(label: string): boolean {
  const unicode = domainToUnicode(label)
  return unicode !== label && domainToASCII(unicode) === label
}

/** Two errors joined, in Go: a line each. */
function idnaError(text: string): SignetError {
  return invalid(`idna error\nidna: ${text}`)
}

function isAscii(text: string): boolean {
  for (let i = 0; i < text.length; i++) if (text.charCodeAt(i) > 0x7f) return false
  return true
}

function invalid(text: string): SignetError {
  return new SignetError('invalid_argument', 'bad_dns_name', text)
}
