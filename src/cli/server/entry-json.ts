/**
 * `-data`: entries as JSON (features.md §3.2). Keys are those of SPIRE's stored entry, matched as
 * Go's decoder does: exactly or else without case, unknown ones ignored, null as if absent.
 */
import { SignetError } from '../../base/error.ts'
import { TrustDomain } from '../../spiffe/trust-domain.ts'
import { Entry } from '../../wire/gen/spire/api/types/entry.ts'
import type { SPIFFEID } from '../../wire/gen/spire/api/types/spiffeid.ts'
import { CliError } from '../error.ts'
import { idFromText } from './spiffe-id.ts'

const INT32_MAX = 2 ** 31 - 1

export function entriesFromJson(text: string): Entry[] {
  const document = new Fields(parsed(text), '')
  return document.objects('entries').map((fields) => entryFrom(fields))
}

/** `{"ids": […]}` of `entry delete -file`. */
export function idsFromJson(text: string): string[] {
  return new Fields(parsed(text), '').texts('ids')
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    throw new CliError('the input is not valid JSON')
  }
}

function entryFrom(fields: Fields): Entry {
  const attributes = fields.object('additional_attributes')
  return Entry.fromPartial({
    spiffeId: idOf('SPIFFE ID', fields.text('spiffe_id')),
    parentId: idOf('parent ID', fields.text('parent_id')),
    id: fields.text('entry_id'),
    selectors: fields
      .objects('selectors')
      .map((selector) => ({ type: selector.text('type'), value: selector.text('value') })),
    x509SvidTtl: fields.int32('x509_svid_ttl'),
    jwtSvidTtl: fields.int32('jwt_svid_ttl'),
    federatesWith: fields.texts('federates_with').map(trustDomainOf),
    admin: fields.flag('admin'),
    downstream: fields.flag('downstream'),
    expiresAt: BigInt(fields.whole('entryExpiry')),
    dnsNames: fields.texts('dns_names'),
    revisionNumber: BigInt(fields.whole('revision_number')),
    storeSvid: fields.flag('store_svid'),
    hint: fields.text('hint'),
    createdAt: BigInt(fields.whole('created_at')),
    additionalAttributes:
      attributes === undefined
        ? undefined
        : {
            disableX509SvidPrefetch: attributes.flag('disable_x509_svid_prefetch'),
            jwtSvidIncludeJti: attributes.flag('jwt_svid_include_jti'),
          },
  })
}

function idOf(what: string, text: string): SPIFFEID {
  return explained(`invalid ${what}`, () => idFromText(text))
}

function trustDomainOf(text: string): string {
  return explained('invalid federated trust domain', () => TrustDomain.parse(text).name)
}

function explained<T>(what: string, parse: () => T): T {
  try {
    return parse()
  } catch (thrown) {
    if (thrown instanceof SignetError) throw new CliError(`${what}: ${thrown.message}`)
    throw thrown
  }
}

/** A JSON object read by key; a value of another type is an error that names the key. */
class Fields {
  readonly #object: Readonly<Record<string, unknown>>
  readonly #path: string

  constructor(value: unknown, path: string) {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) {
      throw new CliError(`${path || 'the input'} must be a JSON object`)
    }
    this.#object = value as Record<string, unknown>
    this.#path = path
  }

  #value(key: string): unknown {
    const exact = Object.hasOwn(this.#object, key) ? key : undefined
    const found =
      exact ?? Object.keys(this.#object).find((name) => name.toLowerCase() === key.toLowerCase())
    return found === undefined ? undefined : (this.#object[found] ?? undefined)
  }

  #pathOf(key: string): string {
    return this.#path === '' ? key : `${this.#path}.${key}`
  }

  #bad(key: string, what: string): CliError {
    return new CliError(`${this.#pathOf(key)} must be ${what}`)
  }

  text(key: string): string {
    const value = this.#value(key) ?? ''
    if (typeof value !== 'string') throw this.#bad(key, 'a string')
    return value
  }

  flag(key: string): boolean {
    const value = this.#value(key) ?? false
    if (typeof value !== 'boolean') throw this.#bad(key, 'true or false')
    return value
  }

  whole(key: string): number {
    const value = this.#value(key) ?? 0
    if (!Number.isSafeInteger(value)) throw this.#bad(key, 'a whole number')
    return value as number
  }

  int32(key: string): number {
    const value = this.whole(key)
    if (Math.abs(value) > INT32_MAX) throw this.#bad(key, 'a 32-bit number')
    return value
  }

  texts(key: string): string[] {
    const value = this.#value(key) ?? []
    if (!Array.isArray(value) || !value.every((item) => typeof item === 'string')) {
      throw this.#bad(key, 'a list of strings')
    }
    return value
  }

  object(key: string): Fields | undefined {
    const value = this.#value(key)
    return value === undefined ? undefined : new Fields(value, this.#pathOf(key))
  }

  objects(key: string): Fields[] {
    const value = this.#value(key) ?? []
    if (!Array.isArray(value)) throw this.#bad(key, 'a list')
    return value.map((item, index) => new Fields(item, `${this.#pathOf(key)}[${index}]`))
  }
}
