/**
 * `plugin_data` of the `unix` workload attestor (features.md §2.3). Values are read as loosely as
 * SPIRE's HCL decoder reads them: booleans and numbers may be quoted. Unknown keys are ignored, as
 * SPIRE does for this plug-in.
 */
import { SignetError } from '../../../base/error.ts'

export interface UnixAttestorConfig {
  /** Also gives `path` and `sha256`, which needs rights over the workload's process. */
  readonly discoverWorkloadPath: boolean
  /** 0: no limit; negative: never hash. */
  readonly workloadSizeLimitBytes: number
}

export function parseUnixAttestorConfig(
  pluginData: Readonly<Record<string, unknown>>,
): UnixAttestorConfig {
  return {
    discoverWorkloadPath: readBoolean(pluginData, 'discover_workload_path'),
    workloadSizeLimitBytes: readInteger(pluginData, 'workload_size_limit'),
  }
}

function readBoolean(data: Readonly<Record<string, unknown>>, key: string): boolean {
  const value = data[key]
  if (value === undefined) return false
  if (typeof value === 'boolean') return value
  // The spellings of Go's strconv.ParseBool.
  if (/^(1|t|T|true|TRUE|True)$/.test(String(value))) return true
  if (/^(0|f|F|false|FALSE|False)$/.test(String(value))) return false
  throw bad(key, 'a boolean')
}

function readInteger(data: Readonly<Record<string, unknown>>, key: string): number {
  const value = data[key] ?? 0
  const number = typeof value === 'string' && /^[+-]?\d+$/.test(value) ? Number(value) : value
  if (typeof number !== 'number' || !Number.isSafeInteger(number)) throw bad(key, 'an integer')
  return number
}

function bad(key: string, wanted: string): SignetError {
  return new SignetError(
    'invalid_argument',
    'bad_plugin_data',
    `failed to decode configuration: ${key} must be ${wanted}`,
  )
}
