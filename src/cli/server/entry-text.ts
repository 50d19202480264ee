/** The pretty block of a registration entry (features.md §3.2): 24 columns, then the value. */
import type { Entry } from '../../wire/gen/spire/api/types/entry.ts'
import { utcTime } from '../output/go-text.ts'
import { idToText } from './spiffe-id.ts'

const LABEL_COLUMNS = 24

export function entryBlock(entry: Entry): string {
  const lines: string[] = []
  const line = (label: string, value: unknown) => {
    lines.push(`${label.padEnd(LABEL_COLUMNS)}: ${String(value)}\n`)
  }
  line('Entry ID', entry.id === '' ? '(none)' : entry.id)
  line('SPIFFE ID', idToText(entry.spiffeId))
  line('Parent ID', idToText(entry.parentId))
  line('Revision', entry.revisionNumber)
  if (entry.downstream) line('Downstream', true)
  line('X509-SVID TTL', entry.x509SvidTtl === 0 ? 'default' : entry.x509SvidTtl)
  line('JWT-SVID TTL', entry.jwtSvidTtl === 0 ? 'default' : entry.jwtSvidTtl)
  if (entry.expiresAt !== 0n) line('Expiration time', utcTime(Number(entry.expiresAt)))
  for (const { type, value } of entry.selectors) line('Selector', `${type}:${value}`)
  for (const trustDomain of entry.federatesWith) line('FederatesWith', trustDomain)
  for (const name of entry.dnsNames) line('DNS name', name)
  if (entry.admin) line('Admin', true)
  if (entry.storeSvid) line('StoreSvid', true)
  if (entry.hint !== '') line('Hint', entry.hint)
  const attributes = entry.additionalAttributes
  if (attributes?.disableX509SvidPrefetch) line('DisableX509SvidPrefetch', true)
  if (attributes?.jwtSvidIncludeJti) line('JwtSvidIncludeJti', true)
  return `${lines.join('')}\n`
}
