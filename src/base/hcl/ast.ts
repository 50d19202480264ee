/**
 * What HCL v1 text parses to. Positions are kept so that every later complaint can name a line.
 *
 * HCL v1 calls everything a key with a value: `server { … }` and `server = { … }` are the same, and
 * `NodeAttestor "x509pop" { … }` is one item with two keys, as if the object were nested in two.
 */

/** Both count from 1; columns count UTF-16 units. */
export interface HclPosition {
  readonly line: number
  readonly column: number
}

export type HclNode = HclLiteral | HclList | HclObject

interface HclLiteral {
  readonly kind: 'literal'
  readonly value: string | number | boolean
  readonly position: HclPosition
}

interface HclList {
  readonly kind: 'list'
  readonly items: readonly HclNode[]
  readonly position: HclPosition
}

export interface HclObject {
  readonly kind: 'object'
  readonly items: readonly HclItem[]
  readonly position: HclPosition
}

export interface HclItem {
  /** At least one. */
  readonly keys: readonly string[]
  readonly value: HclNode
  readonly position: HclPosition
}
