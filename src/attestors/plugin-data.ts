/**
 * `plugin_data` of attestors, decoded as SPIRE's do it: by HCL v1's rules for fields
 * (base/config/fields.ts), and with unknown keys ignored.
 */
import type { z } from 'zod'
import { SignetError } from '../base/error.ts'

/** Throws invalid_argument `bad_plugin_data`; `failure` is the attestor's own introduction to it. */
export function decodePluginData<T>(
  schema: z.ZodType<T>,
  data: Readonly<Record<string, unknown>>,
  failure: string,
): T {
  const result = schema.safeParse(data)
  if (result.success) return result.data
  const issue = result.error.issues[0]
  const path = issue?.path.join('.') ?? ''
  throw badPluginData(`${failure}: ${path === '' ? '' : `${path} `}${issue?.message}`)
}

export function badPluginData(text: string): SignetError {
  return new SignetError('invalid_argument', 'bad_plugin_data', text)
}
