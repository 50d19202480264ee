/**
 * Plugins whose configuration is read again on SIGUSR1, with SPIRE's messages (features.md §1.1).
 *
 * Differs from SPIRE: it reads `plugin_data_file` only. Files that the data names, such as x509pop's
 * CA bundles, are read again too, so a renewed bundle needs no restart.
 */
import { createHash } from 'node:crypto'
import { SignetError } from '../error.ts'
import { errorText } from '../log-text.ts'
import type { Log } from '../ports.ts'
import { readPluginDataFile } from './plugins.ts'
import type { ConfigFiles } from './types.ts'

/** As many as SPIRE shows. */
const HASH_DIGITS = 32

type PluginData = Readonly<Record<string, unknown>>

/** Where a plugin's data comes from. */
export interface PluginSource {
  /** The plugin's name. */
  readonly type: string
  readonly data: PluginData
  /** `plugin_data_file`, which is read instead; empty when the data stands in the configuration. */
  readonly dataFile: string
}

export interface Reconfigurable {
  /** Puts in force what is there now; logs what became of it and never throws. */
  reconfigure(): void
}

/** What a plugin makes of its data. */
export interface Configured<T> {
  readonly value: T
  /** Contents of the files that the data names and that were read for `value`. */
  readonly files: readonly Uint8Array[]
}

/** Collects what SIGUSR1 reaches. */
export interface Reconfigurables {
  add(plugin: Reconfigurable): void
}

export interface PluginContext {
  /** With `plugin_name` and `plugin_type`. */
  readonly log: Log
  readonly files: Pick<ConfigFiles, 'readText'>
  readonly reconfigurables: Reconfigurables
}

/**
 * Configures a plugin; the function gives what is in force. Throws what `configure` throws at start;
 * later a bad configuration leaves the one in force.
 */
export function configurePlugin<T>(
  source: PluginSource,
  context: PluginContext,
  configure: (data: PluginData) => Configured<T>,
): () => T {
  const { log } = context
  const { data, dataFile } = source
  const load = () =>
    dataFile === '' ? data : readPluginDataFile('plugin_data_file', dataFile, context.files)
  const make = (loaded: PluginData) => {
    const configured = configure(loaded)
    return { ...configured, hash: hashOf(loaded, configured.files) }
  }
  let current: ReturnType<typeof make>
  try {
    current = make(load())
  } catch (error) {
    throw notConfigured(source.type, log, error)
  }
  const reconfigurable = dataFile !== '' || current.files.length > 0
  log.info('Configured plugin', { reconfigurable, ...(reconfigurable && { hash: current.hash }) })
  if (!reconfigurable) return () => current.value
  const reload = () => {
    const next = make(load())
    if (next.hash === current.hash) {
      const { hash } = current
      log.info('Plugin not reconfigured since the config is unchanged', { hash })
      return
    }
    log.info('Plugin reconfigured', { old_hash: current.hash, new_hash: next.hash })
    current = next
  }
  context.reconfigurables.add({
    reconfigure() {
      try {
        reload()
      } catch (error) {
        log.error('Failed to reconfigure plugin', { error })
      }
    },
  })
  return () => current.value
}

/** As SPIRE's plugins report it: every bad configuration is an invalid argument. */
function notConfigured(name: string, log: Log, cause: unknown): SignetError {
  const text = `rpc error: code = InvalidArgument desc = ${errorText(cause)}`
  log.error('Failed to configure plugin', { error: text, external: false })
  const message = `failed to configure plugin ${JSON.stringify(name)}: ${text}`
  return new SignetError('invalid_argument', 'plugin_not_configured', message, { cause })
}

/** What SIGUSR1 does. */
export function reconfigureAll(log: Log, plugins: ReadonlySet<Reconfigurable>): void {
  log.info('Reconfigure signal received')
  if (plugins.size === 0) log.info('Nothing to reconfigure: no plugin is configured from a file')
  for (const plugin of plugins) plugin.reconfigure()
}

/** Says whether something changed; the data may hold secrets, of which it tells nothing. */
function hashOf(data: PluginData, files: readonly Uint8Array[]): string {
  const hash = createHash('sha256').update(JSON.stringify(data))
  for (const file of files) hash.update('\0').update(file)
  return hash.digest('hex').slice(0, HASH_DIGITS)
}
