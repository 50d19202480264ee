/** Failures of a command: the text is the whole message a user sees. */
import { status } from '@grpc/grpc-js'
import { SignetError } from '../base/error.ts'
import { rpcErrorText } from '../wire/transport/call.ts'

export class CliError extends Error {
  override readonly name = 'CliError'
}

/** As Go prints it: calls with their code, system errors by their words. */
export function messageOf(thrown: unknown): string {
  if (thrown instanceof SignetError) return rpcErrorText(thrown)
  if (thrown instanceof Error && 'syscall' in thrown) return systemErrorText(thrown)
  return thrown instanceof Error ? thrown.message : String(thrown)
}

/** Puts what was tried in front of why it failed. */
export async function explain<T>(what: string, promise: Promise<T>): Promise<T> {
  try {
    return await promise
  } catch (thrown) {
    throw new CliError(`${what}: ${messageOf(thrown)}`)
  }
}

const ERRNO_WORDS: Readonly<Record<string, string>> = {
  ENOENT: 'no such file or directory',
  EACCES: 'permission denied',
  ECONNREFUSED: 'connection refused',
  EISDIR: 'is a directory',
  ENOTDIR: 'not a directory',
  ENOSPC: 'no space left on device',
}

function systemErrorText(error: Error): string {
  const { code, path, syscall } = error as NodeJS.ErrnoException
  const words = ERRNO_WORDS[code ?? '']
  return words === undefined ? error.message : `${syscall} ${path ?? ''}: ${words}`
}

const DIAL_FAILURE = 'connection error: '

export function isDialFailure(thrown: unknown): boolean {
  return thrown instanceof SignetError && thrown.message.startsWith(DIAL_FAILURE)
}

/** grpc-js says it its own way; scripts look for the words of grpc-go. */
export function withDialText(thrown: unknown, shownPath: string): unknown {
  if (!(thrown instanceof SignetError)) return thrown
  const words = ERRNO_WORDS[/connect (E[A-Z]+) /.exec(thrown.message)?.[1] ?? '']
  if (words === undefined) return thrown
  const text = `${DIAL_FAILURE}desc = "transport: Error while dialing: dial unix ${shownPath}: connect: ${words}"`
  return new SignetError(thrown.kind, thrown.code, text, { cause: thrown, fields: thrown.fields })
}

/** A status code as Go names it: `AlreadyExists`. */
export function codeName(code: number): string {
  const name = status[code]
  if (name === undefined) return `Code(${code})`
  if (name === 'OK') return name
  if (name === 'CANCELLED') return 'Canceled'
  const words = name.toLowerCase().split('_')
  return words.map((word) => word[0]!.toUpperCase() + word.slice(1)).join('')
}
