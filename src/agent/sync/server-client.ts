/**
 * What the agent asks of its server (api.md §11). One connection is shared by all calls; it is
 * dropped after any failed call, when the own certificate or the bundle changed, so that the next
 * call connects with what is current then. Attestation uses a connection of its own: it must not
 * present a certificate.
 */
import type { Client } from '@grpc/grpc-js'
import { SignetError } from '../../base/error.ts'
import { errorText as plainErrorText } from '../../base/log-text.ts'
import type { Clock, Log } from '../../base/ports.ts'
import type { Bundle } from '../../spiffe/bundle.ts'
import type { TrustDomain } from '../../spiffe/trust-domain.ts'
import { spiffeIdFromProto } from '../../wire/convert/spiffe-id.ts'
import { SyncService } from '../../wire/gen/signet/sync/v1/sync.ts'
import { AgentService } from '../../wire/gen/spire/api/server/agent/v1/agent.ts'
import { BundleService } from '../../wire/gen/spire/api/server/bundle/v1/bundle.ts'
import { EntryService } from '../../wire/gen/spire/api/server/entry/v1/entry.ts'
import { SVIDService } from '../../wire/gen/spire/api/server/svid/v1/svid.ts'
import type { JWTSVID } from '../../wire/gen/spire/api/types/jwtsvid.ts'
import { openBidi } from '../../wire/transport/bidi.ts'
import { callOptions, callUnary, RPC_TIMEOUT_MS, rpcErrorText } from '../../wire/transport/call.ts'
import { type ClientCertificate, openServerChannel } from '../../wire/transport/channel.ts'
import type { AuthorizedEntry, EntryDelta } from '../entry.ts'
import { bundleFromProto } from './convert.ts'
import { parseEntries, syncEntries } from './entry-sync.ts'
import type { PushStream } from './push.ts'

export interface ServerClientOptions {
  readonly host: string
  readonly port: number
  readonly trustDomain: TrustDomain
  /** What connections opened from now on use. */
  readonly roots: () => readonly Uint8Array[]
  readonly certificate: () => ClientCertificate
  readonly clock: Clock
  readonly log: Log
}

export interface SvidRequest {
  readonly entryId: string
  readonly csr: Uint8Array
}

export interface FetchedJwtSvid {
  readonly token: string
  readonly spiffeId: string
  readonly issuedAt: number
  readonly expiresAt: number
}

/** Every call rejects with SignetError; `denial` tells what a refusal means (api.md §11.6). */
export interface ServerClient {
  postStatus(agentVersion: string): Promise<void>
  /** DER, leaf first. */
  renewAgent(csr: Uint8Array): Promise<readonly Uint8Array[]>
  syncEntries(known: ReadonlyMap<string, AuthorizedEntry>): Promise<EntryDelta>
  /** The whole set at once: for `use_sync_authorized_entries = false`. */
  getAuthorizedEntries(): Promise<AuthorizedEntry[]>
  getBundle(): Promise<Bundle>
  /** undefined when the server does not have it. */
  getFederatedBundle(trustDomain: string): Promise<Bundle | undefined>
  /** Chains in order of the requests; undefined for one the server did not issue. */
  newX509Svids(requests: readonly SvidRequest[]): Promise<(readonly Uint8Array[] | undefined)[]>
  newJwtSvid(
    entryId: string,
    audience: readonly string[],
    timeoutMs: number,
  ): Promise<FetchedJwtSvid>
  subscribe(): PushStream
  release(): void
}

export function createServerClient(options: ServerClientOptions): ServerClient {
  const { clock, log } = options
  const settings = { clock }
  const shared = sharedChannel(options)
  return {
    postStatus: (agentVersion) =>
      shared.use(async (client) => {
        const request = { currentBundleSerial: 0n, agentVersion }
        await callUnary(client, AgentService.postStatus, request, settings)
      }),
    renewAgent: (csr) =>
      shared.use(async (client) => {
        const request = { params: { csr } }
        const { svid } = await callUnary(client, AgentService.renewAgent, request, settings)
        return chainOf(svid)
      }),
    syncEntries: (known) =>
      shared.use((client) =>
        syncEntries(
          openBidi(client, EntryService.syncAuthorizedEntries, callOptions(settings)),
          known,
          log,
        ),
      ),
    getAuthorizedEntries: () =>
      shared.use(async (client) => {
        const request = { outputMask: undefined }
        const method = EntryService.getAuthorizedEntries
        const { entries } = await callUnary(client, method, request, settings)
        return parseEntries(entries, log)
      }),
    getBundle: () =>
      shared.use(async (client) => {
        const request = { outputMask: undefined }
        return bundleFromProto(await callUnary(client, BundleService.getBundle, request, settings))
      }),
    getFederatedBundle: (trustDomain) => getFederatedBundle(shared, trustDomain, settings),
    newX509Svids: (requests) => newX509Svids(shared, requests, options),
    newJwtSvid: (entryId, audience, timeoutMs) =>
      shared.use(async (client) => {
        const request = { entryId, audience: [...audience] }
        const timed = { clock, timeoutMs }
        const { svid } = await callUnary(client, SVIDService.newJwtsvid, request, timed)
        return checkJwtSvid(svid)
      }),
    // No deadline: it lives until either side ends it, watched by heartbeats.
    subscribe: () =>
      shared.open((client, isMarked) =>
        fromMarkedServer(openBidi(client, SyncService.subscribe, {}), isMarked),
      ),
    release: () => shared.release(),
  }
}

