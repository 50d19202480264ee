/**
 * The cache on disk: entries, bundles and SVIDs, sealed, so that a restarted agent serves at once,
 * also while its server is away. The key lies elsewhere (seal-key.ts); the file is bound to trust
 * domain and agent.
 *
 * A cache and never a source of truth: whatever is wrong with it, the agent starts without it.
 */
import { lstat, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { SEALED_CACHE_BYTES_MAX } from '../../base/limits.ts'
import type { Clock, EpochSeconds, Log, Random } from '../../base/ports.ts'
import type { Bundle } from '../../spiffe/bundle.ts'
import { SpiffeId } from '../../spiffe/spiffe-id.ts'
import type { AuthorizedEntry } from '../entry.ts'
import { writePrivateFile } from '../node/private-file.ts'
import type { CachedX509Svid } from './identity.ts'
import { seal, unseal } from './seal.ts'
import { findSealKeys, openSealKey, SEAL_RUN_DIR, sweepSealKeys } from './seal-key.ts'

/** What changes together is written together: an entry, then its SVID a moment later. */
const WRITE_GATHER_MS = 100
/**
 * Rest after a write, as a multiple of what it took: a small cache is on disk before its agent can
 * be killed, a large one that changes all the time costs a tenth of the time and no more.
 */
const WRITE_REST_FACTOR = 9
const WRITE_REST_MS_MAX = 10_000

export interface CacheSnapshot {
  readonly entries: readonly AuthorizedEntry[]
  /** The own trust domain's first. */
  readonly bundles: readonly Bundle[]
  /** By entry ID, in the order of their use: the most recent last. */
  readonly svids: ReadonlyMap<string, CachedX509Svid>
}

export interface SealedCache {
  load(): Promise<CacheSnapshot | undefined>
  /** Writes what `snapshot` gives then, soon. */
  changed(): void
  /** Writes now what is waiting. */
  flush(): Promise<void>
  /** After a ban nothing may be served any more. */
  remove(): Promise<void>
}

export interface SealedCacheOptions {
  readonly dataDir: string
  /** Overridden by tests. */
  readonly runDir?: string
  /** What the file is bound to: trust domain and agent. */
  readonly owner: () => string
  readonly snapshot: () => CacheSnapshot
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
}

/** For KeyManager `memory`: nothing outlives the process. */
export const noSealedCache: SealedCache = {
  load: async () => undefined,
  changed() {},
  flush: async () => {},
  remove: async () => {},
}

export function createSealedCache(options: SealedCacheOptions): SealedCache {
  const { clock, log, random } = options
  const path = join(options.dataDir, 'svid-cache.sealed')
  const runDir = options.runDir ?? SEAL_RUN_DIR
  let dirty = false
  let removed = false
  let looping = false
  let writing: Promise<void> = Promise.resolve()
  const write = async () => {
    if (!dirty || removed) return
    dirty = false
    try {
      // Looked for each time: what is sealed under a key that is gone opens to nobody.
      const key = await openSealKey(runDir, path, options)
      const plaintext = Buffer.from(JSON.stringify(encodeSnapshot(options.snapshot())))
      const sealed = seal(key, options.owner(), plaintext, random)
      plaintext.fill(0)
      if (!removed) await writePrivateFile(path, sealed)
    } catch (error) {
      log.warn('Could not store the sealed SVID cache', { error: String(error) })
    }
  }
  // One after the other: two writers of one temporary file would mix.
  const writeNext = () => {
    writing = writing.then(write)
    return writing
  }
  const loop = async () => {
    looping = true
    while (dirty && !removed) {
      await clock.sleep(WRITE_GATHER_MS)
      const startMs = clock.monotonicMs()
      await writeNext()
      const tookMs = clock.monotonicMs() - startMs
      const restMs = Math.min(WRITE_REST_MS_MAX, WRITE_REST_FACTOR * tookMs)
      if (restMs > 0) await clock.sleep(restMs)
    }
    looping = false
  }
  return {
    async load() {
      await sweepSealKeys(runDir, options)
      try {
        return await loadSnapshot(options, runDir, path)
      } catch (error) {
        log.warn('Could not read the sealed SVID cache; starting without it', {
          error: error instanceof Error ? error.name : 'unreadable',
        })
        return undefined
      }
    },
    changed() {
      dirty = true
      if (!looping) void loop()
    },
    flush: writeNext,
    async remove() {
      removed = true
      await writing
      await rm(path, { force: true })
    },
  }
}

async function loadSnapshot(
  options: SealedCacheOptions,
  runDir: string,
  path: string,
): Promise<CacheSnapshot | undefined> {
  const stat = await lstat(path).catch(() => undefined)
  if (stat === undefined || !stat.isFile() || stat.size > SEALED_CACHE_BYTES_MAX) return undefined
  const sealed = await readFile(path)
  for (const key of await findSealKeys(runDir, path)) {
    const opened = unseal(key, options.owner(), sealed)
    if (opened !== undefined) {
      const text = new TextDecoder().decode(opened)
      opened.fill(0)
      return decodeSnapshot(text, options.clock.nowSeconds())
    }
  }
  options.log.info('Sealed SVID cache does not open here; starting without it')
  return undefined
}

const Base64 = z.string().transform((text) => new Uint8Array(Buffer.from(text, 'base64')))
const BigIntText = z
  .string()
  .regex(/^-?\d+$/)
  .transform(BigInt)

const StoredEntry = z.object({
  id: z.string(),
  spiffeId: z.string().transform((text) => SpiffeId.parse(text)),
  selectors: z.array(z.object({ type: z.string(), value: z.string() })),
  federatesWith: z.array(z.string()),
  admin: z.boolean(),
  downstream: z.boolean(),
  revisionNumber: BigIntText,
  storeSvid: z.boolean(),
  hint: z.string(),
  createdAt: z.number(),
  disableX509SvidPrefetch: z.boolean(),
  jwtSvidIncludeJti: z.boolean(),
})

const StoredBundle = z.object({
  trustDomain: z.string(),
  x509Authorities: z.array(z.object({ certificate: Base64, tainted: z.boolean() })),
  jwtAuthorities: z.array(
    z.object({
      keyId: z.string(),
      publicKey: Base64,
      expiresAt: z.number(),
      tainted: z.boolean(),
    }),
  ),
  refreshHintSeconds: z.number(),
  sequenceNumber: BigIntText,
})

const StoredSvid = z.object({
  entryId: z.string(),
  chain: z.array(Base64).min(1),
  privateKey: Base64,
  notBefore: z.number(),
  notAfter: z.number(),
  renewAt: z.number(),
  revisionNumber: BigIntText,
})

const StoredSnapshot = z.object({
  entries: z.array(StoredEntry),
  bundles: z.array(StoredBundle).min(1),
  svids: z.array(StoredSvid),
})

function encodeSnapshot(snapshot: CacheSnapshot): z.input<typeof StoredSnapshot> {
  return {
    entries: snapshot.entries.map((entry) => ({
      ...entry,
      spiffeId: entry.spiffeId.toString(),
      selectors: entry.selectors.map(({ type, value }) => ({ type, value })),
      federatesWith: [...entry.federatesWith],
      revisionNumber: entry.revisionNumber.toString(),
    })),
    bundles: snapshot.bundles.map((bundle) => ({
      trustDomain: bundle.trustDomain,
      x509Authorities: bundle.x509Authorities.map(({ certificate, tainted }) => ({
        certificate: base64(certificate),
        tainted,
      })),
      jwtAuthorities: bundle.jwtAuthorities.map((key) => ({
        ...key,
        publicKey: base64(key.publicKey),
      })),
      refreshHintSeconds: bundle.refreshHintSeconds,
      sequenceNumber: bundle.sequenceNumber.toString(),
    })),
    svids: [...snapshot.svids].map(([entryId, svid]) => ({
      ...svid,
      entryId,
      chain: svid.chain.map(base64),
      privateKey: base64(svid.privateKey),
      revisionNumber: svid.revisionNumber.toString(),
    })),
  }
}

/** SVIDs that expired meanwhile are left out. */
function decodeSnapshot(text: string, now: EpochSeconds): CacheSnapshot {
  const { entries, bundles, svids } = StoredSnapshot.parse(JSON.parse(text))
  const alive = svids.filter(({ notAfter }) => notAfter > now)
  return { entries, bundles, svids: new Map(alive.map(({ entryId, ...svid }) => [entryId, svid])) }
}

function base64(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('base64')
}
