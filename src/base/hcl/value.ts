/** Plain values of a configuration text, whichever language it was in. */

export type Raw = string | number | boolean | readonly Raw[] | RawObject

export interface RawObject {
  readonly [key: string]: Raw
}

export function isRawObject(value: unknown): value is RawObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
