/** The registration entry: which workload, on which parent, gets which SPIFFE ID. */
import { SignetError } from '../base/error.ts'
import type { EpochSeconds } from '../base/ports.ts'
import type { Selector } from './selector.ts'
import type { SpiffeId } from './spiffe-id.ts'

export interface RegistrationEntry {
  readonly id: string
  readonly spiffeId: SpiffeId
  readonly parentId: SpiffeId
  readonly selectors: readonly Selector[]
  /** 0 means the server's default. */
  readonly x509SvidTtlSeconds: number
  readonly jwtSvidTtlSeconds: number
  /** Bare trust domain names. */
  readonly federatesWith: readonly string[]
  readonly admin: boolean
  readonly downstream: boolean
  /** 0 means never. */
  readonly expiresAt: EpochSeconds
  /** In the order given: the first is the subject's common name. */
  readonly dnsNames: readonly string[]
  readonly revisionNumber: bigint
  readonly storeSvid: boolean
  readonly hint: string
  readonly createdAt: EpochSeconds
  readonly disableX509SvidPrefetch: boolean
  readonly jwtSvidIncludeJti: boolean
}

/** What an entry has of which nothing was asked but who it is for. */
export const PLAIN_ENTRY = {
  x509SvidTtlSeconds: 0,
  jwtSvidTtlSeconds: 0,
  federatesWith: [],
  admin: false,
  downstream: false,
  expiresAt: 0,
  dnsNames: [],
  storeSvid: false,
  hint: '',
  disableX509SvidPrefetch: false,
  jwtSvidIncludeJti: false,
} satisfies Partial<RegistrationEntry>

/** An SVID that is stored for its workload is found by selectors of one type (api.md §7.3). */
export function mixedSelectorTypes(): SignetError {
  // SPIRE's store makes this check, and its prefix is part of the text.
  const text = 'selector types must be the same when store SVID is enabled'
  return new SignetError(
    'invalid_argument',
    'bad_entry',
    `datastore-validation: invalid registration entry: ${text}`,
  )
}
