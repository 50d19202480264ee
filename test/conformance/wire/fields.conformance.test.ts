/**
 * Our descriptors against the field tables of the SPIFFE and SPIRE APIs: every message, field,
 * enum value and method, with its number, label and type.
 */
import { readFileSync } from 'node:fs'
import { fromBinary } from '@bufbuild/protobuf'
import {
  type DescriptorProto,
  type EnumDescriptorProto,
  type FieldDescriptorProto,
  FieldDescriptorProto_Label,
  FieldDescriptorProto_Type,
  type FileDescriptorProto,
  FileDescriptorSetSchema,
  type ServiceDescriptorProto,
} from '@bufbuild/protobuf/wkt'
import { expect, test } from 'vitest'
import { descriptorSetBase64 } from '../../../src/wire/gen/descriptor-set.ts'

const VECTORS = new URL('../../vectors/wire/fields.tsv', import.meta.url)
const OURS = ['grpc.', 'google.', 'signet.']

test('every table row is in our descriptors, and nothing else is', () => {
  const expected = readFileSync(VECTORS, 'utf8')
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#'))
  const set = fromBinary(FileDescriptorSetSchema, Buffer.from(descriptorSetBase64, 'base64'))
  const actual = set.file
    .filter((file) => !OURS.some((prefix) => file.package.startsWith(prefix)))
    .flatMap(rowsOfFile)
  expect(expected.length).toBeGreaterThan(500)
  expect(actual.toSorted()).toEqual(expected.toSorted())
})

function rowsOfFile(file: FileDescriptorProto): string[] {
  const prefix = file.package === '' ? '' : `${file.package}.`
  return [
    ...file.messageType.flatMap((message) => rowsOfMessage(message, prefix)),
    ...file.enumType.flatMap((e) => rowsOfEnum(e, prefix)),
    ...file.service.flatMap((service) => rowsOfService(service, prefix)),
  ]
}

function rowsOfMessage(message: DescriptorProto, prefix: string): string[] {
  const name = prefix + message.name
  const nested = message.nestedType.filter((type) => type.options?.mapEntry !== true)
  const rows = message.field.map((field) => rowOfField(message, field, name))
  return [
    ...(rows.length === 0 ? [name] : rows),
    ...nested.flatMap((type) => rowsOfMessage(type, `${name}.`)),
    ...message.enumType.flatMap((e) => rowsOfEnum(e, `${name}.`)),
  ]
}

function rowOfField(message: DescriptorProto, field: FieldDescriptorProto, name: string): string {
  const entry = message.nestedType.find(
    (type) => type.options?.mapEntry === true && field.typeName.endsWith(`.${type.name}`),
  )
  const label = field.proto3Optional
    ? 'optional'
    : field.label === FieldDescriptorProto_Label.REPEATED && entry === undefined
      ? 'repeated'
      : ''
  const type =
    entry === undefined ? typeOf(field) : `map<${entry.field.map((f) => typeOf(f)).join(',')}>`
  const inOneof = !field.proto3Optional && hasOneof(field)
  const oneof = inOneof ? message.oneofDecl[field.oneofIndex]!.name : ''
  return [name, field.number, field.name, label, type, oneof].join('\t').trimEnd()
}

/** Presence of the index: 0 is a value of its own. */
function hasOneof(field: FieldDescriptorProto): boolean {
  return Object.hasOwn(field, 'oneofIndex')
}

function typeOf(field: FieldDescriptorProto): string {
  if (field.typeName !== '') return field.typeName.replace(/^\./, '')
  return FieldDescriptorProto_Type[field.type].toLowerCase()
}

function rowsOfEnum(e: EnumDescriptorProto, prefix: string): string[] {
  return e.value.map((value) => [prefix + e.name, value.number, value.name, 'enum'].join('\t'))
}

function rowsOfService(service: ServiceDescriptorProto, prefix: string): string[] {
  return service.method.map((method) => {
    const kind = method.clientStreaming
      ? 'bidi'
      : method.serverStreaming
        ? 'server-stream'
        : 'unary'
    const types = [method.inputType, method.outputType].map((type) => type.slice(1))
    return [prefix + service.name, '', method.name, kind, ...types].join('\t')
  })
}
