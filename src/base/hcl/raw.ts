/**
 * The tree as plain values, by the rules of HCL's decoder: keys of one item nest, repeated objects
 * merge, repeated lists append, of repeated scalars the last one wins. Where each value stands is
 * kept beside it for complaints.
 */
import type { HclItem, HclNode, HclObject, HclPosition } from './ast.ts'
import { looksLikeJson, parseJsonConfig } from './json.ts'
import { parseHcl } from './parser.ts'
import { isRawObject, type Raw, type RawObject } from './value.ts'

export interface RawDocument {
  readonly value: RawObject
  /** Undefined for JSON, and for a path that is not in the file. */
  positionOf(path: readonly PropertyKey[]): HclPosition | undefined
  /** True when the same key (or chain of labels) stands more than once. */
  isRepeated(path: readonly PropertyKey[]): boolean
}

/** `repeatable` names keys (lower case) whose repeated blocks are a list, not one merged object. */
export function parseConfigText(text: string, repeatable: ReadonlySet<string>): RawDocument {
  if (looksLikeJson(text)) {
    const value = parseJsonConfig(text)
    return { value, positionOf: () => undefined, isRepeated: () => false }
  }
  const context = { repeatable, positions: new Map(), repeated: new Set<string>() }
  const value = objectToRaw(parseHcl(text), context, '')
  return {
    value,
    positionOf: (path) => context.positions.get(pathKey(path)),
    isRepeated: (path) => context.repeated.has(pathKey(path)),
  }
}

interface Context {
  readonly repeatable: ReadonlySet<string>
  readonly positions: Map<string, HclPosition>
  readonly repeated: Set<string>
}

type Mutable = { [key: string]: Raw }

function pathKey(path: readonly PropertyKey[]): string {
  return path.map((part) => `/${String(part)}`).join('')
}

function objectToRaw(object: HclObject, context: Context, path: string): RawObject {
  const out: Mutable = {}
  for (const item of object.items) addItem(out, item, context, path)
  return out
}

function addItem(out: Mutable, item: HclItem, context: Context, path: string): void {
  let target = out
  let at = path
  for (const label of item.keys.slice(0, -1)) {
    at += `/${label}`
    const inner = ownValue(target, label)
    const next: Mutable = isRawObject(inner) ? { ...inner } : {}
    setOwn(target, label, next)
    target = next
  }
  const key = item.keys.at(-1)!
  at += `/${key}`
  if (context.positions.has(at)) context.repeated.add(at)
  context.positions.set(at, item.position)
  const value = nodeToRaw(item.value, context, at)
  const merged = context.repeatable.has(key.toLowerCase())
    ? mergeRaw(ownValue(target, key), isRawObject(value) ? [value] : value)
    : mergeRaw(ownValue(target, key), value)
  setOwn(target, key, merged)
}

function nodeToRaw(node: HclNode, context: Context, path: string): Raw {
  switch (node.kind) {
    case 'literal':
      return node.value
    case 'list':
      return node.items.map((item, index) => nodeToRaw(item, context, `${path}/${index}`))
    case 'object':
      return objectToRaw(node, context, path)
  }
}

/** What a key holds after it was set to `later` once more. */
export function mergeRaw(earlier: Raw | undefined, later: Raw): Raw {
  if (Array.isArray(earlier) && Array.isArray(later)) return [...earlier, ...later]
  if (!isRawObject(earlier) || !isRawObject(later)) return later
  const out: Mutable = { ...earlier }
  for (const [key, value] of Object.entries(later)) {
    setOwn(out, key, mergeRaw(ownValue(out, key), value))
  }
  return out
}

function ownValue(object: RawObject, key: string): Raw | undefined {
  return Object.hasOwn(object, key) ? object[key] : undefined
}

/** Assignment to `__proto__` would change the object instead of adding a key. */
function setOwn(object: Mutable, key: string, value: Raw): void {
  Object.defineProperty(object, key, {
    value,
    enumerable: true,
    writable: true,
    configurable: true,
  })
}
