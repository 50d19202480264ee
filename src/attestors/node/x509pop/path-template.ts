/**
 * The part of Go's text/template that `agent_path_template` is used with: text and field references
 * (`/{{ .PluginName }}/{{ .Fingerprint }}`), comments and trim markers. Functions and control
 * structures are refused by name when the configuration is read; nothing is evaluated.
 */
import { SignetError } from '../../../base/error.ts'

export interface AgentPathTemplate {
  /** Throws internal `agent_path_failed` for a map key that is not there. */
  render(fields: AgentPathFields): string
}

interface AgentPathFields {
  /** By dotted path: `Subject.CommonName`. */
  readonly values: ReadonlyMap<string, string>
  /** By name of the map, then key: `URISanSelectors.cluster`. */
  readonly maps: ReadonlyMap<string, ReadonlyMap<string, string>>
}

export interface AgentPathVocabulary {
  readonly values: readonly string[]
  readonly maps: readonly string[]
}

type Part = { readonly text: string } | { readonly path: string }

/** Throws invalid_argument `bad_agent_path_template`. */
export function parseAgentPathTemplate(
  source: string,
  vocabulary: AgentPathVocabulary,
): AgentPathTemplate {
  const parts = split(source, vocabulary)
  return {
    render: (fields) =>
      parts.map((part) => ('text' in part ? part.text : lookUp(part.path, fields))).join(''),
  }
}

function split(source: string, vocabulary: AgentPathVocabulary): Part[] {
  const parts: Part[] = []
  let rest = source
  let trimLeft = false
  while (true) {
    const open = rest.indexOf('{{')
    const text = open === -1 ? rest : rest.slice(0, open)
    const shown = trimLeft ? text.trimStart() : text
    if (open === -1) return [...parts, { text: shown }]
    const close = rest.indexOf('}}', open)
    if (close === -1) throw bad(source, 'unclosed action')
    const { body, trimBefore, trimAfter } = trimMarkers(rest.slice(open + 2, close))
    parts.push({ text: trimBefore ? shown.trimEnd() : shown })
    if (!/^\/\*.*\*\/$/s.test(body)) parts.push({ path: fieldPath(body, source, vocabulary) })
    rest = rest.slice(close + 2)
    trimLeft = trimAfter
  }
}

function trimMarkers(action: string) {
  const trimBefore = /^-\s/.test(action)
  const trimAfter = /\s-$/.test(action)
  const body = action.slice(trimBefore ? 1 : 0, trimAfter ? -1 : undefined).trim()
  return { body, trimBefore, trimAfter }
}

function fieldPath(body: string, source: string, vocabulary: AgentPathVocabulary): string {
  if (!/^\.[A-Za-z_]\w*(\.\w+)*$/.test(body)) {
    const word = /^[A-Za-z]\w*/.exec(body)?.[0]
    throw bad(
      source,
      word ? `${JSON.stringify(word)} is not supported yet` : 'only fields are supported',
    )
  }
  const path = body.slice(1)
  const inMap = vocabulary.maps.some(
    (name) => path.startsWith(`${name}.`) && !path.slice(name.length + 1).includes('.'),
  )
  if (!inMap && !vocabulary.values.includes(path)) throw bad(source, `no field .${path}`)
  return path
}

function lookUp(path: string, fields: AgentPathFields): string {
  const value = fields.values.get(path)
  if (value !== undefined) return value
  const dot = path.indexOf('.')
  const found = fields.maps.get(path.slice(0, dot))?.get(path.slice(dot + 1))
  if (found !== undefined) return found
  // Go would print "<no value>"; SPIRE asks it to fail instead (missingkey=error).
  throw new SignetError(
    'internal',
    'agent_path_failed',
    `failed to make spiffe id: map has no entry for key ${JSON.stringify(path.slice(dot + 1))}`,
  )
}

function bad(source: string, why: string): SignetError {
  return new SignetError(
    'invalid_argument',
    'bad_agent_path_template',
    `failed to parse agent svid template: ${JSON.stringify(source)}: ${why}`,
  )
}
