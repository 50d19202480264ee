/**
 * The two string forms of HCL v1: quoted with Go's escapes, and heredocs. `${…}` in a quoted string
 * is carried as it stands (HCL v1 leaves interpolation to its consumers; SPIRE has none).
 */

const SIMPLE_ESCAPES: Readonly<Record<string, string>> = {
  a: '\x07',
  b: '\b',
  f: '\f',
  n: '\n',
  r: '\r',
  t: '\t',
  v: '\v',
  '\\': '\\',
  '"': '"',
}
const HEX_DIGITS: Readonly<Record<string, number>> = { x: 2, u: 4, U: 8 }
const CODE_POINT_MAX = 0x10ffff

/** What stands between the quotes; undefined for an escape that Go does not know. */
export function unquote(inner: string): string | undefined {
  if (!inner.includes('\\')) return inner
  const parts: (string | number)[] = []
  let at = 0
  while (at < inner.length) {
    if (inner.startsWith('${', at)) {
      const end = endOfInterpolation(inner, at)
      parts.push(inner.slice(at, end))
      at = end
    } else if (inner[at] === '\\') {
      const found = escapeAt(inner, at + 1)
      if (found === undefined) return undefined
      parts.push(found.value)
      at = found.end
    } else {
      const stop = /[\\$]/g
      stop.lastIndex = at + 1
      const end = stop.exec(inner)?.index ?? inner.length
      parts.push(inner.slice(at, end))
      at = end
    }
  }
  // `\xNN` and octal escapes are bytes, several of which may make one character.
  return Buffer.concat(
    parts.map((part) => (typeof part === 'number' ? Buffer.of(part) : Buffer.from(part))),
  ).toString('utf8')
}

function escapeAt(
  inner: string,
  at: number,
): { readonly value: string | number; readonly end: number } | undefined {
  const letter = inner[at] ?? ''
  const simple = Object.hasOwn(SIMPLE_ESCAPES, letter) ? SIMPLE_ESCAPES[letter] : undefined
  if (simple !== undefined) return { value: simple, end: at + 1 }
  if (/[0-7]/.test(letter)) {
    const digits = inner.slice(at, at + 3)
    const value = /^[0-7]{3}$/.test(digits) ? Number.parseInt(digits, 8) : 256
    return value > 255 ? undefined : { value, end: at + 3 }
  }
  const count = Object.hasOwn(HEX_DIGITS, letter) ? HEX_DIGITS[letter]! : 0
  const digits = inner.slice(at + 1, at + 1 + count)
  if (count === 0 || digits.length !== count || !/^[0-9a-fA-F]+$/.test(digits)) return undefined
  const value = Number.parseInt(digits, 16)
  const end = at + 1 + count
  if (letter === 'x') return { value, end }
  if (value > CODE_POINT_MAX || (value >= 0xd800 && value <= 0xdfff)) return undefined
  return { value: String.fromCodePoint(value), end }
}

function endOfInterpolation(inner: string, start: number): number {
  let braces = 1
  let at = start + 2
  while (at < inner.length && braces > 0) {
    if (inner[at] === '{') braces += 1
    else if (inner[at] === '}') braces -= 1
    at += 1
  }
  return at
}

/**
 * A heredoc from `<<NAME` to the line that holds NAME alone. `<<-NAME` strips the terminator's own
 * indentation from each line when all lines have it.
 */
export function heredocValue(
  text: string,
  start: number,
  fail: (at: number, why: string) => Error,
): { readonly value: string; readonly end: number } {
  const opening = /<<(-?)([\p{L}\p{Nd}_]*)([^\n]?)/uy
  opening.lastIndex = start
  const match = opening.exec(text)
  if (match === null) throw fail(start, "heredoc expected second '<', didn't see it")
  const [whole, dash, name, after] = match
  if (after !== '') throw fail(start, 'invalid characters in heredoc anchor')
  if (name === '') throw fail(start, 'zero-length heredoc anchor')
  let lineStart = start + whole.length + 1
  const lines: string[] = []
  for (;;) {
    const lineEnd = text.indexOf('\n', lineStart)
    if (lineEnd === -1) throw fail(start, 'heredoc not terminated')
    const line = text.slice(lineStart, lineEnd)
    if (line.trim() === name && line.trimEnd().length >= line.replace(/\r+$/, '').length) {
      const indent = line.slice(0, line.indexOf(name!))
      return { value: heredocBody(lines, indent, dash === '-'), end: lineEnd + 1 }
    }
    lines.push(line)
    lineStart = lineEnd + 1
  }
}

function heredocBody(lines: readonly string[], indent: string, strip: boolean): string {
  const body = lines.map((line) => `${line}\n`).join('')
  // HCL keeps the blanks before the terminator of an unstripped heredoc.
  if (!strip) return body + indent
  if (lines.every((line) => line.startsWith(indent))) {
    return lines.map((line) => `${line.slice(indent.length)}\n`).join('')
  }
  return (body + indent).replace(/[ \t]+$/, '')
}
