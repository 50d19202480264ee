/**
 * Client channels: to a server over TLS, authenticated as `spiffe://<td>/spire/server` against the
 * trust bundle and never by host name (api.md §2, §11.1), and to local Unix sockets in plaintext.
 *
 * OpenSSL checks the chain against the bundle's roots (any of them may be an intermediate), this
 * file the identity. Channels are not reused across a change of bundle or of the own certificate:
 * their owner closes them and opens another.
 */
import { isIP } from 'node:net'
import { connect, createSecureContext, type PeerCertificate, type SecureContext } from 'node:tls'
import { type ChannelOptions, Client, credentials, status } from '@grpc/grpc-js'
import { SignetError } from '../../base/error.ts'
import { HANDSHAKE_MS_MAX, MESSAGE_BYTES_MAX } from '../../base/limits.ts'
import type { TrustDomain } from '../../spiffe/trust-domain.ts'
import { parseCertificate } from '../../x509/certificate.ts'
import { nameFields } from '../../x509/name.ts'
import { formatPem } from '../../x509/pem.ts'
import { connectErrorText, handshakeText, isUnknownAuthorityText } from '../connection-text.ts'

export interface ClientCertificate {
  /** DER, leaf first. */
  readonly chain: readonly Uint8Array[]
  /** PKCS#8 DER. */
  readonly privateKey: Uint8Array
}

export interface ServerChannelOptions {
  readonly host: string
  readonly port: number
  readonly trustDomain: TrustDomain
  /** DER of what the server's chain must end at. */
  readonly roots: readonly Uint8Array[]
  readonly certificate?: ClientCertificate | undefined
  /** Called after each handshake: did the issuer name the cluster that signs Signet's servers? */
  readonly onServerVerified?: (isMarked: boolean) => void
}

/**
 * Who may sign `/spire/server`. A cluster's intermediate can name any path of the trust domain, so
 * one that leaked, or is held by a plugged-in mesh CA, could pose as the server. Signet names the
 * cluster of each intermediate in its subject (`OU=cluster:<name>`), which the root signed and every
 * leaf repeats as its issuer; path lengths of 0 leave no room for an unmarked CA below. The rule:
 * - `cluster:control` is taken, any other cluster never;
 * - an issuer without mark, as SPIRE's servers and nested ones have, is taken only from a server
 *   that is not ours: whoever offers `signet.sync.v1` must have the mark (agent/sync/server-client.ts).
 */
const CLUSTER_UNIT_PREFIX = 'cluster:'
const CONTROL_CLUSTER = 'control'

/** Sent in place of an IP address; servers do not look at it. */
const SERVER_NAME = 'spire-server'

export function openServerChannel(options: ServerChannelOptions): Client {
  const channelCredentials = credentials.createFromSecureContext(secureContext(options), {
    checkServerIdentity: (_host: string, { raw }: PeerCertificate) => {
      const error = serverIdentityError(raw, options.trustDomain)
      if (error === undefined) options.onServerVerified?.(hasControlMark(raw))
      return error
    },
  })
  const target = `dns:///${bracketed(options.host)}:${options.port}`
  return new Client(target, channelCredentials, channelOptions(options.host))
}

/** `path` is absolute. */
export function openUnixChannel(path: string): Client {
  return new Client(`unix:${path}`, credentials.createInsecure(), {
    // A Unix socket has no authority; grpc-go servers refuse the path as one.
    'grpc.default_authority': 'localhost',
    'grpc.max_receive_message_length': MESSAGE_BYTES_MAX,
  })
}

/** In plaintext, for a Workload API that is served at `ip:port`. */
export function openTcpChannel(address: string): Client {
  return new Client(`dns:///${address}`, credentials.createInsecure(), {
    'grpc.max_receive_message_length': MESSAGE_BYTES_MAX,
    'grpc.enable_http_proxy': 0,
  })
}

/**
 * Insecure bootstrap: the leaf that answers now is taken on trust once its identity reads right,
 * and the channel made with it as root talks to nobody else. No security, only a check that the
 * address is not another trust domain's.
 */
