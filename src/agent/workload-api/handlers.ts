/**
 * The Workload API (api.md §12.2). Order of each call: security header, request, attestation, rate
 * limit, then the cache. Callers get what their selectors entitle them to and nothing else; without
 * an entitlement the text is `no identity issued`, which clients recognise.
 */
import type { Metadata, ServerUnaryCall, sendUnaryData } from '@grpc/grpc-js'
import { SignetError, toSignetError } from '../../base/error.ts'
import type { Clock, Log, Metrics } from '../../base/ports.ts'
import { type Selector, selectorKey } from '../../spiffe/selector.ts'
import { SpiffeId } from '../../spiffe/spiffe-id.ts'
import {
  type JWTSVIDRequest,
  type JWTSVIDResponse,
  SpiffeWorkloadAPIService,
  type ValidateJWTSVIDRequest,
  type ValidateJWTSVIDResponse,
} from '../../wire/gen/workload.ts'
import { toGrpcStatus } from '../../wire/status.ts'
import { dedupeHints } from '../svid-cache/hints.ts'
import type { JwtSvidFetcher } from '../svid-cache/jwt-svid-fetcher.ts'
import type { WorkloadView, X509SvidCache } from '../svid-cache/x509-svid-cache.ts'
import { errorText } from '../sync/server-client.ts'
import { type ApiMeter, createApiMeter } from './call-meter.ts'
import type { WorkloadConnection } from './connections.ts'
import type { WorkloadRateLimiter } from './rate-limit.ts'
import { jwtBundlesResponse, x509BundlesResponse, x509SvidResponse } from './responses.ts'
import { createStateStream, type RawStream, type StateStream, shuttingDown } from './streams.ts'
import type { JwtSvidValidator } from './validate-jwt-svid.ts'

const SECURITY_HEADER = 'workload.spiffe.io'
/** As SPIRE's lines name it. */
const LOGGED_SERVICE = 'WorkloadAPI'

export interface WorkloadApiOptions {
  readonly cache: Pick<X509SvidCache, 'subscribe' | 'matchingEntries' | 'viewOf'>
  readonly jwtSvids: JwtSvidFetcher
  readonly validator: JwtSvidValidator
  readonly rateLimiter: WorkloadRateLimiter
  readonly connection: (peer: string) => WorkloadConnection | undefined
  readonly allowUnauthenticatedVerifiers: boolean
  /** Prefixes of selectors that may be logged. */
  readonly logSelectors: readonly string[]
  readonly clock: Clock
  readonly log: Log
  readonly metrics: Metrics
}

export interface WorkloadApi {
  readonly service: typeof rawService
  readonly implementation: ReturnType<typeof implementation>
  /** Ends every stream with unavailable. */
  shutdown(): void
  readonly streamCount: number
}

/** Stream answers are encoded by us, once for all who get the same. */
const asIs = { responseSerialize: (bytes: Buffer): Buffer => bytes }
const rawService = {
  ...SpiffeWorkloadAPIService,
  fetchX509Svid: { ...SpiffeWorkloadAPIService.fetchX509Svid, ...asIs },
  fetchX509Bundles: { ...SpiffeWorkloadAPIService.fetchX509Bundles, ...asIs },
  fetchJwtBundles: { ...SpiffeWorkloadAPIService.fetchJwtBundles, ...asIs },
}

interface Caller {
  readonly connection: WorkloadConnection
  readonly log: Log
}

type CallLike = { getPeer(): string; getPath(): string; readonly metadata: Metadata }

/** What the handlers share. */
interface Api extends WorkloadApiOptions {
  readonly meter: ApiMeter
}

export function createWorkloadApi(options: WorkloadApiOptions): WorkloadApi {
  const streams = new Set<StateStream>()
  const meter = createApiMeter(options, 'workload_api', 'workload_api')
  return {
    service: rawService,
    implementation: implementation({ ...options, meter }, streams),
    shutdown() {
      for (const stream of [...streams]) stream.fail(shuttingDown())
    },
    get streamCount() {
      return streams.size
    },
  }
}

