/**
 * What a tainted authority touches (api.md §11.4): SVIDs that chain to a tainted root are renewed
 * at once, cached tokens of a tainted key dropped, the agent's own SVID rotated. Each authority
 * is processed once.
 *
 * Differs from SPIRE: X509-SVIDs of a tainted root stay served until their successors are there.
 * Tainted is not revoked, and a workload without an identity is an outage.
 */
import { bytesEqual, toHex } from '../../base/bytes.ts'
import type { Clock, Log, Metrics } from '../../base/ports.ts'
import type { Bundle } from '../../spiffe/bundle.ts'
import { type Certificate, parseCertificate } from '../../x509/certificate.ts'
import { verifyCertificateSignature } from '../../x509/path.ts'
import { countCall } from '../call-counter.ts'
import type { CachedX509Svid } from './identity.ts'
import type { JwtSvidCache } from './jwt-svid-cache.ts'
import type { X509SvidCache } from './x509-svid-cache.ts'

/** Chains checked before the event loop gets its turn: a signature check takes some 70 µs. */
const CHAINS_PER_TURN = 50

export interface TaintOptions {
  readonly x509Cache: X509SvidCache
  readonly jwtCache: JwtSvidCache
  /** The agent's own chain, and what to do when it is touched. */
  readonly ownChain: () => readonly Uint8Array[]
  readonly onOwnTainted: () => void
  /** Something is due now. */
  readonly onExpired: () => void
  readonly clock: Clock
  readonly log: Log
  readonly metrics: Metrics
}

export interface TaintProcessor {
  process(bundle: Bundle): Promise<void>
}

export function createTaintProcessor(options: TaintOptions): TaintProcessor {
  const seenX509 = new Set<string>()
  const seenJwt = new Set<string>()
  return {
    async process(bundle) {
      const roots = newTaintedRoots(bundle, seenX509)
      if (roots.length > 0) {
        const key = 'cache_manager.workload.process_tainted_x509_svids'
        await countCall(options, key, () => processRoots(options, roots))
      }
      const keyIds = newTaintedKeys(bundle, seenJwt)
      if (keyIds.size > 0) {
        const key = 'cache_manager.workload.process_tainted_jwt_svids'
        await countCall(options, key, async () => processKeys(options, keyIds))
      }
    },
  }
}

function newTaintedRoots(bundle: Bundle, seen: Set<string>): Certificate[] {
  const roots: Certificate[] = []
  for (const { certificate, tainted } of bundle.x509Authorities) {
    if (!tainted) continue
    const root = parseCertificate(certificate)
    const id = toHex(root.subjectKeyId)
    if (seen.has(id)) continue
    seen.add(id)
    roots.push(root)
  }
  return roots
}

function newTaintedKeys(bundle: Bundle, seen: Set<string>): Set<string> {
  const keyIds = new Set<string>()
  for (const { keyId, tainted } of bundle.jwtAuthorities) {
    if (!tainted || seen.has(keyId)) continue
    seen.add(keyId)
    keyIds.add(keyId)
  }
  return keyIds
}

async function processRoots(options: TaintOptions, roots: readonly Certificate[]): Promise<void> {
  const { log, metrics, x509Cache } = options
  log.debug('New tainted X.509 authorities found', {
    subject_key_ids: roots.map((root) => toHex(root.subjectKeyId)).join(','),
  })
  if (chainsTo(options.ownChain(), roots)) {
    log.info('Agent SVID is tainted by a root authority, forcing rotation')
    options.onOwnTainted()
  }
  const tainted = new Set<CachedX509Svid['chain']>()
  let checked = 0
  for (const { svid } of x509Cache.identities()) {
    if (chainsTo(svid.chain, roots)) tainted.add(svid.chain)
    if (++checked % CHAINS_PER_TURN === 0) await new Promise(setImmediate)
  }
  const count = x509Cache.expireSvids(tainted)
  metrics.sample('cache_manager.tainted_x509_svids.workload', count)
  if (count === 0) return
  log.info('Scheduled rotation for SVID entries due to tainted X.509 authorities', { count })
  options.onExpired()
}

function processKeys(options: TaintOptions, keyIds: ReadonlySet<string>): void {
  const { log, metrics, jwtCache } = options
  log.debug('New tainted JWT authorities found', {
    jwt_authority_key_ids: [...keyIds].join(','),
  })
  let total = 0
  for (const [keyId, count] of jwtCache.dropKeys(keyIds)) {
    total += count
    log.info(
      'JWT-SVIDs were removed from the JWT cache because they were issued by a tainted authority',
      { jwt_authority_key_ids: keyId, tainted_jwt_svids: count },
    )
  }
  metrics.sample('cache_manager.tainted_jwt_svids.workload', total)
  metrics.gauge('jwt_svid_cache_size', jwtCache.size)
}

/** Chains leave the root out: its signature on their last certificate decides. */
export function chainsTo(chain: readonly Uint8Array[], roots: readonly Certificate[]): boolean {
  const last = chain[chain.length - 1]
  if (last === undefined) return false
  const certificate = parseCertificate(last)
  return roots.some(
    (root) =>
      bytesEqual(root.subject, certificate.issuer) && verifyCertificateSignature(certificate, root),
  )
}
