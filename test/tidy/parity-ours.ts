/** What the code offers by itself, as names that `test/parity.tsv` can be asked for. */
import type { z } from 'zod'

/** `package.Service/Method` of each method in a generated module. */
export function methodsOf(text: string): string[] {
  return [...text.matchAll(/path: ["']\/([\w.]+\/\w+)["']/g)].map((match) => match[1]!)
}

/** Dotted paths of all keys that are no block of known keys themselves. */
export function schemaKeys(schema: z.ZodType, prefix = ''): string[] {
  const shape = shapeOf(schema)
  if (shape === undefined || (prefix !== '' && Object.keys(shape).length === 0)) {
    return prefix === '' ? [] : [prefix]
  }
  return Object.entries(shape).flatMap(([key, inner]) =>
    schemaKeys(inner, prefix === '' ? key : `${prefix}.${key}`),
  )
}

/** Of the block below optional and preprocess, if there is one. */
function shapeOf(schema: z.ZodType): Readonly<Record<string, z.ZodType>> | undefined {
  const def = schema.def as {
    readonly type: string
    readonly innerType?: z.ZodType
    readonly out?: z.ZodType
    readonly shape?: Readonly<Record<string, z.ZodType>>
  }
  if (def.type === 'object') return def.shape
  const inner = def.innerType ?? def.out
  return inner === undefined ? undefined : shapeOf(inner)
}

/** Flags of a usage as Go lays it out. */
export function usageFlags(usage: string): string[] {
  return [...usage.matchAll(/^ {2}-(\w+)/gm)].map((match) => match[1]!)
}

/** The command that a command line names: the longest run of its leading words. */
export function wordsOf(commands: Readonly<Record<string, unknown>>, args: readonly string[]) {
  const end = args.findIndex((word) => word.startsWith('-'))
  const words = end === -1 ? args : args.slice(0, end)
  for (let count = words.length; count > 0; count--) {
    const name = words.slice(0, count).join(' ')
    if (Object.hasOwn(commands, name)) return name
  }
  return ''
}
