/**
 * Trust domain names (SPIFFE-ID §2.1). A `TrustDomain` is made by its parsers only, so holding one
 * proves that the name is valid.
 */
import { SignetError } from '../base/error.ts'
import { TRUST_DOMAIN_BYTES_MAX } from '../base/limits.ts'

export class TrustDomain {
  /** The bare name: `example.org`. */
  readonly name: string

  private constructor(name: string) {
    this.name = name
  }

  /** From a bare name or a SPIFFE ID of the domain (`spiffe://td[/path]`): SPIRE accepts both. */
  static parse(text: string): TrustDomain {
    if (text === '') throw invalid('trust domain is missing')
    const name = text.startsWith('spiffe://') ? text.slice('spiffe://'.length).split('/')[0]! : text
    if (name === '') throw invalid('trust domain is missing')
    if (text.includes('://') && !text.startsWith('spiffe://'))
      throw invalid('scheme is missing or invalid')
    if (!/^[a-z0-9._-]+$/.test(name)) {
      throw invalid(
        'trust domain characters are limited to lowercase letters, numbers, dots, dashes, and underscores',
      )
    }
    if (name.length > TRUST_DOMAIN_BYTES_MAX) throw invalid('trust domain is too long')
    return new TrustDomain(name)
  }

  /** `spiffe://example.org` */
  get id(): string {
    return `spiffe://${this.name}`
  }

  equals(other: TrustDomain): boolean {
    return this.name === other.name
  }

  toString(): string {
    return this.name
  }
}

function invalid(text: string): SignetError {
  return new SignetError('invalid_argument', 'bad_trust_domain', text)
}
