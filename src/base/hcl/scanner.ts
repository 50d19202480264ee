/**
 * Tokens of HCL v1 (hashicorp/hcl, the dialect of SPIRE's files). Text in, tokens out; the parser
 * gives them meaning. Every regular expression is anchored (`y`) and linear, so hostile text costs
 * no more than its length.
 */
import type { HclPosition } from './ast.ts'
import { hclError } from './error.ts'
import { heredocValue, unquote } from './strings.ts'

type TokenType =
  | 'identifier'
  | 'string'
  | 'heredoc'
  | 'number'
  | 'bool'
  | '{'
  | '}'
  | '['
  | ']'
  | ','
  | '='
  | 'end'

export interface Token {
  readonly type: TokenType
  /** The value of a literal, the text of anything else. */
  readonly value: string | number | boolean
  readonly offset: number
}

export interface Scanner {
  next(): Token
  positionOf(offset: number): HclPosition
}

const SPACES = /[ \t\n\r]*/y
const IDENTIFIER = /[\p{L}_][\p{L}\p{Nd}_.-]*/uy
const NUMBER = /-?(?:0[xX][0-9a-fA-F]+|(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)/y
const PUNCTUATION = new Set(['{', '}', '[', ']', ',', '='])

/** `text` has `\n` line ends only. */
export function createScanner(text: string): Scanner {
  let offset = 0
  const lineStarts = lineStartsOf(text)
  const positionOf = (at: number) => positionIn(lineStarts, at)
  const fail = (at: number, why: string) => hclError(positionOf(at), why)

  function skipBlank(): void {
    for (;;) {
      SPACES.lastIndex = offset
      SPACES.test(text)
      offset = SPACES.lastIndex
      if (text[offset] === '#' || text.startsWith('//', offset)) {
        const end = text.indexOf('\n', offset)
        offset = end === -1 ? text.length : end
      } else if (text.startsWith('/*', offset)) {
        const end = text.indexOf('*/', offset + 2)
        if (end === -1) throw fail(offset, 'comment not terminated')
        offset = end + 2
      } else return
    }
  }

  function next(): Token {
    skipBlank()
    const start = offset
    const character = text[start]
    if (character === undefined) return { type: 'end', value: '', offset: start }
    if (PUNCTUATION.has(character)) {
      offset += 1
      return { type: character as TokenType, value: character, offset: start }
    }
    if (character === '"') {
      offset = endOfString(text, start, fail)
      return { type: 'string', value: unquoteAt(start), offset: start }
    }
    if (character === '<') {
      const heredoc = heredocValue(text, start, fail)
      offset = heredoc.end
      return { type: 'heredoc', value: heredoc.value, offset: start }
    }
    return wordAt(start, character)
  }

  function unquoteAt(start: number): string {
    const value = unquote(text.slice(start + 1, offset - 1))
    if (value === undefined) throw fail(start, 'illegal char escape')
    return value
  }

  function wordAt(start: number, character: string): Token {
    IDENTIFIER.lastIndex = start
    const word = IDENTIFIER.exec(text)?.[0]
    if (word !== undefined) {
      offset = start + word.length
      if (word === 'true' || word === 'false') {
        return { type: 'bool', value: word === 'true', offset: start }
      }
      return { type: 'identifier', value: word, offset: start }
    }
    NUMBER.lastIndex = start
    const digits = NUMBER.exec(text)?.[0]
    if (digits === undefined) throw fail(start, illegalText(character))
    offset = start + digits.length
    return {
      type: 'number',
      value: numberOf(digits, () => fail(start, 'illegal number')),
      offset: start,
    }
  }

  return { next, positionOf }
}

function illegalText(character: string): string {
  if (character === '/') return "expected '/' for comment"
  return character === '\0' ? 'unexpected null character (0x00)' : 'illegal character'
}

/** One past the closing quote. Quotes and line ends inside `${…}` belong to the string. */
function endOfString(
  text: string,
  start: number,
  fail: (at: number, why: string) => Error,
): number {
  let braces = 0
  for (let at = start + 1; at < text.length; at += 1) {
    const character = text[at]
    if (character === '\\') at += 1
    else if (character === '\n' && braces === 0) break
    else if (character === '"' && braces === 0) return at + 1
    else if (braces === 0 && character === '$' && text[at + 1] === '{') {
      braces = 1
      at += 1
    } else if (braces > 0 && character === '{') braces += 1
    else if (braces > 0 && character === '}') braces -= 1
  }
  throw fail(start, 'literal not terminated')
}

/** Go's base-0 integers (`0x1f`, `017`) and floats. What a double cannot hold exactly is refused. */
function numberOf(digits: string, fail: () => Error): number {
  const negative = digits.startsWith('-')
  const bare = negative ? digits.slice(1) : digits
  let value: number
  if (/^0[0-9]+$/.test(bare)) {
    if (/[89]/.test(bare)) throw fail()
    value = Number.parseInt(bare, 8)
  } else value = Number(bare)
  const whole = /^(?:0[xX])?[0-9a-fA-F]+$/.test(bare) && !/^[0-9]+[eE]/.test(bare)
  if (!Number.isFinite(value) || (whole && !Number.isSafeInteger(value))) throw fail()
  return negative ? -value : value
}

function lineStartsOf(text: string): number[] {
  const starts = [0]
  for (let at = text.indexOf('\n'); at !== -1; at = text.indexOf('\n', at + 1)) starts.push(at + 1)
  return starts
}

function positionIn(lineStarts: readonly number[], offset: number): HclPosition {
  let low = 0
  let high = lineStarts.length - 1
  while (low < high) {
    const middle = (low + high + 1) >> 1
    if (lineStarts[middle]! <= offset) low = middle
    else high = middle - 1
  }
  return { line: low + 1, column: offset - lineStarts[low]! + 1 }
}
