/** How a failed attestation reads: with SPIRE's lead-in, the cause once, and what to look at. */
import { Server, ServerCredentials, type ServerDuplexStream, status } from '@grpc/grpc-js'
import { afterEach, expect, test } from 'vitest'
import { attestAgent } from '../../../src/agent/sync/attest-call.ts'
import { createJoinTokenAgent } from '../../../src/attestors/node/join-token/agent.ts'
import { systemClock } from '../../../src/base/clock.ts'
import { errorText } from '../../../src/base/log-text.ts'
import { TrustDomain } from '../../../src/spiffe/trust-domain.ts'
import {
  AgentService,
  type AttestAgentRequest,
  type AttestAgentResponse,
} from '../../../src/wire/gen/spire/api/server/agent/v1/agent.ts'
import { formatPem } from '../../../src/x509/pem.ts'
import { makeAuthority, makeLeaf } from '../../rigs/certificates.ts'

const TD = TrustDomain.parse('example.org')
const USED = 'failed to attest: join token does not exist or has already been used'

let server: Server | undefined
afterEach(() => server?.forceShutdown())

/** Refuses every token. */
async function serve(): Promise<{ port: number; root: Uint8Array }> {
  const root = await makeAuthority('root', TD.id)
  const leaf = await makeLeaf(root, { uris: [`${TD.id}/spire/server`] })
  server = new Server()
  server.addService(AgentService, {
    attestAgent: (stream: ServerDuplexStream<AttestAgentRequest, AttestAgentResponse>) => {
      stream.once('data', () =>
        stream.emit('error', { code: status.INVALID_ARGUMENT, details: USED }),
      )
    },
  })
  const pem = Buffer.from(formatPem('CERTIFICATE', leaf.der))
  const pair = { cert_chain: pem, private_key: Buffer.from(leaf.keyPem) }
  const credentials = ServerCredentials.createSsl(null, [pair], false)
  const port = await new Promise<number>((resolve, reject) => {
    server!.bindAsync('127.0.0.1:0', credentials, (error, bound) =>
      error ? reject(error) : resolve(bound),
    )
  })
  return { port, root: root.der }
}

interface Options {
  readonly port: number
  readonly roots: readonly Uint8Array[] | undefined
  readonly trustDomain?: TrustDomain
  readonly token?: string
}

/** As the log shows it. */
async function failureOf({ token = 'used', ...options }: Options): Promise<string> {
  const attestor = createJoinTokenAgent(token)
  const attest = async () =>
    attestAgent({
      host: '127.0.0.1',
      trustDomain: TD,
      attestorType: attestor.type,
      session: await attestor.attest(),
      csr: new Uint8Array(),
      clock: systemClock,
      ...options,
    })
  return attest().then(() => 'attested', errorText)
}

const OPEN =
  'could not open attestation stream to SPIRE server: rpc error: code = Unavailable desc = '
const NEXT =
  ' (is the server running, and are server_address, server_port and trust_domain its own?)'

test('a token that was used', async () => {
  const { port, root } = await serve()
  expect(await failureOf({ port, roots: [root] })).toBe(
    `failed to receive attestation response: rpc error: code = InvalidArgument desc = ${USED}`,
  )
})

test('no token', async () => {
  expect(await failureOf({ port: 1, roots: [], token: '' })).toBe(
    'nodeattestor(join_token): join token was not provided: set join_token, join_token_file or -joinToken',
  )
})

test.each([
  ['with roots', [new Uint8Array()].slice(1)],
  ['without', undefined],
])('nobody, %s', async (_what, roots) => {
  expect(await failureOf({ port: 1, roots })).toBe(
    `${OPEN}connection error: desc = "transport: Error while dialing: dial tcp 127.0.0.1:1: connect: connection refused"${NEXT}`,
  )
})

test('a server that the bundle does not know', async () => {
  const { port } = await serve()
  const other = await makeAuthority('other', TD.id)
  expect(await failureOf({ port, roots: [other.der] })).toBe(
    `${OPEN}connection error: desc = "transport: authentication handshake failed: x509svid: could not verify leaf certificate: x509: certificate signed by unknown authority" (the trust bundle of this agent is not that of the server: see its "bundle show")`,
  )
})

test.each(['verified', 'insecure'])('the server of another trust domain, %s', async (how) => {
  const { port, root } = await serve()
  const trustDomain = TrustDomain.parse('other.org')
  const roots = how === 'insecure' ? undefined : [root]
  expect(await failureOf({ port, roots, trustDomain })).toBe(
    `${OPEN}connection error: desc = "transport: authentication handshake failed: expected server SPIFFE ID \\"spiffe://other.org/spire/server\\"; got [spiffe://example.org/spire/server]"${NEXT}`,
  )
})
