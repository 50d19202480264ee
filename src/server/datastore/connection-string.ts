/**
 * PostgreSQL connection strings: libpq's `key=value` form and URLs (PostgreSQL 18, §32.1.1), as they
 * stand in SPIRE's configuration files. Strict: a parameter we would ignore is an error, because an
 * ignored `sslmode` or host means talking to somebody else. `PG*` environment variables are not read.
 */
import { readFileSync } from 'node:fs'
import { isIP } from 'node:net'
import { userInfo } from 'node:os'
import { type ConnectionOptions, getCACertificates } from 'node:tls'
import { SignetError } from '../../base/error.ts'

export interface DatabaseAddress {
  readonly host: string
  readonly port: number
  readonly user: string
  readonly database: string
  readonly password?: string
  readonly ssl?: ConnectionOptions
  readonly connectionTimeoutMillis?: number
  readonly application_name?: string
}

const KNOWN = new Set([
  'host',
  'hostaddr',
  'port',
  'user',
  'password',
  'dbname',
  'sslmode',
  'sslrootcert',
  'sslcert',
  'sslkey',
  'sslsni',
  'connect_timeout',
  'application_name',
  'fallback_application_name',
  'target_session_attrs',
  'client_encoding',
])
/** The driver connects to one address and can't try the next when that is a standby. */
const SEVERAL_HOSTS =
  'several hosts are not supported: give one address that follows the primary ' +
  '(a virtual IP, a proxy, the read-write service of an operator)'
const SSL_MODES = ['disable', 'allow', 'prefer', 'require', 'verify-ca', 'verify-full']

/** Throws invalid_argument `bad_connection_string`; the message never holds the password. */
export function parseConnectionString(text: string): DatabaseAddress {
  const isUrl = /^postgres(ql)?:\/\//.test(text)
  const pairs = isUrl ? parseUrl(text) : parsePairs(text)
  for (const key of pairs.keys()) {
    if (!KNOWN.has(key)) throw bad(`unknown parameter "${key}"`)
  }
  return toAddress(pairs)
}

/** Values may be quoted with '…'; \ escapes the next character in both forms. */
function parsePairs(text: string): Map<string, string> {
  const pairs = new Map<string, string>()
  const pattern = /\s*([A-Za-z_]+)\s*=\s*(?:'((?:[^'\\]|\\[\s\S])*)'|((?:[^\s'\\]|\\[\s\S])*))/y
  let at = 0
  while (text.slice(at).trim() !== '') {
    pattern.lastIndex = at
    const match = pattern.exec(text)
    if (match === null) throw bad('it must be a URL or a list of key=value')
    at = pattern.lastIndex
    if (at < text.length && !/\s/.test(text[at]!)) throw bad(`the value of "${match[1]}"`)
    const value = (match[2] ?? match[3] ?? '').replace(/\\([\s\S])/g, '$1')
    pairs.set(match[1]!, value)
  }
  return pairs
}

function parseUrl(text: string): Map<string, string> {
  const match = /^postgres(?:ql)?:\/\/(?:([^@/?]*)@)?([^/?]*)(?:\/([^?]*))?(?:\?(.*))?$/.exec(text)
  if (match === null) throw bad('it is not a URL')
  const [, login, authority = '', database, query] = match
  const pairs = new Map<string, string>()
  const put = (key: string, value: string | undefined) => {
    if (value !== undefined && value !== '') pairs.set(key, decode(value))
  }
  const colon = login?.indexOf(':') ?? -1
  put('user', colon >= 0 ? login?.slice(0, colon) : login)
  put('password', colon >= 0 ? login?.slice(colon + 1) : undefined)
  if (authority.includes(',')) throw bad(SEVERAL_HOSTS)
  const host = /^(\[[^\]]*\]|[^:]*)(?::(.*))?$/.exec(authority)
  put('host', host?.[1]?.replace(/^\[|\]$/g, ''))
  put('port', host?.[2])
  put('dbname', database)
  for (const part of query?.split('&') ?? []) {
    const [key = '', value = ''] = part.split(/=(.*)/s)
    pairs.set(decode(key), decode(value))
  }
  return pairs
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    throw bad('it holds a broken percent escape')
  }
}