function implementation(options: Api, streams: Set<StateStream>) {
  const serve = <Request>(encode: Encoder, needsIdentity: boolean, logServed?: LogServed) => {
    return (call: RawStream<Request>) =>
      void serveStates(options, streams, call, { encode, needsIdentity, logServed })
  }
  const bundlesNeedIdentity = !options.allowUnauthenticatedVerifiers
  return {
    fetchX509Svid: serve(x509SvidResponse, true, logFetched),
    fetchX509Bundles: serve(x509BundlesResponse, bundlesNeedIdentity),
    fetchJwtBundles: serve(jwtBundlesResponse, bundlesNeedIdentity),
    fetchJwtsvid: unary<JWTSVIDRequest, JWTSVIDResponse>(options, fetchJwtSvid),
    validateJwtsvid: unary<ValidateJWTSVIDRequest, ValidateJWTSVIDResponse>(
      options,
      validateJwtSvid,
    ),
    fetchWitsvid: refuseStream(options, 'fetching WIT-SVIDs is not implemented'),
    fetchWitBundles: refuseStream(options, 'fetching WIT bundles is not implemented'),
  }
}

type Encoder = (view: WorkloadView) => Buffer
type LogServed = (options: Api, caller: Caller, view: WorkloadView) => void

/** What distinguishes the streams of states. */
interface Served {
  readonly encode: Encoder
  readonly needsIdentity: boolean
  readonly logServed: LogServed | undefined
}

async function serveStates<Request>(
  options: Api,
  streams: Set<StateStream>,
  call: RawStream<Request>,
  { encode, needsIdentity, logServed }: Served,
): Promise<void> {
  let subscription: Disposable | undefined
  const stream = createStateStream(call, () => {
    streams.delete(stream)
    subscription?.[Symbol.dispose]()
  })
  streams.add(stream)
  try {
    const caller = identify(options, call)
    await counted(options, call, caller, async () => {
      const selectors = await admit(options, call, caller)
      if (stream.ended) return
      subscription = options.cache.subscribe(selectors, (view) => {
        // Each push checks again that the one who asked is still the one who listens.
        if (!caller.connection.isUnchanged()) return
        if (needsIdentity && view.identities.length === 0) {
          stream.fail(noIdentity(options, caller, selectors))
          return
        }
        stream.offer(encode(view))
        logServed?.(options, caller, view)
      })
      await stream.end
    })
  } catch (error) {
    stream.fail(toSignetError(error))
  }
}

function logFetched({ clock }: Api, { connection, log }: Caller, view: WorkloadView): void {
  // Its health check asks once a minute.
  if (connection.isAgent) return
  const now = clock.nowSeconds()
  for (const { entry, svid } of view.identities) {
    log.debug('Fetched X.509 SVID', {
      count: view.identities.length,
      registered: true,
      spiffe_id: entry.spiffeId,
      ttl: svid.notAfter - now,
    })
  }
}

async function fetchJwtSvid(
  options: WorkloadApiOptions,
  call: ServerUnaryCall<JWTSVIDRequest, JWTSVIDResponse>,
  caller: Caller,
): Promise<JWTSVIDResponse> {
  const { audience, spiffeId } = call.request
  if (audience.length === 0) {
    caller.log.error('Missing required audience parameter')
    throw invalid('audience must be specified')
  }
  if (spiffeId !== '') checkSpiffeId(spiffeId)
  const selectors = await admit(options, call, caller)
  const entries = dedupeHints(options.cache.matchingEntries(selectors), (entry) => entry).filter(
    (entry) => spiffeId === '' || entry.spiffeId.toString() === spiffeId,
  )
  if (entries.length === 0) throw noIdentity(options, caller, selectors)
  try {
    const tokens = await Promise.all(
      entries.map((entry) => options.jwtSvids.fetch(entry, audience)),
    )
    for (const { spiffeId } of entries) {
      caller.log.debug('Fetched JWT SVID', { registered: true, spiffe_id: spiffeId })
    }
    return {
      svids: entries.map((entry, i) => ({
        spiffeId: entry.spiffeId.toString(),
        svid: tokens[i]!,
        hint: entry.hint,
      })),
    }
  } catch (error) {
    caller.log.error('Could not fetch JWT-SVID', { error: errorText(error) })
    const text = `could not fetch JWT-SVID: ${errorText(error)}`
    throw new SignetError('unavailable', 'jwt_svid_unavailable', text, { cause: error })
  }
}

