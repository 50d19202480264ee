/**
 * The authorities as this server sees them now: who issues, and which issuers are alive for the
 * check at our doors. A view of the rows, replaced whole by `reload()`, which runs on every change
 * of an authority and on every tick of the rotator. Signs nothing, changes nothing.
 */
import { SignetError } from '../../base/error.ts'
import type { Clock } from '../../base/ports.ts'
import type { IssuerSource, JwtIssuer, X509Issuer } from '../issuer-source.ts'
import type { SigningKeyType } from '../signer/port.ts'
import {
  type Authority,
  type AuthorityKind,
  type AuthorityState,
  type AuthorityStore,
  CLUSTER_CONTROL,
} from './authority.ts'
import type { KeyRing } from './key-ring.ts'

const JWT_ALGORITHMS: Readonly<Record<SigningKeyType, JwtIssuer['alg']>> = {
  'ec-p256': 'ES256',
  'ec-p384': 'ES384',
  'rsa-2048': 'RS256',
  'rsa-4096': 'RS256',
}

export interface LiveIssuer {
  readonly clusterId: number
  readonly kind: AuthorityKind
  readonly state: AuthorityState
  /** Which leaves it may have signed: IDs under `/spire/`, or all others. */
  readonly leafIdClass: 'reserved' | 'workload'
}

export interface Authorities extends IssuerSource {
  /**
   * Reads the rows, opens the keys this server issues with, and returns the rows. Rejects when a
   * key in use can't be opened; what could be opened is used nevertheless.
   */
  reload(): Promise<readonly Authority[]>
  /** As of the last reload. */
  rows(): readonly Authority[]
  /**
   * The intermediate with this subject key identifier (lower-case hex) if a certificate it signed
   * may still open a door. Pass the identifier of the certificate that *verified* the leaf, not the
   * one the leaf names: only the former was signed by our root.
   */
  isLiveIssuer(subjectKeyId: string): LiveIssuer | undefined
  /** DER of our root certificates that are valid and not revoked, whoever holds them. */
  ownRoots(): readonly Uint8Array[]
}

export interface AuthoritiesParts {
  readonly store: Pick<AuthorityStore, 'listAuthorities'>
  readonly keyRing: KeyRing
  readonly clock: Clock
  /** As in RotationConfig. */
  readonly holder: string
}

interface View {
  readonly rows: readonly Authority[]
  readonly x509: ReadonlyMap<number, X509Issuer>
  readonly jwt: ReadonlyMap<number, JwtIssuer>
  readonly liveIssuers: ReadonlyMap<string, Authority>
}

const EMPTY: View = { rows: [], x509: new Map(), jwt: new Map(), liveIssuers: new Map() }

export function createAuthorities(parts: AuthoritiesParts): Authorities {
  const { clock } = parts
  let view = EMPTY
  let last: Promise<unknown> = Promise.resolve()
  let waiting: Promise<readonly Authority[]> | undefined
  const load = async () => {
    waiting = undefined
    const { next, failure } = await readView(parts)
    view = next
    if (failure) throw failure
    return next.rows
  }
  return {
    // One at a time, so that an older view never replaces a newer one; callers that come while one
    // runs share the next.
    reload() {
      waiting ??= last.then(load, load)
      last = waiting.catch(() => {})
      return waiting
    },
    rows: () => view.rows,
    x509Issuer(clusterId) {
      return usable(view.x509.get(clusterId), clock, 'x509_authority_expired')
    },
    jwtIssuer(clusterId) {
      return usable(view.jwt.get(clusterId), clock, 'jwt_authority_expired')
    },
    isLiveIssuer(subjectKeyId) {
      const row = view.liveIssuers.get(subjectKeyId)
      if (!row || row.notAfter <= clock.nowSeconds()) return undefined
      const leafIdClass = row.clusterId === CLUSTER_CONTROL.id ? 'reserved' : 'workload'
      return { clusterId: row.clusterId, kind: row.kind, state: row.state, leafIdClass }
    },
    ownRoots() {
      const now = clock.nowSeconds()
      return view.rows
        .filter((row) => row.kind === 'x509_root' && row.state !== 'revoked' && row.notAfter > now)
        .map((row) => row.certificate!)
    },
  }
}

/** SPIRE #1542: one that has run out signs nothing, even if nothing has replaced it. */
function usable<T extends { readonly authority: Authority }>(
  issuer: T | undefined,
  clock: Clock,
  expiredCode: string,
): T {
  if (!issuer) {
    throw new SignetError('unavailable', 'server_initializing', 'server is initializing', {
      retryAfterSeconds: 1,
    })
  }
  if (issuer.authority.notAfter <= clock.nowSeconds()) {
    throw new SignetError('unavailable', expiredCode, 'signing authority is expired', {
      retryAfterSeconds: 10,
    })
  }
  return issuer
}

async function readView({ store, keyRing, holder }: AuthoritiesParts) {
  const rows = await store.listAuthorities()
  const x509 = new Map<number, X509Issuer>()
  const jwt = new Map<number, JwtIssuer>()
  const inUse: Authority[] = []
  let failure: unknown
  for (const row of rows) {
    if (row.holder !== holder || !needsKey(row)) continue
    inUse.push(row)
    // A root signs a few times in its life: its key is opened then, and closed again after.
    if (row.kind === 'x509_root') continue
    try {
      // Prepared ones too: a key that can't be opened is noticed half a life before it is needed.
      const keyHandle = await keyRing.handleFor(row)
      if (row.state !== 'active') continue
      if (row.kind === 'jwt') jwt.set(row.clusterId, jwtIssuer(row, keyHandle))
      else x509.set(row.clusterId, { authority: row, keyHandle, chain: [row.certificate!] })
    } catch (error) {
      failure ??= error
    }
  }
  keyRing.retain(inUse)
  return { next: { rows, x509, jwt, liveIssuers: liveIssuers(rows) }, failure }
}

function needsKey(row: Authority): boolean {
  if (row.state !== 'active' && row.state !== 'prepared') return false
  return row.kind !== 'x509_root' || row.sealed === undefined
}

function jwtIssuer(authority: Authority, keyHandle: number): JwtIssuer {
  return { authority, keyHandle, alg: JWT_ALGORITHMS[authority.keyType] }
}

/**
 * Intermediates alone sign leaves, and they do so for all servers, whoever holds the key. Prepared
 * counts: another server may have activated it already. Tainted counts: its holders must be able to
 * come and renew; what ends them is revocation.
 */
function liveIssuers(rows: readonly Authority[]): Map<string, Authority> {
  const live = rows.filter((row) => row.kind === 'x509_intermediate' && row.state !== 'revoked')
  return new Map(live.map((row) => [row.authorityId, row]))
}
