/**
 * Registration entries on the wire (api.md §6, §7.3): conversion with masks, and the rules an
 * entry must meet before it is stored. Both throw invalid_argument; handlers put "failed to
 * convert entry" or "failed to create entry" before the text, as SPIRE does.
 */
import { SignetError } from '../../base/error.ts'
import {
  DNS_NAMES_PER_ENTRY_MAX,
  ENTRY_ID_BYTES_MAX,
  FEDERATES_WITH_MAX,
  HINT_BYTES_MAX,
  SELECTOR_BYTES_MAX,
  SELECTORS_PER_ENTRY_MAX,
} from '../../base/limits.ts'
import { mixedSelectorTypes, type RegistrationEntry } from '../../spiffe/registration-entry.ts'
import { selectorKey } from '../../spiffe/selector.ts'
import type { SpiffeId } from '../../spiffe/spiffe-id.ts'
import { TrustDomain } from '../../spiffe/trust-domain.ts'
import type { Entry, EntryMask } from '../gen/spire/api/types/entry.ts'
import { checkDnsName } from './dns-name.ts'
import { numberFromInt64 } from './int64.ts'
import { prefixed } from './prefixed.ts'
import { selectorsFromProto, selectorsToProto } from './selector.ts'
import { memberIdFromProto, spiffeIdToProto, workloadIdFromProto } from './spiffe-id.ts'

/** What agents ask for, SPIRE's and ours; the rest of an entry is the server's affair. */
export const AGENT_ENTRY_MASK: EntryMask = {
  spiffeId: true,
  parentId: false,
  selectors: true,
  x509SvidTtl: false,
  federatesWith: true,
  admin: true,
  downstream: true,
  expiresAt: false,
  dnsNames: false,
  revisionNumber: true,
  storeSvid: true,
  jwtSvidTtl: false,
  hint: true,
  createdAt: true,
  additionalAttributes: true,
}

/** What a caller can set: everything but what the server keeps itself. */
export type EntryFields = Omit<RegistrationEntry, 'revisionNumber' | 'createdAt'>
export type EntryFieldsPatch = Pick<EntryFields, 'id'> & Partial<Omit<EntryFields, 'id'>>

export function entryFromProto(proto: Entry, trustDomain: TrustDomain): EntryFields {
  return {
    id: proto.id,
    parentId: parentIdFromProto(proto, trustDomain),
    spiffeId: ownIdFromProto(proto, trustDomain),
    dnsNames: dnsNamesFromProto(proto),
    federatesWith: federatesWithFromProto(proto),
    selectors: entrySelectorsFromProto(proto),
    hint: hintFromProto(proto),
    x509SvidTtlSeconds: proto.x509SvidTtl,
    jwtSvidTtlSeconds: proto.jwtSvidTtl,
    admin: proto.admin,
    downstream: proto.downstream,
    expiresAt: numberFromInt64(proto.expiresAt, 'expiry'),
    storeSvid: proto.storeSvid,
    ...attributesFromProto(proto),
  }
}

/** Only what the mask names; no mask names everything. Fields left out may be malformed. */
export function entryPatchFromProto(
  proto: Entry,
  trustDomain: TrustDomain,
  mask: EntryMask | undefined,
): EntryFieldsPatch {
  if (mask === undefined) return entryFromProto(proto, trustDomain)
  return {
    id: proto.id,
    ...(mask.parentId && { parentId: parentIdFromProto(proto, trustDomain) }),
    ...(mask.spiffeId && { spiffeId: ownIdFromProto(proto, trustDomain) }),
    ...(mask.dnsNames && { dnsNames: dnsNamesFromProto(proto) }),
    ...(mask.federatesWith && { federatesWith: federatesWithFromProto(proto) }),
    ...(mask.selectors && { selectors: entrySelectorsFromProto(proto) }),
    ...(mask.hint && { hint: hintFromProto(proto) }),
    ...(mask.x509SvidTtl && { x509SvidTtlSeconds: proto.x509SvidTtl }),
    ...(mask.jwtSvidTtl && { jwtSvidTtlSeconds: proto.jwtSvidTtl }),
    ...(mask.admin && { admin: proto.admin }),
    ...(mask.downstream && { downstream: proto.downstream }),
    ...(mask.expiresAt && { expiresAt: numberFromInt64(proto.expiresAt, 'expiry') }),
    ...(mask.storeSvid && { storeSvid: proto.storeSvid }),
    ...(mask.additionalAttributes && attributesFromProto(proto)),
  }
}

