/**
 * The zod vocabulary for configuration files: fields that decode as HCL v1's Go decoder does. Keys
 * match in any case, numbers may be quoted, a number may stand for a text, repeated blocks merge.
 */
import { z } from 'zod'
import { mergeRaw } from '../hcl/raw.ts'
import { isRawObject, type Raw } from '../hcl/value.ts'

/** Text; a number is taken as it was written. */
export const text = z
  .union([z.string(), z.number().transform(String)], { error: 'must be a string' })
  .optional()

export const texts = z
  .array(z.union([z.string(), z.number().transform(String)]), {
    error: 'must be a list of strings',
  })
  .optional()

export const flag = z.boolean({ error: 'must be true or false' }).optional()

/** A whole number, quoted or not, in decimal, hexadecimal or octal. */
export const whole = z
  .preprocess(
    (value) => (typeof value === 'string' ? wholeOf(value) : value),
    z.int({ error: 'must be a whole number' }),
  )
  .optional()

function wholeOf(value: string): unknown {
  if (/^[+-]?0[0-7]+$/.test(value)) return Number.parseInt(value, 8)
  return /^[+-]?(?:[0-9]+|0[xX][0-9a-fA-F]+)$/.test(value) ? Number(value) : value
}

/** A key that is known and that its builder looks at itself. */
export const anything = z.unknown().optional()

/** A block with these keys and no others. */
export function section<Shape extends z.ZodRawShape>(shape: Shape) {
  const names = new Map(Object.keys(shape).map((name) => [name.toLowerCase(), name]))
  return z
    .preprocess((value) => foldKeys(mergeBlocks(value), names), z.strictObject(shape, BLOCK))
    .optional()
}

/** A block whose unknown keys SPIRE tolerates: `experimental` and `telemetry`. */
export function lenientSection<Shape extends z.ZodRawShape>(shape: Shape) {
  const names = new Map(Object.keys(shape).map((name) => [name.toLowerCase(), name]))
  return z
    .preprocess((value) => foldKeys(mergeBlocks(value), names), z.looseObject(shape, BLOCK))
    .optional()
}

const BLOCK = {
  error: (issue: { readonly code?: string | undefined }) =>
    issue.code === 'invalid_type' ? 'must be a block' : undefined,
}

/** JSON has no repeated keys; a list of objects stands for repeated blocks. */
function mergeBlocks(value: unknown): unknown {
  if (!Array.isArray(value) || value.length === 0 || !value.every(isRawObject)) return value
  return value.reduce<Raw>((merged, block) => mergeRaw(merged, block), {})
}

/** HCL's decoder compares keys without case. Of two spellings the later one wins. */
function foldKeys(value: unknown, names: ReadonlyMap<string, string>): unknown {
  if (!isRawObject(value)) return value
  return Object.fromEntries(
    Object.entries(value).map(([key, inner]) => [names.get(key.toLowerCase()) ?? key, inner]),
  )
}
