/** The agent's client against real TLS servers that offer the push stream. */
import { Server, ServerCredentials, type ServerDuplexStream } from '@grpc/grpc-js'
import { afterEach, expect, test } from 'vitest'
import { createServerClient } from '../../../src/agent/sync/server-client.ts'
import { systemClock } from '../../../src/base/clock.ts'
import { TrustDomain } from '../../../src/spiffe/trust-domain.ts'
import {
  type SyncRequest,
  SyncResponse,
  SyncService,
} from '../../../src/wire/gen/signet/sync/v1/sync.ts'
import { formatPem } from '../../../src/x509/pem.ts'
import { createMemoryLog } from '../../fakes/memory-log.ts'
import { makeAuthority, makeLeaf } from '../../rigs/certificates.ts'

const TD = TrustDomain.parse('example.org')

let server: Server | undefined
afterEach(() => server?.forceShutdown())

/** Says one heartbeat to whoever subscribes. */
function serve(certificates: readonly Uint8Array[], keyPem: string): Promise<number> {
  server = new Server()
  server.addService(SyncService, {
    subscribe: (call: ServerDuplexStream<SyncRequest, SyncResponse>) => {
      call.on('error', () => {})
      call.write({ ...SyncResponse.decode(new Uint8Array()), heartbeat: {} })
    },
  })
  const chain = certificates.map((der) => formatPem('CERTIFICATE', der)).join('')
  const pair = { cert_chain: Buffer.from(chain), private_key: Buffer.from(keyPem) }
  const credentials = ServerCredentials.createSsl(null, [pair], false)
  return new Promise((resolve, reject) => {
    server!.bindAsync('127.0.0.1:0', credentials, (error, port) =>
      error ? reject(error) : resolve(port),
    )
  })
}

test.each([
  ['one, OU=cluster:control', undefined],
  ['unmarked', 'server offers signet.sync.v1 but was not issued by cluster "control"'],
  ['two, OU=cluster:default', 'server certificate was issued by cluster "default"'],
])('a push stream under the issuer CN=%s: %s', async (name, refusal) => {
  const root = await makeAuthority('root', TD.id)
  const issuer = await makeAuthority(name, TD.id, root)
  const uris = [`${TD.id}/spire/server`]
  const leaf = await makeLeaf(issuer, { uris, intermediates: [issuer] })
  const agent = await makeLeaf(root, { uris: [`${TD.id}/spire/agent/x`] })
  const client = createServerClient({
    host: '127.0.0.1',
    port: await serve(leaf.chain, leaf.keyPem),
    trustDomain: TD,
    roots: () => [root.der],
    certificate: () => ({
      chain: agent.chain,
      privateKey: new Uint8Array(agent.key.export({ format: 'der', type: 'pkcs8' })),
    }),
    clock: systemClock,
    log: createMemoryLog(),
  })
  const stream = client.subscribe()
  try {
    if (refusal === undefined) {
      expect((await stream.receive())?.heartbeat).toBeDefined()
    } else {
      await expect(stream.receive()).rejects.toMatchObject({
        kind: 'unavailable',
        message: expect.stringContaining(refusal),
      })
    }
  } finally {
    stream.cancel()
    client.release()
  }
})