export function probeServerLeaf(
  options: Pick<ServerChannelOptions, 'host' | 'port' | 'trustDomain'>,
): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    const socket = connect({
      timeout: HANDSHAKE_MS_MAX,
      host: options.host,
      port: options.port,
      ALPNProtocols: ['h2'],
      rejectUnauthorized: false,
    })
    const fail = (text: string) => {
      socket.destroy()
      reject(unreachable(text))
    }
    socket.once('timeout', () => fail(handshakeText('timed out')))
    socket.once('error', (error) => fail(connectErrorText(error)))
    socket.once('secureConnect', () => {
      const leaf = socket.getPeerCertificate().raw
      socket.destroy()
      const wrong = serverIdentityError(leaf, options.trustDomain)
      if (wrong === undefined) resolve(new Uint8Array(leaf))
      else reject(unreachable(handshakeText(wrong.message)))
    })
  })
}

/** Why this verified leaf does not speak for the trust domain's server; undefined when it does. */
export function serverIdentityError(
  leaf: Uint8Array | undefined,
  trustDomain: TrustDomain,
): Error | undefined {
  if (leaf === undefined) return new Error('server chain is unexpectedly empty')
  try {
    const { uriNames, issuer } = parseCertificate(leaf)
    const expected = `${trustDomain.id}/spire/server`
    if (uriNames.length !== 1 || uriNames[0] !== expected) {
      return new Error(`expected server SPIFFE ID "${expected}"; got [${uriNames.join(' ')}]`)
    }
    return foreignClusterError(issuer)
  } catch (error) {
    return error instanceof Error ? error : new Error(String(error))
  }
}

function foreignClusterError(issuer: Uint8Array): Error | undefined {
  const foreign = clustersOf(issuer).find((cluster) => cluster !== CONTROL_CLUSTER)
  if (foreign === undefined) return undefined
  return new Error(`server certificate was issued by cluster ${JSON.stringify(foreign)}`)
}

function hasControlMark(leaf: Uint8Array): boolean {
  return clustersOf(parseCertificate(leaf).issuer).includes(CONTROL_CLUSTER)
}

function clustersOf(name: Uint8Array): string[] {
  return (nameFields(name).organizationalUnit ?? [])
    .filter((unit) => unit.startsWith(CLUSTER_UNIT_PREFIX))
    .map((unit) => unit.slice(CLUSTER_UNIT_PREFIX.length))
}

export function isUnknownAuthority(error: unknown): error is SignetError {
  return (
    error instanceof SignetError &&
    error.kind === 'unavailable' &&
    isUnknownAuthorityText(error.message)
  )
}

function secureContext(options: ServerChannelOptions): SecureContext {
  const { certificate } = options
  return createSecureContext({
    ca: options.roots.map((der) => formatPem('CERTIFICATE', der)),
    // A bundle may hold an intermediate as an authority, as Go's verifier allows.
    allowPartialTrustChain: true,
    minVersion: 'TLSv1.2',
    ...(certificate === undefined
      ? {}
      : {
          cert: certificate.chain.map((der) => formatPem('CERTIFICATE', der)).join(''),
          key: formatPem('PRIVATE KEY', certificate.privateKey),
        }),
  })
}

function channelOptions(host: string): ChannelOptions {
  return {
    // One channel per connection: channels with equal options would share subchannels.
    'grpc.use_local_subchannel_pool': 1,
    'grpc.service_config': JSON.stringify({ loadBalancingConfig: [{ round_robin: {} }] }),
    'grpc.service_config_disable_resolution': 1,
    'grpc.max_receive_message_length': MESSAGE_BYTES_MAX,
    // RFC 6066 §3: an address is no server name. grpc-js would send it, and Node refuses to.
    ...(isIP(unbracketed(host)) === 0 ? {} : { 'grpc.ssl_target_name_override': SERVER_NAME }),
    // As Go's ProxyFromEnvironment: never through a proxy to this machine.
    ...(isLoopback(host) ? { 'grpc.enable_http_proxy': 0 } : {}),
  }
}

function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || /^127\./.test(host)
}

function unbracketed(host: string): string {
  return host.replace(/^\[(.*)\]$/, '$1')
}

function bracketed(host: string): string {
  return host.includes(':') && !host.startsWith('[') ? `[${host}]` : host
}

/** As a call reports it that could not connect. */
function unreachable(text: string): SignetError {
  const fields = { grpcCode: status.UNAVAILABLE }
  return new SignetError('unavailable', 'server_unverified', text, { fields })
}
