/**
 * Messages as SPIRE's `-output json` prints them: proto JSON with the names of the .proto file,
 * fields that are unset but not optional printed, nulls removed, keys sorted, on one line, with the
 * characters escaped that Go escapes for HTML.
 */
import { createFileRegistry, type FileRegistry, fromBinary, toJson } from '@bufbuild/protobuf'
import { FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt'
import { descriptorSetBase64 } from '../../wire/gen/descriptor-set.ts'
import { CliError } from '../error.ts'

/** A response and the path of the method it answers, which knows the message's type. */
export interface Answer {
  readonly path: string
  bytes(): Uint8Array
}

export function answer<Response>(
  method: { readonly path: string; responseSerialize(value: Response): Uint8Array },
  response: Response,
): Answer {
  return { path: method.path, bytes: () => method.responseSerialize(response) }
}

/** One answer as an object, several as an array. */
export function protoJsonLine(answers: readonly Answer[]): string {
  const values = answers.map(plainOf)
  return goJsonLine(values.length === 1 ? values[0] : values)
}

/** JSON as Go's encoder writes it, and a line end; keys stay in their order. */
export function goJsonLine(value: unknown): string {
  const text = JSON.stringify(value)
  const escaped = text.replace(
    /[<>&\u2028\u2029]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
  )
  return `${escaped}\n`
}

let registry: FileRegistry | undefined

/** Built on first use: most commands print no JSON. The descriptors are constants. */
function descriptors(): FileRegistry {
  registry ??= createFileRegistry(
    fromBinary(FileDescriptorSetSchema, Buffer.from(descriptorSetBase64, 'base64')),
  )
  return registry
}

function plainOf(answer: Answer): unknown {
  const [, serviceName, methodName] = answer.path.split('/')
  const service = descriptors().getService(serviceName!)
  const method = service?.methods.find((candidate) => candidate.name === methodName)
  if (method === undefined) throw new CliError(`no description of ${answer.path}`)
  const json = toJson(method.output, fromBinary(method.output, answer.bytes()), {
    registry: descriptors(),
    alwaysEmitImplicit: true,
    useProtoFieldName: true,
  })
  return sortedWithoutNulls(json)
}

function sortedWithoutNulls(value: unknown): unknown {
  if (Array.isArray(value)) return value.filter((item) => item !== null).map(sortedWithoutNulls)
  if (typeof value !== 'object' || value === null) return value
  const entries = Object.entries(value).filter(([, inner]) => inner !== null)
  // Code units sort like Go's bytes for everything but astral characters in map keys.
  entries.sort(([a], [b]) => (a < b ? -1 : 1))
  return Object.fromEntries(entries.map(([key, inner]) => [key, sortedWithoutNulls(inner)]))
}
