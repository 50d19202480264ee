/**
 * Failures of system calls in Go's words: SPIRE's log lines and commands carry those, and scripts
 * and operators look for them. Node says the same in another order and with its own codes.
 */
const WORDS: Readonly<Record<string, string>> = {
  EACCES: 'permission denied',
  EADDRINUSE: 'address already in use',
  ECONNREFUSED: 'connection refused',
  ECONNRESET: 'connection reset by peer',
  EEXIST: 'file exists',
  EHOSTUNREACH: 'no route to host',
  EISDIR: 'is a directory',
  ENETUNREACH: 'network is unreachable',
  ENOENT: 'no such file or directory',
  ENOSPC: 'no space left on device',
  ENOTDIR: 'not a directory',
  ENOTFOUND: 'no such host',
  EPERM: 'operation not permitted',
  EPIPE: 'broken pipe',
  EROFS: 'read-only file system',
  ETIMEDOUT: 'connection timed out',
}

/** undefined for a code without words here. */
export function errnoWords(code: string): string | undefined {
  return WORDS[code]
}

/** `open /x: no such file or directory`; Node's text where there are no words for the code. */
export function systemErrorText(error: NodeJS.ErrnoException): string {
  const { code = '', syscall = '', path } = error
  const words = errnoWords(code)
  if (words === undefined) return error.message
  if (syscall === 'connect') return dialText(addressOf(error), words)
  if (syscall === 'getaddrinfo') return lookupText(textOf(error, 'hostname'), words)
  return path === undefined ? `${syscall}: ${words}` : `${syscall} ${path}: ${words}`
}

export function isSystemError(error: unknown): error is NodeJS.ErrnoException {
  return error instanceof Error && 'syscall' in error
}

/** `address` is a socket's path or `host:port`. */
export function dialText(address: string, words: string): string {
  return `dial ${address.startsWith('/') ? 'unix' : 'tcp'} ${address}: connect: ${words}`
}

export function lookupText(host: string, words = 'no such host'): string {
  return `dial tcp: lookup ${host}: ${words}`
}

function addressOf(error: NodeJS.ErrnoException): string {
  const socketPath = textOf(error, 'address')
  const port = textOf(error, 'port')
  return port === '' ? socketPath : `${socketPath}:${port}`
}

function textOf(error: Error, field: string): string {
  const value: unknown = Reflect.get(error, field)
  return value === undefined ? '' : String(value)
}
