/** Lifetimes, keys and names of what the CA issues (features.md §1.2). */
import { refuse } from '../../base/config/document.ts'
import { readDurationSeconds } from '../../base/config/shared.ts'
import { formatGoDuration } from '../../base/duration.ts'
import type { SigningKeyType } from '../../ca/signer/port.ts'
import type { RawServer } from './raw.ts'
import type { CaSubject, ServerConfig } from './types.ts'

const HOUR_SECONDS = 3600
const DEFAULT_X509_SVID_TTL_SECONDS = HOUR_SECONDS
const DEFAULT_JWT_SVID_TTL_SECONDS = 5 * 60
const DEFAULT_CA_TTL_SECONDS = 24 * HOUR_SECONDS
const DEFAULT_ROOT_TTL_SECONDS = 10 * 365 * 24 * HOUR_SECONDS
/** An SVID up to a sixth of `ca_ttl`, at most a week, is never cut short (features.md §7.1). */
const TTL_DIVISOR = 6
const TTL_CAP_SECONDS = 7 * 24 * HOUR_SECONDS
const KEY_TYPES: readonly SigningKeyType[] = ['rsa-2048', 'rsa-4096', 'ec-p256', 'ec-p384']
const DEFAULT_SUBJECT: CaSubject = { country: ['US'], organization: ['SPIFFE'], commonName: '' }

type Authority = Pick<
  ServerConfig,
  | 'agentTtlSeconds'
  | 'defaultX509SvidTtlSeconds'
  | 'defaultJwtSvidTtlSeconds'
  | 'caTtlSeconds'
  | 'rootTtlSeconds'
  | 'caKeyType'
  | 'jwtKeyType'
  | 'caSubject'
  | 'jwtIssuer'
  | 'disableJwtSvids'
>

export function readAuthority(server: RawServer, notices: string[]): Authority {
  const x509Ttl = readTtl(
    'default X509 SVID ttl',
    server.default_x509_svid_ttl,
    DEFAULT_X509_SVID_TTL_SECONDS,
  )
  const caTtlSeconds = readTtl('default CA ttl', server.ca_ttl, DEFAULT_CA_TTL_SECONDS)
  const rootTtlSeconds = readTtl('root ttl', server.root_ttl, DEFAULT_ROOT_TTL_SECONDS)
  if (rootTtlSeconds < caTtlSeconds) {
    throw refuse('root_ttl must be at least ca_ttl: a CA cannot outlive what signs it')
  }
  const caKeyType = readKeyType('ca_key_type', server.ca_key_type, 'ec-p256')
  return {
    agentTtlSeconds: readTtl('agent ttl', server.agent_ttl, x509Ttl),
    defaultX509SvidTtlSeconds: x509Ttl,
    defaultJwtSvidTtlSeconds: readTtl(
      'default JWT SVID ttl',
      server.default_jwt_svid_ttl,
      DEFAULT_JWT_SVID_TTL_SECONDS,
    ),
    caTtlSeconds,
    rootTtlSeconds,
    caKeyType,
    jwtKeyType: readKeyType('jwt_key_type', server.jwt_key_type, caKeyType),
    caSubject: readSubject(server.ca_subject, notices),
    jwtIssuer: server.jwt_issuer ?? '',
    disableJwtSvids: server.disable_jwt_svids ?? false,
  }
}

function readTtl(what: string, text: string | undefined, fallbackSeconds: number): number {
  if (!text) return fallbackSeconds
  const seconds = readDurationSeconds(`could not parse ${what} ${JSON.stringify(text)}`, text)
  if (seconds === 0) throw refuse(`${what} ${JSON.stringify(text)} must be at least one second`)
  return seconds
}

function readKeyType(
  key: string,
  text: string | undefined,
  fallback: SigningKeyType,
): SigningKeyType {
  if (!text) return fallback
  const type = KEY_TYPES.find((known) => known === text.toLowerCase())
  if (type !== undefined) return type
  throw refuse(
    `error parsing ${key}: key type ${JSON.stringify(text)} is unknown; must be one of [${KEY_TYPES.join(', ')}]`,
  )
}

function readSubject(raw: RawServer['ca_subject'], notices: string[]): CaSubject {
  if (raw === undefined) return DEFAULT_SUBJECT
  const subject: CaSubject = {
    country: raw.country ?? [],
    organization: raw.organization ?? [],
    commonName: raw.common_name ?? '',
  }
  if (subject.country.length + subject.organization.length > 0 || subject.commonName !== '') {
    return subject
  }
  notices.push('ca_subject configurable is set but empty; the default will be used')
  return DEFAULT_SUBJECT
}

/** Lifetimes that a scheduled rotation of the CA may cut short; the advice names both ways out. */
export function ttlNotices(config: ServerConfig): string[] {
  const longest = Math.min(Math.floor(config.caTtlSeconds / TTL_DIVISOR), TTL_CAP_SECONDS)
  const ttls = [
    ['default_x509_svid_ttl', config.defaultX509SvidTtlSeconds],
    ['default_jwt_svid_ttl', config.defaultJwtSvidTtlSeconds],
    ['agent_ttl', config.agentTtlSeconds],
  ] as const
  return ttls
    .filter(([name, ttl]) => ttl > longest && !(name === 'agent_ttl' && isInherited(config)))
    .map(([name, ttl]) => {
      const lower = `set ${name} to ${shown(longest)} or less`
      if (ttl > TTL_CAP_SECONDS) return `${name} may be cut short when the CA rotates: ${lower}`
      const higher = `ca_ttl to ${shown(ttl * TTL_DIVISOR)} or more`
      return `${name} may be cut short when the CA rotates: ${lower}, or ${higher}`
    })
}

/** An `agent_ttl` that follows `default_x509_svid_ttl` needs no notice of its own. */
function isInherited(config: ServerConfig): boolean {
  return config.agentTtlSeconds === config.defaultX509SvidTtlSeconds
}

function shown(seconds: number): string {
  return formatGoDuration(seconds * 1000)
    .replace(/m0s$/, 'm')
    .replace(/h0m$/, 'h')
}