function toAddress(pairs: ReadonlyMap<string, string>): DatabaseAddress {
  const host = pairs.get('hostaddr') ?? pairs.get('host') ?? '/var/run/postgresql'
  const portText = pairs.get('port') ?? '5432'
  if (host.includes(',') || portText.includes(',')) throw bad(SEVERAL_HOSTS)
  const port = Number(portText)
  if (!Number.isInteger(port) || port < 1 || port > 65_535) throw bad('the port')
  const encoding = pairs.get('client_encoding') ?? 'UTF8'
  if (!/^(utf-?8|auto)$/i.test(encoding)) throw bad('client_encoding must be UTF8')
  const target = pairs.get('target_session_attrs') ?? 'any'
  // Any other value asks for a server that can't take writes.
  if (!['any', 'read-write', 'primary'].includes(target)) throw bad('target_session_attrs')
  const user = pairs.get('user') ?? userInfo().username
  const password = pairs.get('password')
  const application = pairs.get('application_name') ?? pairs.get('fallback_application_name')
  const ssl = tlsOptions(pairs, host)
  return {
    host,
    port,
    user,
    database: pairs.get('dbname') ?? user,
    ...(password === undefined ? {} : { password }),
    ...(application === undefined ? {} : { application_name: application }),
    ...(ssl === undefined ? {} : { ssl }),
    ...connectTimeout(pairs.get('connect_timeout')),
  }
}

function connectTimeout(text: string | undefined): { connectionTimeoutMillis?: number } {
  if (text === undefined) return {}
  const seconds = Number(text)
  if (!Number.isInteger(seconds)) throw bad('connect_timeout')
  // libpq: zero or negative waits for ever; we always have a limit.
  return seconds > 0 ? { connectionTimeoutMillis: seconds * 1000 } : {}
}

/**
 * `require`, the default over TCP as in SPIRE's driver, checks no certificate unless `sslrootcert`
 * is given; the other two trust the system's roots without it, as that driver does. `allow` and
 * `prefer` fall back in libpq, which an attacker can force; here they mean what they try first. A Unix socket needs no TLS.
 */
function tlsOptions(
  pairs: ReadonlyMap<string, string>,
  host: string,
): ConnectionOptions | undefined {
  const mode = pairs.get('sslmode') ?? 'require'
  if (!SSL_MODES.includes(mode)) throw bad(`sslmode "${mode}"`)
  const local = host.startsWith('/')
  if (local || mode === 'disable' || mode === 'allow') return undefined
  const root = pairs.get('sslrootcert')
  const verify = mode === 'verify-ca' || mode === 'verify-full' || root !== undefined
  const name = pairs.get('host') ?? host
  const isName = isIP(name) === 0
  return {
    rejectUnauthorized: verify,
    // What verify-full compares: Node would take an address for "localhost".
    host: name,
    ...(verify && { ca: roots(root) }),
    ...fileOption('cert', pairs.get('sslcert')),
    ...fileOption('key', pairs.get('sslkey')),
    ...(isName && pairs.get('sslsni') !== '0' && { servername: name }),
    ...(mode === 'verify-full' ? {} : { checkServerIdentity: () => undefined }),
  }
}

function roots(file: string | undefined): string | string[] {
  return file === undefined || file === 'system' ? getCACertificates('system') : readPem(file)
}

function fileOption(name: 'cert' | 'key', file: string | undefined) {
  return file === undefined ? {} : { [name]: readPem(file) }
}

function readPem(file: string): string {
  try {
    return readFileSync(file, 'utf8')
  } catch (cause) {
    throw new SignetError('invalid_argument', 'bad_connection_string', `unable to read ${file}`, {
      cause,
    })
  }
}

function bad(what: string): SignetError {
  return new SignetError(
    'invalid_argument',
    'bad_connection_string',
    `bad connection_string: ${what}`,
  )
}
