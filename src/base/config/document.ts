/**
 * A configuration text checked against its schema. Complaints name the path and, for HCL, the line;
 * unknown keys are fatal with SPIRE's text, their sections and keys in the error's `fields`.
 */
import type { z } from 'zod'
import { SignetError } from '../error.ts'
import { expandEnv } from '../hcl/expand-env.ts'
import { parseConfigText, type RawDocument } from '../hcl/raw.ts'
import type { ConfigSources } from './types.ts'

/** Blocks that may stand several times and mean a list then. */
const REPEATABLE: ReadonlySet<string> = new Set(['statsd', 'dogstatsd', 'm3', 'brokers'])

/** What SPIRE calls the places where it finds unknown keys. */
const SECTION_NAMES: Readonly<Record<string, string>> = {
  '': 'top-level',
  health_checks: 'health check',
}

/** One place with keys that nobody knows; the keys are sorted. */
export interface UnknownKeys {
  readonly section: string
  readonly keys: readonly string[]
}

export interface Checked<Schema extends z.ZodType> {
  readonly raw: z.output<Schema>
  readonly document: RawDocument
}

export function checkDocument<Schema extends z.ZodType>(
  text: string,
  sources: Pick<ConfigSources, 'expandEnv' | 'env'>,
  schema: Schema,
): Checked<Schema> {
  const expanded = sources.expandEnv ? expandEnv(text, sources.env) : text
  const document = parseConfigText(expanded, REPEATABLE)
  const result = schema.safeParse(document.value)
  if (result.success) return { raw: result.data, document }
  throw complaint(result.error.issues, document)
}

function complaint(issues: readonly z.core.$ZodIssue[], document: RawDocument): SignetError {
  const unknown: UnknownKeys[] = []
  for (const issue of issues) {
    if (issue.code !== 'unrecognized_keys') return badValue(issue, document)
    const last = String(issue.path.at(-1) ?? '')
    unknown.push({ section: SECTION_NAMES[last] ?? last, keys: [...issue.keys].sort() })
  }
  return new SignetError(
    'invalid_argument',
    'unknown_configuration',
    'unknown configuration detected',
    { fields: { unknown: unknown.reverse() } },
  )
}

function badValue(issue: z.core.$ZodIssue, document: RawDocument): SignetError {
  const at = document.positionOf(issue.path)
  const where = at === undefined ? '' : `At ${at.line}:${at.column}: `
  return new SignetError(
    'invalid_argument',
    'bad_configuration',
    `${where}${issue.path.map(String).join('.')}: ${issue.message}`,
    { fields: { path: issue.path.map(String) } },
  )
}

/** The sections of an `unknown_configuration` error, in the file's order; empty for any other error. */
export function unknownKeysOf(error: unknown): readonly UnknownKeys[] {
  if (!(error instanceof SignetError) || error.code !== 'unknown_configuration') return []
  return error.fields.unknown as readonly UnknownKeys[]
}

/** A value that is in the file but cannot be used. */
export function refuse(text: string): SignetError {
  return new SignetError('invalid_argument', 'bad_configuration', text)
}

/** Something SPIRE has and we will have, but do not have yet. */
export function notYet(what: string): SignetError {
  return new SignetError('unimplemented', 'not_supported_yet', `${what} is not supported yet`)
}
