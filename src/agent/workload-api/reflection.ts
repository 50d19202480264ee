/**
 * Server reflection, v1 and v1alpha (api.md §12.6), from the descriptor set that generation leaves
 * behind. Only names are read out of it; files are handed on as they are, each with what it
 * imports.
 */
import { BinaryReader } from '@bufbuild/protobuf/wire'
import type { ServerDuplexStream, UntypedServiceImplementation } from '@grpc/grpc-js'
import { status } from '@grpc/grpc-js'
import { descriptorSetBase64 } from '../../wire/gen/descriptor-set.ts'
import type {
  ServerReflectionRequest,
  ServerReflectionResponse,
} from '../../wire/gen/grpc/reflection/v1/reflection.ts'

type ReflectionAnswer = Omit<ServerReflectionResponse, 'validHost' | 'originalRequest'>

export interface Reflection {
  answer(request: ServerReflectionRequest): ReflectionAnswer
}

interface DescriptorFile {
  readonly bytes: Uint8Array
  readonly name: string
  readonly dependencies: readonly string[]
  readonly symbols: readonly string[]
}

/** `services`: fully qualified names of what the socket serves. */
export function createReflection(services: readonly string[]): Reflection {
  const files = parseDescriptorSet(Buffer.from(descriptorSetBase64, 'base64'))
  const byName = new Map(files.map((file) => [file.name, file]))
  const bySymbol = new Map(files.flatMap((file) => file.symbols.map((symbol) => [symbol, file])))
  const fileAnswer = (file: DescriptorFile | undefined, what: string): ReflectionAnswer =>
    file === undefined
      ? notFound(what)
      : { fileDescriptorResponse: { fileDescriptorProto: withImports(file, byName) } }
  return {
    answer(request) {
      const { fileByFilename, fileContainingSymbol, allExtensionNumbersOfType } = request
      if (request.listServices !== undefined) {
        const service = [...services].sort().map((name) => ({ name }))
        return { listServicesResponse: { service } }
      }
      if (fileByFilename !== undefined) {
        return fileAnswer(byName.get(fileByFilename), fileByFilename)
      }
      if (fileContainingSymbol !== undefined) {
        return fileAnswer(findSymbol(bySymbol, fileContainingSymbol), fileContainingSymbol)
      }
      if (allExtensionNumbersOfType !== undefined) {
        if (!bySymbol.has(allExtensionNumbersOfType)) return notFound(allExtensionNumbersOfType)
        const answer = { baseTypeName: allExtensionNumbersOfType, extensionNumber: [] }
        return { allExtensionNumbersResponse: answer }
      }
      if (request.fileContainingExtension !== undefined) {
        return notFound(request.fileContainingExtension.containingType)
      }
      return failure(status.INVALID_ARGUMENT, 'invalid MessageRequest')
    },
  }
}

/** The two versions have the same messages, so one handler serves both. */
export function reflectionImplementation(reflection: Reflection): UntypedServiceImplementation {
  return {
    serverReflectionInfo(
      call: ServerDuplexStream<ServerReflectionRequest, ServerReflectionResponse>,
    ) {
      call.on('data', (request: ServerReflectionRequest) => {
        const answer = reflection.answer(request)
        call.write({ validHost: request.host, originalRequest: request, ...answer })
      })
      call.on('end', () => call.end())
      call.on('error', () => {})
    },
  }
}

/** A method or field is found through the symbol that contains it. */
function findSymbol(
  bySymbol: ReadonlyMap<string, DescriptorFile>,
  symbol: string,
): DescriptorFile | undefined {
  const file = bySymbol.get(symbol)
  if (file !== undefined) return file
  const dot = symbol.lastIndexOf('.')
  return dot === -1 ? undefined : bySymbol.get(symbol.slice(0, dot))
}

function withImports(
  file: DescriptorFile,
  byName: ReadonlyMap<string, DescriptorFile>,
): Uint8Array[] {
  const seen = new Set<DescriptorFile>([file])
  for (const one of seen) {
    for (const name of one.dependencies) {
      const imported = byName.get(name)
      if (imported !== undefined) seen.add(imported)
    }
  }
  return [...seen].map((one) => one.bytes)
}

/** FileDescriptorSet: field 1 is a file. */
function parseDescriptorSet(bytes: Uint8Array): DescriptorFile[] {
  return submessages(bytes, 1).map(parseFile)
}

/** FileDescriptorProto: name 1, package 2, dependency 3, message 4, enum 5, service 6. */
function parseFile(bytes: Uint8Array): DescriptorFile {
  const packageName = strings(bytes, 2)[0] ?? ''
  const prefix = packageName === '' ? '' : `${packageName}.`
  const symbols = [
    ...submessages(bytes, 4).flatMap((message) => messageSymbols(message, prefix)),
    ...[...submessages(bytes, 5), ...submessages(bytes, 6)].map((one) => prefix + nameOf(one)),
  ]
  return { bytes, name: nameOf(bytes), dependencies: strings(bytes, 3), symbols }
}

/** DescriptorProto: name 1, nested message 3, nested enum 4. */
function messageSymbols(bytes: Uint8Array, prefix: string): string[] {
  const name = prefix + nameOf(bytes)
  return [
    name,
    ...submessages(bytes, 3).flatMap((nested) => messageSymbols(nested, `${name}.`)),
    ...submessages(bytes, 4).map((nested) => `${name}.${nameOf(nested)}`),
  ]
}

function nameOf(bytes: Uint8Array): string {
  return strings(bytes, 1)[0] ?? ''
}

function strings(bytes: Uint8Array, field: number): string[] {
  return submessages(bytes, field).map((text) => Buffer.from(text).toString('utf8'))
}

/** The length-delimited values of one field, in order. */
function submessages(bytes: Uint8Array, field: number): Uint8Array[] {
  const reader = new BinaryReader(bytes)
  const found: Uint8Array[] = []
  while (reader.pos < reader.len) {
    const [number, wireType] = reader.tag()
    if (number === field && wireType === 2) found.push(reader.bytes())
    else reader.skip(wireType, number)
  }
  return found
}

function notFound(what: string): ReflectionAnswer {
  return failure(status.NOT_FOUND, `Symbol not found: ${what}`)
}

function failure(errorCode: number, errorMessage: string): ReflectionAnswer {
  return { errorResponse: { errorCode, errorMessage } }
}
