/**
 * HCL v1 text to a tree (hashicorp/hcl v1 grammar; features.md §1.1). Written from the grammar:
 *
 *   list of items:  { key+ ( "=" value | object ) [","] }
 *   value:          string | heredoc | number | bool | list | object
 *
 * Bounded in size and depth, so that no file can exhaust the stack. Pure.
 */
import { CONFIG_BYTES_MAX, CONFIG_DEPTH_MAX } from '../limits.ts'
import type { HclItem, HclNode, HclObject } from './ast.ts'
import { hclError } from './error.ts'
import { createScanner, type Scanner, type Token } from './scanner.ts'

const START = { line: 1, column: 1 }
/** How HCL names tokens in its complaints. */
const TOKEN_NAMES: Readonly<Record<string, string>> = {
  identifier: 'IDENT',
  string: 'STRING',
  heredoc: 'HEREDOC',
  number: 'NUMBER',
  bool: 'BOOL',
  '{': 'LBRACE',
  '}': 'RBRACE',
  '[': 'LBRACK',
  ']': 'RBRACK',
  ',': 'COMMA',
  '=': 'ASSIGN',
  end: 'EOF',
}

export function parseHcl(source: string): HclObject {
  if (Buffer.byteLength(source) > CONFIG_BYTES_MAX) {
    throw hclError(START, `configuration is larger than ${CONFIG_BYTES_MAX} bytes`)
  }
  const cursor = createCursor(createScanner(source.replaceAll('\r\n', '\n')))
  return { kind: 'object', items: parseItems(cursor, 'end', 0), position: START }
}

/** The scanner with one token of look-ahead. */
interface Cursor {
  peek(): Token
  take(): Token
  positionOf: Scanner['positionOf']
}

function createCursor(scanner: Scanner): Cursor {
  let ahead: Token | undefined
  const peek = () => {
    ahead ??= scanner.next()
    return ahead
  }
  const take = () => {
    const token = peek()
    ahead = undefined
    return token
  }
  return { peek, take, positionOf: scanner.positionOf }
}

function fail(cursor: Cursor, token: Token, text: string): Error {
  return hclError(cursor.positionOf(token.offset), text)
}

/** Up to and including the `end` token. */
function parseItems(cursor: Cursor, end: '}' | 'end', depth: number): HclItem[] {
  const items: HclItem[] = []
  while (cursor.peek().type !== end) {
    items.push(parseItem(cursor, end, depth))
    if (cursor.peek().type === ',') cursor.take()
  }
  cursor.take()
  return items
}

function parseItem(cursor: Cursor, end: '}' | 'end', depth: number): HclItem {
  const first = cursor.peek()
  const keys = parseKeys(cursor, end)
  const position = cursor.positionOf(first.offset)
  const token = cursor.take()
  if (token.type === '=') {
    if (keys.length > 1) throw fail(cursor, token, 'nested object expected: LBRACE got: ASSIGN')
    return { keys, value: parseValue(cursor, depth), position }
  }
  if (token.type === '{') return { keys, value: parseObject(cursor, token, depth), position }
  throw fail(
    cursor,
    token,
    `key '${keys.join(' ')}' expected start of object ('{') or assignment ('=')`,
  )
}

function parseKeys(cursor: Cursor, end: '}' | 'end'): string[] {
  const keys: string[] = []
  while (cursor.peek().type === 'identifier' || cursor.peek().type === 'string') {
    keys.push(String(cursor.take().value))
  }
  if (keys.length > 0) return keys
  const token = cursor.peek()
  const got = TOKEN_NAMES[token.type]
  if (token.type === 'end' && end === '}') {
    throw fail(cursor, token, 'object expected closing RBRACE got: EOF')
  }
  if (token.type === '=') throw fail(cursor, token, 'no object keys found!')
  throw fail(cursor, token, `expected: IDENT | STRING | ASSIGN | LBRACE got: ${got}`)
}

function parseObject(cursor: Cursor, open: Token, depth: number): HclObject {
  checkDepth(cursor, open, depth)
  const position = cursor.positionOf(open.offset)
  return { kind: 'object', items: parseItems(cursor, '}', depth + 1), position }
}

function parseValue(cursor: Cursor, depth: number): HclNode {
  const token = cursor.take()
  switch (token.type) {
    case 'string':
    case 'heredoc':
    case 'number':
    case 'bool':
      return { kind: 'literal', value: token.value, position: cursor.positionOf(token.offset) }
    case '{':
      return parseObject(cursor, token, depth)
    case '[':
      return parseList(cursor, token, depth)
    default:
      throw fail(cursor, token, `unexpected ${TOKEN_NAMES[token.type]} where a value should be`)
  }
}

function parseList(cursor: Cursor, open: Token, depth: number): HclNode {
  checkDepth(cursor, open, depth)
  const items: HclNode[] = []
  for (;;) {
    // HCL takes any number of commas before a value.
    while (cursor.peek().type === ',') cursor.take()
    if (cursor.peek().type === ']') break
    items.push(parseValue(cursor, depth + 1))
    const after = cursor.peek()
    if (after.type !== ',' && after.type !== ']') {
      const got = TOKEN_NAMES[after.type]
      throw fail(cursor, after, `error parsing list, expected comma or list end, got: ${got}`)
    }
  }
  cursor.take()
  return { kind: 'list', items, position: cursor.positionOf(open.offset) }
}

function checkDepth(cursor: Cursor, token: Token, depth: number): void {
  if (depth >= CONFIG_DEPTH_MAX) {
    throw fail(cursor, token, `nested deeper than ${CONFIG_DEPTH_MAX} levels`)
  }
}
