/** `plugin_data` of the `unix` workload attestor (features.md §2.3). */
import { flag, lenientSection, whole } from '../../../base/config/fields.ts'
import { decodePluginData } from '../../plugin-data.ts'

export interface UnixAttestorConfig {
  /** Also gives `path` and `sha256`, which needs rights over the workload's process. */
  readonly discoverWorkloadPath: boolean
  /** 0: no limit; negative: never hash. */
  readonly workloadSizeLimitBytes: number
}

const SCHEMA = lenientSection({ discover_workload_path: flag, workload_size_limit: whole }).unwrap()

/** Throws invalid_argument `bad_plugin_data`. */
export function parseUnixAttestorConfig(
  pluginData: Readonly<Record<string, unknown>>,
): UnixAttestorConfig {
  const raw = decodePluginData(SCHEMA, pluginData, 'failed to decode configuration')
  return {
    discoverWorkloadPath: raw.discover_workload_path ?? false,
    workloadSizeLimitBytes: raw.workload_size_limit ?? 0,
  }
}