async function validateJwtSvid(
  options: WorkloadApiOptions,
  call: ServerUnaryCall<ValidateJWTSVIDRequest, ValidateJWTSVIDResponse>,
  caller: Caller,
): Promise<ValidateJWTSVIDResponse> {
  const { audience, svid } = call.request
  if (audience === '') {
    caller.log.error('Missing required audience parameter')
    throw invalid('audience must be specified')
  }
  if (svid === '') {
    caller.log.error('Missing required svid parameter')
    throw invalid('svid must be specified')
  }
  const selectors = await admit(options, call, caller)
  const { bundle, federatedBundles } = options.cache.viewOf(selectors)
  try {
    const valid = options.validator.validate(svid, audience, [bundle, ...federatedBundles])
    caller.log.debug('Successfully validated JWT', { audience, spiffe_id: valid.spiffeId })
    return valid
  } catch (error) {
    caller.log.warn('Failed to validate JWT', { audience, error: errorText(error) })
    throw error
  }
}

function unary<Request, Response>(
  options: Api,
  handle: (
    options: WorkloadApiOptions,
    call: ServerUnaryCall<Request, Response>,
    caller: Caller,
  ) => Promise<Response>,
) {
  return async (call: ServerUnaryCall<Request, Response>, callback: sendUnaryData<Response>) => {
    let response: Response
    try {
      const caller = identify(options, call)
      response = await counted(options, call, caller, () => handle(options, call, caller))
    } catch (error) {
      return callback(toGrpcStatus(toSignetError(error)))
    }
    callback(null, response)
  }
}

function refuseStream(options: WorkloadApiOptions, text: string) {
  return (call: ServerWritableStreamOf) => {
    try {
      identify(options, call)
      throw new SignetError('unimplemented', 'not_implemented', text)
    } catch (error) {
      call.emit('error', toGrpcStatus(toSignetError(error)))
    }
  }
}

type ServerWritableStreamOf = CallLike & { emit(event: 'error', status: object): boolean }

/** The security header keeps requests out that a workload was tricked into making (SSRF). */
function identify(options: WorkloadApiOptions, call: CallLike): Caller {
  const header = call.metadata.get(SECURITY_HEADER)
  if (header.length !== 1 || header[0] !== 'true') {
    throw new SignetError(
      'invalid_argument',
      'security_header_missing',
      'security header missing from request',
    )
  }
  const connection = options.connection(call.getPeer())
  // Only when the connection ended between its last frame and this call.
  if (connection === undefined) throw attestationFailed()
  const method = call.getPath().split('/')[2]
  const fields = { pid: connection.process.pid, method, service: LOGGED_SERVICE }
  return { connection, log: options.log.with(fields) }
}

async function admit(
  options: WorkloadApiOptions,
  call: CallLike,
  { connection, log }: Caller,
): Promise<readonly Selector[]> {
  let selectors: readonly Selector[]
  try {
    selectors = await connection.attest()
  } catch (error) {
    log.error('Workload attestation failed', { error: errorText(error) })
    throw attestationFailed()
  }
  if (!connection.isAgent) options.rateLimiter.check(call.getPath(), selectors)
  return selectors
}

function counted<T>(
  options: Api,
  call: CallLike,
  { connection }: Caller,
  run: () => Promise<T>,
): Promise<T> {
  return connection.isAgent ? run() : options.meter(call.getPath(), run)
}

function noIdentity(
  options: WorkloadApiOptions,
  { connection, log }: Caller,
  selectors: readonly Selector[],
): SignetError {
  if (!connection.isAgent) {
    const loggable = selectors
      .map(selectorKey)
      .filter((key) => options.logSelectors.some((p) => key === p || key.startsWith(`${p}:`)))
      .sort()
    log.error('No identity issued', {
      registered: false,
      ...(loggable.length === 0 ? {} : { selectors: loggable.join(',') }),
    })
  }
  return new SignetError('permission_denied', 'no_identity_issued', 'no identity issued')
}

function checkSpiffeId(text: string): void {
  try {
    SpiffeId.parse(text)
  } catch (error) {
    throw invalid(`invalid requested SPIFFE ID: ${errorText(error)}`)
  }
}

function invalid(text: string): SignetError {
  return new SignetError('invalid_argument', 'bad_request', text)
}

function attestationFailed(): SignetError {
  return new SignetError(
    'unavailable',
    'workload_attestation_failed',
    'workload attestation failed',
  )
}
