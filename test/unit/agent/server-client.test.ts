/** The agent's client against real TLS servers. */
import {
  Server,
  ServerCredentials,
  type ServerDuplexStream,
  type ServerUnaryCall,
  type sendUnaryData,
  status,
} from '@grpc/grpc-js'
import { afterEach, expect, test } from 'vitest'
import { createServerClient } from '../../../src/agent/sync/server-client.ts'
import { systemClock } from '../../../src/base/clock.ts'
import { TrustDomain } from '../../../src/spiffe/trust-domain.ts'
import {
  type SyncRequest,
  SyncResponse,
  SyncService,
} from '../../../src/wire/gen/signet/sync/v1/sync.ts'
import {
  AgentService,
  type PostStatusRequest,
  type PostStatusResponse,
} from '../../../src/wire/gen/spire/api/server/agent/v1/agent.ts'
import { formatPem } from '../../../src/x509/pem.ts'
import { createMemoryLog } from '../../fakes/memory-log.ts'
import { makeAuthority, makeLeaf } from '../../rigs/certificates.ts'

const TD = TrustDomain.parse('example.org')

let server: Server | undefined
afterEach(() => server?.forceShutdown())

interface Asked {
  readonly peer: string
  readonly agentVersion: string
  readonly leftMs: number
}
let asked: Asked[] = []

/** Says one heartbeat to whoever subscribes, and refuses the status of version `bad`. */
function serve(certificates: readonly Uint8Array[], keyPem: string): Promise<number> {
  server = new Server()
  server.addService(SyncService, {
    subscribe: (call: ServerDuplexStream<SyncRequest, SyncResponse>) => {
      call.on('error', () => {})
      call.write({ ...SyncResponse.decode(new Uint8Array()), heartbeat: {} })
    },
  })
  server.addService(AgentService, {
    postStatus: (
      call: ServerUnaryCall<PostStatusRequest, PostStatusResponse>,
      callback: sendUnaryData<PostStatusResponse>,
    ) => {
      const { agentVersion } = call.request
      const leftMs = Number(call.getDeadline()) - systemClock.nowSeconds() * 1000
      asked.push({ peer: call.getPeer(), agentVersion, leftMs })
      if (agentVersion === 'bad') callback({ code: status.INTERNAL, details: 'no luck' })
      else callback(null, {})
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

async function clientOf(issuerName: string) {
  const root = await makeAuthority('root', TD.id)
  const issuer = await makeAuthority(issuerName, TD.id, root)
  const uris = [`${TD.id}/spire/server`]
  const leaf = await makeLeaf(issuer, { uris, intermediates: [issuer] })
  const agent = await makeLeaf(root, { uris: [`${TD.id}/spire/agent/x`] })
  return createServerClient({
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
}

test('calls have 30 s and share a connection, until one fails or it is released', async () => {
  asked = []
  const client = await clientOf('one, OU=cluster:control')
  try {
    await client.postStatus('1')
    await client.postStatus('2')
    await expect(client.postStatus('bad')).rejects.toMatchObject({ kind: 'internal' })
    await client.postStatus('3')
    client.release()
    await client.postStatus('4')
  } finally {
    client.release()
  }
  expect(asked.map(({ agentVersion }) => agentVersion)).toEqual(['1', '2', 'bad', '3', '4'])
  const [one, two, bad, three, four] = asked.map(({ peer }) => peer)
  expect([two, bad]).toEqual([one, one])
  expect(new Set([one, three, four]).size).toBe(3)
  for (const { leftMs } of asked) {
    expect(leftMs).toBeGreaterThan(25_000)
    expect(leftMs).toBeLessThanOrEqual(31_000)
  }
})

test.each([
  ['one, OU=cluster:control', undefined],
  ['unmarked', 'server offers signet.sync.v1 but was not issued by cluster "control"'],
  ['two, OU=cluster:default', 'server certificate was issued by cluster \\"default\\"'],
])('a push stream under the issuer CN=%s: %s', async (name, refusal) => {
  const client = await clientOf(name)
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
