/** SPIFFE IDs between command line and wire. */
import { SpiffeId } from '../../spiffe/spiffe-id.ts'
import type { SPIFFEID } from '../../wire/gen/spire/api/types/spiffeid.ts'

/** Throws with go-spiffe's text. */
export function idFromText(text: string): SPIFFEID {
  const id = SpiffeId.parse(text)
  return { trustDomain: id.trustDomain.name, path: id.path }
}

/** Whatever the server sent, unchecked: it is only shown. */
export function idToText(id: SPIFFEID | undefined): string {
  return id === undefined ? '' : `spiffe://${id.trustDomain}${id.path}`
}