/** No mask keeps everything; the id is always kept. */
export function entryToProto(entry: RegistrationEntry, mask?: EntryMask): Entry {
  const keep = (bit: keyof EntryMask): boolean => mask === undefined || mask[bit]
  const hasAttributes = entry.disableX509SvidPrefetch || entry.jwtSvidIncludeJti
  return {
    id: entry.id,
    spiffeId: keep('spiffeId') ? spiffeIdToProto(entry.spiffeId) : undefined,
    parentId: keep('parentId') ? spiffeIdToProto(entry.parentId) : undefined,
    selectors: keep('selectors') ? selectorsToProto(entry.selectors) : [],
    x509SvidTtl: keep('x509SvidTtl') ? entry.x509SvidTtlSeconds : 0,
    federatesWith: keep('federatesWith') ? [...entry.federatesWith] : [],
    admin: keep('admin') && entry.admin,
    downstream: keep('downstream') && entry.downstream,
    expiresAt: keep('expiresAt') ? BigInt(entry.expiresAt) : 0n,
    dnsNames: keep('dnsNames') ? [...entry.dnsNames] : [],
    revisionNumber: keep('revisionNumber') ? entry.revisionNumber : 0n,
    storeSvid: keep('storeSvid') && entry.storeSvid,
    jwtSvidTtl: keep('jwtSvidTtl') ? entry.jwtSvidTtlSeconds : 0,
    hint: keep('hint') ? entry.hint : '',
    createdAt: keep('createdAt') ? BigInt(entry.createdAt) : 0n,
    additionalAttributes:
      hasAttributes && keep('additionalAttributes')
        ? {
            disableX509SvidPrefetch: entry.disableX509SvidPrefetch,
            jwtSvidIncludeJti: entry.jwtSvidIncludeJti,
          }
        : undefined,
  }
}

/** The rules of a new entry that are more than conversion. */
export function checkNewEntry(entry: EntryFields): void {
  if (entry.storeSvid && entry.disableX509SvidPrefetch) {
    throw refused('specifying cache behaviour is incompatible with storable SVIDs')
  }
  checkEntryPatch(entry)
  if (entry.id.length > ENTRY_ID_BYTES_MAX) {
    throw refused('invalid registration entry: entry ID too long')
  }
  if (!/^[A-Za-z0-9._-]*$/.test(entry.id)) {
    throw refused('invalid registration entry: entry ID contains invalid characters')
  }
}

/**
 * The rules of what a change brings. That selector types are equal when the SVID is stored can
 * only be seen here when the change names both; the store checks the merged entry.
 */
export function checkEntryPatch(patch: EntryFieldsPatch): void {
  if (patch.storeSvid && patch.selectors !== undefined) {
    if (new Set(patch.selectors.map((selector) => selector.type)).size > 1) {
      throw mixedSelectorTypes()
    }
  }
  if (patch.x509SvidTtlSeconds !== undefined && patch.x509SvidTtlSeconds < 0) {
    throw refused('invalid registration entry: X509SvidTtl is not set')
  }
  if (patch.jwtSvidTtlSeconds !== undefined && patch.jwtSvidTtlSeconds < 0) {
    throw refused('invalid registration entry: JwtSvidTtl is not set')
  }
}

function parentIdFromProto(proto: Entry, trustDomain: TrustDomain): SpiffeId {
  return prefixed('invalid parent ID', () => memberIdFromProto(proto.parentId, trustDomain))
}

function ownIdFromProto(proto: Entry, trustDomain: TrustDomain): SpiffeId {
  return prefixed('invalid spiffe ID', () => workloadIdFromProto(proto.spiffeId, trustDomain))
}

/** In the order given: the first is the subject's common name. */
function dnsNamesFromProto(proto: Entry): string[] {
  bounded(proto.dnsNames, DNS_NAMES_PER_ENTRY_MAX, 'DNS names')
  return prefixed('invalid DNS name', () => proto.dnsNames.map(checkDnsName))
}

function federatesWithFromProto(proto: Entry): string[] {
  bounded(proto.federatesWith, FEDERATES_WITH_MAX, 'federated trust domains')
  return prefixed('invalid federated trust domain', () => [
    ...new Set(proto.federatesWith.map((name) => TrustDomain.parse(name).name)),
  ])
}

function entrySelectorsFromProto(proto: Entry): EntryFields['selectors'] {
  if (proto.selectors.length === 0) throw invalid('selector list is empty')
  bounded(proto.selectors, SELECTORS_PER_ENTRY_MAX, 'selectors')
  const selectors = selectorsFromProto(proto.selectors)
  // One that the index can't take would fail the whole batch.
  if (selectors.some((one) => Buffer.byteLength(selectorKey(one)) > SELECTOR_BYTES_MAX)) {
    throw invalid(`selector is too long, max length is ${SELECTOR_BYTES_MAX} bytes`)
  }
  return selectors
}

function hintFromProto(proto: Entry): string {
  if (Buffer.byteLength(proto.hint) <= HINT_BYTES_MAX) return proto.hint
  throw invalid(`hint is too long, max length is ${HINT_BYTES_MAX} characters`)
}

function attributesFromProto(
  proto: Entry,
): Pick<EntryFields, 'disableX509SvidPrefetch' | 'jwtSvidIncludeJti'> {
  return {
    disableX509SvidPrefetch: proto.additionalAttributes?.disableX509SvidPrefetch ?? false,
    jwtSvidIncludeJti: proto.additionalAttributes?.jwtSvidIncludeJti ?? false,
  }
}

function bounded(list: readonly unknown[], max: number, what: string): void {
  if (list.length > max) throw invalid(`too many ${what}, the maximum is ${max}`)
}

function invalid(text: string): SignetError {
  return new SignetError('invalid_argument', 'bad_entry', text)
}

/** SPIRE's store makes these checks, and its prefix is part of the text. */
function refused(text: string): SignetError {
  return new SignetError('invalid_argument', 'bad_entry', `datastore-validation: ${text}`)
}
