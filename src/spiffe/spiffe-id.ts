/**
 * SPIFFE IDs (SPIFFE-ID §2). A `SpiffeId` is made by its parsers only. Nothing is normalised: what
 * is not already canonical is refused (CVE-2021-27099). The failure texts are go-spiffe's: clients
 * see them.
 */
import { SignetError } from '../base/error.ts'
import { SPIFFE_ID_BYTES_MAX } from '../base/limits.ts'
import { TrustDomain } from './trust-domain.ts'

const SCHEME = 'spiffe://'

export class SpiffeId {
  readonly trustDomain: TrustDomain
  /** The one string kept: servers hold IDs by the hundred thousand. */
  private readonly text: string

  private constructor(trustDomain: TrustDomain, text: string) {
    this.trustDomain = trustDomain
    this.text = text
  }

  /** Empty, or starts with `/`. */
  get path(): string {
    return this.text.slice(SCHEME.length + this.trustDomain.name.length)
  }

  /** From `spiffe://td/path`; throws invalid_argument with go-spiffe's text. */
  static parse(text: string): SpiffeId {
    if (text === '') throw invalid('cannot be empty')
    if (!text.startsWith(SCHEME)) throw invalid('scheme is missing or invalid')
    const slash = text.indexOf('/', SCHEME.length)
    const end = slash === -1 ? text.length : slash
    const name = text.slice(SCHEME.length, end)
    if (name === '') throw invalid('trust domain is missing')
    const trustDomain = TrustDomain.parse(name)
    checkPath(text.slice(end))
    return SpiffeId.#bounded(trustDomain, text)
  }

  /** From parts as the server API carries them: the path is empty or starts with `/`. */
  static of(trustDomain: TrustDomain, path: string): SpiffeId {
    checkPath(path)
    return SpiffeId.#bounded(trustDomain, `${SCHEME}${trustDomain.name}${path}`)
  }

  static #bounded(trustDomain: TrustDomain, text: string): SpiffeId {
    if (text.length > SPIFFE_ID_BYTES_MAX) throw invalid('too long')
    return new SpiffeId(trustDomain, text)
  }

  toString(): string {
    return this.text
  }

  equals(other: SpiffeId): boolean {
    return this.text === other.text
  }
}

/** Throws invalid_argument unless `path` is empty or a canonical SPIFFE path. */
function checkPath(path: string): void {
  if (path === '') return
  if (!path.startsWith('/')) throw invalid('path must have a leading slash')
  if (path.endsWith('/')) throw invalid('path cannot have a trailing slash')
  for (const segment of path.slice(1).split('/')) {
    if (segment === '') throw invalid('path cannot contain empty segments')
    if (segment === '.' || segment === '..') throw invalid('path cannot contain dot segments')
    if (!/^[A-Za-z0-9._-]+$/.test(segment)) {
      throw invalid(
        'path segment characters are limited to letters, numbers, dots, dashes, and underscores',
      )
    }
  }
}

/** ID classes of api.md §3. All but the first presuppose membership of the trust domain. */
export function isMember(id: SpiffeId, trustDomain: TrustDomain): boolean {
  return id.trustDomain.equals(trustDomain) && id.path !== ''
}

export function isAgentId(id: SpiffeId, trustDomain: TrustDomain): boolean {
  return isMember(id, trustDomain) && id.path.startsWith('/spire/agent/')
}

/** Everything under the reserved `/spire/` path (and `/spire` itself) is not a workload's. */
export function isReservedPath(path: string): boolean {
  return path === '/spire' || path.startsWith('/spire/')
}

export function serverId(trustDomain: TrustDomain): SpiffeId {
  return SpiffeId.of(trustDomain, '/spire/server')
}

function invalid(text: string): SignetError {
  return new SignetError('invalid_argument', 'bad_spiffe_id', text)
}
