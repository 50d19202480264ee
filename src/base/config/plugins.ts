/**
 * `plugins { TYPE "NAME" { … } }` (features.md §1.1, §2.1). A plugin that comes later is refused by
 * name instead of being ignored: a security setting that silently does nothing is worse than none.
 */
import type { z } from 'zod'
import { parseConfigText, type RawDocument } from '../hcl/raw.ts'
import { isRawObject, type Raw } from '../hcl/value.ts'
import { notYet, refuse } from './document.ts'
import { anything, flag, section, text, texts } from './fields.ts'
import type { ConfigFiles, PluginConfig } from './types.ts'

/** Names of one plugin type: those we have, and those SPIRE has beyond them. */
interface PluginType {
  readonly known: readonly string[]
  readonly later: readonly string[]
}

export type PluginCatalog = Readonly<Record<string, PluginType>>

const BLOCK = section({
  plugin_cmd: text,
  plugin_args: texts,
  plugin_checksum: text,
  plugin_data: anything,
  plugin_data_file: text,
  enabled: flag,
})

/** Enabled plugins in the file's order. */
export function readPlugins(
  raw: unknown,
  document: RawDocument,
  catalog: PluginCatalog,
  files: Pick<ConfigFiles, 'readText'>,
): PluginConfig[] {
  const plugins: PluginConfig[] = []
  for (const [type, byName] of entriesOf(raw, 'plugins')) {
    for (const [name, block] of entriesOf(byName, `plugins.${type}`)) {
      if (document.isRepeated(['plugins', type, name])) {
        throw refuse(`plugin "${type}"/"${name}" declared more than once`)
      }
      const plugin = readPlugin(type, name, block, files)
      if (plugin === undefined) continue
      checkCatalog(catalog, plugin)
      plugins.push(plugin)
    }
  }
  return plugins
}

function readPlugin(
  type: string,
  name: string,
  raw: unknown,
  files: Pick<ConfigFiles, 'readText'>,
): PluginConfig | undefined {
  const path = `plugins.${type}.${name}`
  const checked = BLOCK.safeParse(raw)
  if (!checked.success) {
    const issue = checked.error.issues[0]!
    if (issue.code === 'unrecognized_keys') {
      throw refuse(`${path}: unknown key ${issue.keys.join(', ')}`)
    }
    throw refuse(`${path}.${issue.path.join('.')}: ${issue.message}`)
  }
  const block = checked.data ?? {}
  if (block.enabled === false) return undefined
  if ((block.plugin_cmd ?? '') !== '')
    throw notYet(`external plugin "${type}"/"${name}" (plugin_cmd)`)
  if (block.plugin_data !== undefined && block.plugin_data_file !== undefined) {
    throw refuse(
      `failed to create plugin config for "${type}"/"${name}": only one of [plugin_data, plugin_data_file] can be used`,
    )
  }
  const dataFile = block.plugin_data_file ?? ''
  const data =
    dataFile === ''
      ? dataOf(block.plugin_data, `${path}.plugin_data`)
      : readPluginDataFile(`${path}.plugin_data_file`, dataFile, files)
  return { type, name, data, dataFile }
}

/** `key` is named in what it throws: invalid_argument for a file that is missing, unreadable or not HCL or JSON. */
export function readPluginDataFile(
  key: string,
  file: string,
  files: Pick<ConfigFiles, 'readText'>,
): Record<string, unknown> {
  let text: string
  try {
    text = files.readText(file)
  } catch (cause) {
    throw refuse(`${key}: cannot read ${JSON.stringify(file)}: ${reasonOf(cause)}`)
  }
  return { ...parseConfigText(text, new Set()).value }
}

/** Node's error code only: its message is fine too, but differs between systems. */
function reasonOf(cause: unknown): string {
  return cause instanceof Error && 'code' in cause ? String(cause.code) : 'unreadable'
}

function dataOf(raw: unknown, path: string): Record<string, unknown> {
  return raw === undefined ? {} : Object.fromEntries(entriesOf(raw, path))
}

/** HCL takes `x { }`, `x = { }` and, from JSON, `x: [{ }, { }]` for the same. */
function entriesOf(raw: unknown, path: string): [string, unknown][] {
  if (raw === undefined || raw === '') return []
  const blocks: unknown[] = Array.isArray(raw) ? raw : [raw]
  return blocks.flatMap((block) => {
    if (!isRawObject(block)) throw refuse(`${path}: must be a block`)
    return Object.entries(block) as [string, Raw][]
  })
}

function checkCatalog(catalog: PluginCatalog, plugin: PluginConfig): void {
  const type = Object.hasOwn(catalog, plugin.type) ? catalog[plugin.type] : undefined
  if (type === undefined) throw refuse(`unsupported plugin type "${plugin.type}"`)
  if (type.known.includes(plugin.name)) return
  if (type.later.includes(plugin.name)) throw notYet(`${plugin.type} "${plugin.name}"`)
  throw refuse(
    `failed to load plugin "${plugin.name}": no built-in plugin "${plugin.name}" for type "${plugin.type}"`,
  )
}

/** Exactly one of a type, or none; the name of SPIRE's constraint is in the message. */
export function atMostOne(
  plugins: readonly PluginConfig[],
  type: string,
): PluginConfig | undefined {
  const found = plugins.filter((plugin) => plugin.type === type)
  if (found.length > 1) {
    throw refuse(
      `plugin type "${type}" constraint not satisfied: expected exactly 1 but got ${found.length}`,
    )
  }
  return found[0]
}

/** Checks a plugin's own data; complaints name the plugin and the key. */
export function readPluginData<Schema extends z.ZodType>(
  plugin: PluginConfig,
  schema: Schema,
): z.output<Schema> {
  const result = schema.safeParse(plugin.data)
  if (result.success) return result.data
  const issue = result.error.issues[0]!
  const path = `plugins.${plugin.type}.${plugin.name}.plugin_data`
  if (issue.code === 'unrecognized_keys') {
    throw refuse(`${path}: unknown key ${[...issue.keys].sort().join(', ')}`)
  }
  throw refuse(`${[path, ...issue.path.map(String)].join('.')}: ${issue.message}`)
}
