/**
 * JWT-SVIDs for workloads (api.md §11.5): from the cache while more than about half their life is
 * left, else from the server; when it can't be reached, an unexpired copy is better than none.
 * Calls for the same token share one request.
 */
import { SignetError } from '../../base/error.ts'
import type { Clock, Log, Metrics, Random } from '../../base/ports.ts'
import { createBackoff } from '../backoff.ts'
import type { AuthorizedEntry } from '../entry.ts'
import { errorText, type FetchedJwtSvid, type ServerClient } from '../sync/server-client.ts'
import { type CachedJwtSvid, type JwtSvidCache, jwtSvidKey } from './jwt-svid-cache.ts'
import { renewalTime } from './rotation-policy.ts'

/** The whole of one fetch, retries included, when there is no copy to fall back to. */
const FETCH_TIMEOUT_MS = 30_000
const RETRY_INTERVAL_MS = 1_000
const HALF_LIFE = { availabilityTargetSeconds: 0 }

export interface JwtSvidFetcherOptions {
  readonly client: Pick<ServerClient, 'newJwtSvid'>
  readonly cache: JwtSvidCache
  /** `jwt_svid_cache_hit_timeout`: patience when there is a copy to fall back to. */
  readonly cacheHitTimeoutMs: number
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  readonly metrics: Metrics
}

export interface JwtSvidFetcher {
  /** Rejects with SignetError when there is neither a new nor an unexpired old token. */
  fetch(entry: AuthorizedEntry, audience: readonly string[]): Promise<string>
}

export function createJwtSvidFetcher(options: JwtSvidFetcherOptions): JwtSvidFetcher {
  const { cache, clock, random, log } = options
  const inFlight = new Map<string, Promise<CachedJwtSvid>>()
  const renew = async (
    entry: AuthorizedEntry,
    audience: readonly string[],
    timeoutMs: number,
  ): Promise<CachedJwtSvid> => {
    const svid = describe(await fetchWithRetries(options, entry, audience, timeoutMs), random)
    // An entry that asks for a jti wants a fresh token every time.
    if (!entry.jwtSvidIncludeJti) {
      cache.set(jwtSvidKey(svid.spiffeId, audience), svid)
      options.metrics.gauge('jwt_svid_cache_size', cache.size)
    }
    return svid
  }
  const shared = (key: string, start: () => Promise<CachedJwtSvid>): Promise<CachedJwtSvid> => {
    const running = inFlight.get(key)
    if (running !== undefined) return running
    const started = start().finally(() => inFlight.delete(key))
    inFlight.set(key, started)
    return started
  }
  return {
    async fetch(entry, audience) {
      if (entry.jwtSvidIncludeJti) {
        return (await renew(entry, audience, FETCH_TIMEOUT_MS)).token
      }
      const key = jwtSvidKey(entry.spiffeId.toString(), audience)
      const cached = cache.get(key)
      if (cached !== undefined && clock.nowSeconds() < cached.renewAt) return cached.token
      const usable = cached !== undefined && clock.nowSeconds() < cached.expiresAt
      const timeoutMs = usable ? options.cacheHitTimeoutMs : FETCH_TIMEOUT_MS
      // Entries may share a SPIFFE ID: the token of one must not be fetched for the other's name.
      const start = () => renew(entry, audience, timeoutMs)
      try {
        return (await shared(`${entry.id}\0${key}`, start)).token
      } catch (error) {
        if (cached === undefined || clock.nowSeconds() >= cached.expiresAt) throw error
        log.warn('Unable to renew JWT; returning cached copy', {
          spiffe_id: entry.spiffeId.toString(),
          error: errorText(error),
        })
        return cached.token
      }
    },
  }
}

async function fetchWithRetries(
  { client, clock, random, log }: JwtSvidFetcherOptions,
  entry: AuthorizedEntry,
  audience: readonly string[],
  timeoutMs: number,
): Promise<FetchedJwtSvid> {
  const backoff = createBackoff(random, RETRY_INTERVAL_MS)
  const endMs = clock.monotonicMs() + timeoutMs
  for (;;) {
    const leftMs = endMs - clock.monotonicMs()
    try {
      return await client.newJwtSvid(entry.id, audience, leftMs)
    } catch (error) {
      const waitMs = backoff.next()
      if (!isRetriable(error) || clock.monotonicMs() + waitMs >= endMs) {
        log.error('Failed to fetch JWT SVID', { error: errorText(error) })
        throw failed(error)
      }
      log.debug('Failed to fetch JWT SVID; retrying', { error: errorText(error) })
      await clock.sleep(waitMs)
    }
  }
}

/**
 * Only a server that is away: whatever else it answered, it would answer again, and a workload
 * should see it at once. Differs from SPIRE: 1.15.3 tries once and fails during a restart of its
 * server; later versions repeat what a server refuses, too, until the time is over.
 */
function isRetriable(error: unknown): boolean {
  return error instanceof SignetError && error.kind === 'unavailable'
}

function failed(error: unknown): SignetError {
  const kind = error instanceof SignetError ? error.kind : 'internal'
  const text = `failed to fetch JWT SVID: ${errorText(error)}`
  return new SignetError(kind, 'jwt_svid_fetch_failed', text, { cause: error })
}

function describe(svid: FetchedJwtSvid, random: Random): CachedJwtSvid {
  const lifetime = { notBefore: svid.issuedAt, notAfter: svid.expiresAt }
  return {
    ...svid,
    keyId: keyIdOf(svid.token),
    renewAt: renewalTime(lifetime, HALF_LIFE, random),
  }
}

/** Empty when the header can't be read: then no taint will ever match it, and it expires soon. */
function keyIdOf(token: string): string {
  try {
    const header: unknown = JSON.parse(
      Buffer.from(token.slice(0, token.indexOf('.')), 'base64url').toString('utf8'),
    )
    const kid: unknown =
      typeof header === 'object' && header !== null && 'kid' in header && header.kid
    return typeof kid === 'string' ? kid : ''
  } catch {
    return ''
  }
}