interface SharedChannel {
  use<T>(call: (client: Client) => Promise<T>): Promise<T>
  open<T>(call: (client: Client, isMarked: () => boolean) => T): T
  release(): void
}

interface Channel {
  readonly client: Client
  isMarked: boolean
}

function sharedChannel(options: ServerClientOptions): SharedChannel {
  let current: Channel | undefined
  const acquire = () => {
    current ??= openChannel(options)
    return current
  }
  const release = (channel: Channel | undefined) => {
    if (channel === undefined || channel !== current) return
    current = undefined
    channel.client.close()
  }
  return {
    async use(call) {
      const channel = acquire()
      try {
        return await call(channel.client)
      } catch (error) {
        release(channel)
        throw error
      }
    },
    open(call) {
      const channel = acquire()
      return call(channel.client, () => channel.isMarked)
    },
    release: () => release(current),
  }
}

function openChannel(options: ServerClientOptions): Channel {
  const client = openServerChannel({
    host: options.host,
    port: options.port,
    trustDomain: options.trustDomain,
    roots: options.roots(),
    certificate: options.certificate(),
    onServerVerified(isMarked) {
      channel.isMarked = isMarked
    },
  })
  const channel: Channel = { client, isMarked: false }
  return channel
}

/** A server that offers the push stream is one of ours, and those have the mark (channel.ts). */
function fromMarkedServer(stream: PushStream, isMarked: () => boolean): PushStream {
  return {
    ...stream,
    async receive() {
      const message = await stream.receive()
      if (message === undefined || isMarked()) return message
      stream.cancel()
      const text = 'server offers signet.sync.v1 but was not issued by cluster "control"'
      throw new SignetError('unavailable', 'server_unverified', text)
    },
  }
}

async function getFederatedBundle(
  shared: SharedChannel,
  trustDomain: string,
  settings: { readonly clock: Clock },
): Promise<Bundle | undefined> {
  const request = { trustDomain, outputMask: undefined }
  try {
    return await shared.use(async (client) =>
      bundleFromProto(await callUnary(client, BundleService.getFederatedBundle, request, settings)),
    )
  } catch (error) {
    if (error instanceof SignetError && error.kind === 'not_found') return undefined
    throw error
  }
}

async function newX509Svids(
  shared: SharedChannel,
  requests: readonly SvidRequest[],
  { clock, log }: Pick<ServerClientOptions, 'clock' | 'log'>,
): Promise<(readonly Uint8Array[] | undefined)[]> {
  const request = { params: requests.map(({ entryId, csr }) => ({ entryId, csr })) }
  const { results } = await shared.use((client) =>
    callUnary(client, SVIDService.batchNewX509Svid, request, { clock, timeoutMs: RPC_TIMEOUT_MS }),
  )
  return requests.map(({ entryId }, i) => {
    const result = results[i]
    const status = result?.status
    if (status?.code === 0 && result?.svid !== undefined) return chainOf(result.svid)
    log.warn('Failed to fetch X509-SVID', { entry_id: entryId, status_message: status?.message })
    return undefined
  })
}

/** Copies: decoded bytes are views that would keep a message of 500 SVIDs alive for one. */
export function chainOf(
  svid: { readonly certChain: readonly Uint8Array[] } | undefined,
): readonly Uint8Array[] {
  if (svid === undefined || svid.certChain.length === 0) {
    throw new SignetError('internal', 'svid_missing', 'empty SVID cert chain')
  }
  return svid.certChain.map((der) => Uint8Array.from(der))
}

/** A malformed answer is a mismatch of versions, not a passing fault: never retried. */
function checkJwtSvid(svid: JWTSVID | undefined): FetchedJwtSvid {
  if (svid === undefined) throw badJwtSvid('JWTSVID response missing SVID')
  if (svid.issuedAt === 0n) throw badJwtSvid('JWTSVID missing issued at')
  if (svid.expiresAt === 0n) throw badJwtSvid('JWTSVID missing expires at')
  if (svid.issuedAt > svid.expiresAt) throw badJwtSvid('JWTSVID issued after it has expired')
  return {
    token: svid.token,
    spiffeId: spiffeIdFromProto(svid.id).toString(),
    issuedAt: Number(svid.issuedAt),
    expiresAt: Number(svid.expiresAt),
  }
}

function badJwtSvid(text: string): SignetError {
  return new SignetError('invalid_argument', 'bad_jwt_svid_response', text)
}

/** For log fields and answers: the text with the call's code, as SPIRE prints it. */
export function errorText(error: unknown): string {
  return error instanceof SignetError ? rpcErrorText(error) : plainErrorText(error)
}

/** With what was tried in front and what to look at behind; reacts as the error itself. */
export function prefixedError(lead: string, error: unknown, nextStep = ''): unknown {
  if (!(error instanceof SignetError)) return error
  const { kind, code, denial } = error
  const text = `${lead}: ${errorText(error)}${nextStep}`
  return new SignetError(kind, code, text, {
    cause: error,
    ...(denial === undefined ? {} : { denial }),
  })
}
