/** Failures of a command: the text is the whole message a user sees. */
import { status } from '@grpc/grpc-js'
import { SignetError } from '../base/error.ts'
import { isSystemError, systemErrorText } from '../base/system-error.ts'
import { isConnectionText } from '../wire/connection-text.ts'
import { rpcErrorText } from '../wire/transport/call.ts'

export class CliError extends Error {
  override readonly name = 'CliError'
}

/** As Go prints it: calls with their code, system errors by their words. */
export function messageOf(thrown: unknown): string {
  if (thrown instanceof SignetError) return rpcErrorText(thrown)
  if (isSystemError(thrown)) return systemErrorText(thrown)
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

/** Did the call fail before anybody received it? */
export function isDialFailure(thrown: unknown): boolean {
  return thrown instanceof SignetError && isConnectionText(thrown.message)
}

const NOT_LISTENING =
  'nothing listens there. Is it running? -socketPath names the socket_path of its configuration.'
const NEXT_STEPS: readonly (readonly [RegExp, string])[] = [
  [/no such file or directory|connection refused/, NOT_LISTENING],
  [/permission denied/, 'run the command as a user who may open that socket.'],
  [/deadline exceeded/, 'something listens there but does not answer. Its log may say why.'],
]

/** A line on what to look at when the socket at `path` did not answer; else undefined. */
export function nextStep(thrown: unknown, path: string): string | undefined {
  if (!isDialFailure(thrown)) return undefined
  const { message } = thrown as SignetError
  const step = NEXT_STEPS.find(([pattern]) => pattern.test(message))?.[1]
  return step === undefined ? undefined : `${path}: ${step}\n`
}

/** Some commands of SPIRE's show the socket's path in another form. */
export function withShownPath(thrown: unknown, path: string, shownPath: string): unknown {
  if (path === shownPath || !isDialFailure(thrown)) return thrown
  const { kind, code, message, fields } = thrown as SignetError
  const text = message.replace(`dial unix ${path}:`, () => `dial unix ${shownPath}:`)
  return new SignetError(kind, code, text, { fields })
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
