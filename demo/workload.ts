/**
 * A workload of the demo: it knows only the socket of the Workload API. It fetches its X.509-SVID,
 * then either serves mutual TLS (`backend PORT_FILE`) or calls a server (`frontend PORT`), and
 * prints what it saw as one JSON line per event.
 */

import { X509Certificate } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { createServer as createTlsServer, type TLSSocket, connect as tlsConnect } from 'node:tls'
import { credentials, Metadata } from '@grpc/grpc-js'
import { SpiffeWorkloadAPIClient, type X509SVIDResponse } from '../src/wire/gen/workload.ts'

interface Identity {
  readonly spiffeId: string
  readonly key: string
  readonly chain: readonly X509Certificate[]
  readonly roots: readonly X509Certificate[]
}

function emit(event: Record<string, unknown>): void {
  process.stdout.write(`${JSON.stringify(event)}\n`)
}

async function fetchIdentity(): Promise<Identity> {
  const socket = process.env.SPIFFE_ENDPOINT_SOCKET
  if (socket === undefined) throw new Error('SPIFFE_ENDPOINT_SOCKET is not set')
  const client = new SpiffeWorkloadAPIClient(socket, credentials.createInsecure())
  const metadata = new Metadata()
  metadata.set('workload.spiffe.io', 'true')
  const stream = client.fetchX509Svid({}, metadata)
  const response = await new Promise<X509SVIDResponse>((resolve, reject) => {
    stream.once('data', resolve)
    stream.once('error', reject)
  })
  stream.on('error', () => {})
  stream.cancel()
  client.close()
  const svid = response.svids[0]
  if (svid === undefined) throw new Error('no identity')
  return {
    spiffeId: svid.spiffeId,
    key: pem('PRIVATE KEY', svid.x509SvidKey),
    chain: splitDer(svid.x509Svid).map((der) => new X509Certificate(der)),
    roots: splitDer(svid.bundle).map((der) => new X509Certificate(der)),
  }
}

/** Concatenated DER: each certificate is a SEQUENCE with a two-byte length. */
function splitDer(bytes: Uint8Array): Uint8Array[] {
  const out: Uint8Array[] = []
  for (let at = 0; at < bytes.length; ) {
    const size = 4 + bytes[at + 2]! * 256 + bytes[at + 3]!
    out.push(bytes.subarray(at, at + size))
    at += size
  }
  return out
}

function pem(label: string, der: Uint8Array): string {
  const text = Buffer.from(der).toString('base64').replace(/.{64}/g, '$&\n')
  return `-----BEGIN ${label}-----\n${text}\n-----END ${label}-----\n`
}

function tlsOptions(identity: Identity) {
  return {
    key: identity.key,
    cert: identity.chain.map((c) => c.toString()).join(''),
    ca: identity.roots.map((c) => c.toString()),
    minVersion: 'TLSv1.3' as const,
  }
}

/** The peer's SPIFFE ID; the chain itself was checked by TLS against the bundle. */
function peerId(socket: TLSSocket): string {
  const names = socket.getPeerX509Certificate()?.subjectAltName ?? ''
  return /URI:(spiffe:\/\/[^,\s]+)/.exec(names)?.[1] ?? ''
}

function describe(identity: Identity): Record<string, unknown> {
  return {
    event: 'identity',
    spiffe_id: identity.spiffeId,
    chain: [...identity.chain, ...identity.roots].map((c) => c.subject.replaceAll('\n', ', ')),
    expires_at: identity.chain[0]?.validTo,
  }
}

async function backend(portFile: string): Promise<void> {
  const identity = await fetchIdentity()
  emit(describe(identity))
  const server = createTlsServer(
    { ...tlsOptions(identity), requestCert: true, rejectUnauthorized: true },
    (socket) => {
      socket.on('error', () => {})
      socket.once('data', (data) => {
        emit({ event: 'served', peer: peerId(socket), request: data.toString() })
        socket.end(`hello ${peerId(socket)}, this is ${identity.spiffeId}`)
      })
    },
  )
  server.on('tlsClientError', (error) => emit({ event: 'refused', reason: error.message }))
  server.listen(0, '127.0.0.1', () => {
    const address = server.address()
    if (address !== null && typeof address === 'object') {
      writeFileSync(portFile, String(address.port))
    }
  })
}

async function frontend(port: number, expected: string): Promise<void> {
  const identity = await fetchIdentity()
  emit(describe(identity))
  const socket = tlsConnect({
    ...tlsOptions(identity),
    host: '127.0.0.1',
    port,
    checkServerIdentity: () => undefined,
  })
  let answer = ''
  socket.once('secureConnect', () => {
    const peer = peerId(socket)
    if (peer !== expected) {
      emit({ event: 'mismatch', peer })
      socket.destroy()
      return
    }
    socket.write('GET /balance')
  })
  socket.on('data', (chunk) => {
    answer += chunk
  })
  await new Promise<void>((resolve, reject) => {
    socket.once('error', reject)
    socket.once('close', () => resolve())
  })
  emit({ event: 'called', peer: expected, protocol: 'TLSv1.3', answer })
}

const [role, argument, expected] = process.argv.slice(2)
try {
  if (role === 'backend' && argument !== undefined) await backend(argument)
  else if (role === 'frontend' && argument !== undefined)
    await frontend(Number(argument), expected ?? '')
  else throw new Error('usage: workload backend PORT_FILE | frontend PORT EXPECTED_ID')
} catch (error) {
  emit({ event: 'failed', reason: error instanceof Error ? error.message : String(error) })
  process.exitCode = 1
}
