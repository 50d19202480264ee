/**
 * What grpc-js says of a connection that did not come about or of time that ran out, in the words
 * of grpc-go: SPIRE's log lines and commands carry those, and scripts and operators look for them.
 * Where grpc-go's text depends on its own internals, the reason stands in its place. Pure.
 */
import { goQuote } from '../base/log-text.ts'
import {
  dialText,
  errnoWords,
  isSystemError,
  lookupText,
  systemErrorText,
} from '../base/system-error.ts'

const PREFIX = 'connection error: '
const NOT_READY = 'context deadline exceeded while waiting for connections to become ready'
const UNTRUSTED = 'x509: certificate signed by unknown authority'

/** Of what a load balancer reports, and the load balancers around it, the innermost reason. */
const NO_CONNECTION =
  /^(?:\w+: )?No connection established\..*Last error: (?:Error: )?(.*?)(?: \([0-9TZ:.-]+\))?\. Resolution note: /s
const NO_NAME = /^Name resolution failed for target dns:(?:\/\/\/)?(.*?)(?::\d+)?$/
const TIME_OVER = /^Deadline exceeded after /
/** grpc-js lists what it was waiting for; a call that was sent names the address. */
const WAS_SENT = /remote_addr=/
const NOT_CONNECTED = /^connect (E[A-Z]+) (.*)$/
/** OpenSSL has a text for each shape of a chain that no known authority signed; Go has one. */
const UNKNOWN_AUTHORITIES: readonly string[] = [
  'self-signed certificate',
  'self-signed certificate in certificate chain',
  'unable to get issuer certificate',
  'unable to get local issuer certificate',
  'unable to verify the first certificate',
  'certificate signature failure',
]
const WITHOUT_REASON = 'Failed to connect'

/** The text itself when it is about something else. */
export function connectionText(details: string): string {
  if (TIME_OVER.test(details))
    return WAS_SENT.test(details) ? 'context deadline exceeded' : NOT_READY
  const host = NO_NAME.exec(details)?.[1]
  if (host !== undefined) return dialing(lookupText(host))
  const reason = NO_CONNECTION.exec(details)?.[1]
  return reason === undefined ? details : textOfReason(reason)
}

/** Of a socket that did not connect. */
export function connectErrorText(error: Error): string {
  // One error per address of the host.
  const first: unknown = error instanceof AggregateError ? error.errors[0] : error
  return isSystemError(first) ? dialing(systemErrorText(first)) : handshakeText(error.message)
}

/** The handshake of a connection that this side ended. */
export function handshakeText(reason: string): string {
  return quoted(`transport: authentication handshake failed: ${reason}`)
}

/** Did the call fail before anybody received it? */
export function isConnectionText(message: string): boolean {
  return message.startsWith(PREFIX) || message === NOT_READY
}

export function isUnknownAuthorityText(message: string): boolean {
  return message.includes(PREFIX) && message.includes(UNTRUSTED)
}

function textOfReason(reason: string): string {
  const [, code, address] = NOT_CONNECTED.exec(reason) ?? []
  if (code !== undefined) return dialing(dialText(address!, errnoWords(code) ?? code))
  if (UNKNOWN_AUTHORITIES.includes(reason)) {
    return handshakeText(`x509svid: could not verify leaf certificate: ${UNTRUSTED}`)
  }
  const errno = /^(?:read|write) (E[A-Z]+)$/.exec(reason)?.[1]
  if (errno !== undefined) return preface(errnoWords(errno) ?? errno)
  if (reason === WITHOUT_REASON) return preface('EOF')
  if (reason === 'Protocol error') return preface('the peer does not speak HTTP/2')
  return handshakeText(reason)
}

function dialing(text: string): string {
  return quoted(`transport: Error while dialing: ${text}`)
}

function preface(text: string): string {
  return quoted(`error reading server preface: ${text}`)
}

function quoted(text: string): string {
  return `${PREFIX}desc = ${goQuote(text)}`
}
