/** A client of the server API that says exactly what it is told: for scenarios no real agent would play. */
import { generateKeyPairSync, type KeyObject } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { credentials, type ServiceError } from '@grpc/grpc-js'
import type { AttestAgentResponse } from '../../src/wire/gen/spire/api/server/agent/v1/agent.ts'
import { AgentClient } from '../../src/wire/gen/spire/api/server/agent/v1/agent.ts'
import { run } from '../rigs/process.ts'

export interface RawIdentity {
  readonly spiffeId: string
  readonly keyPem: string
  readonly chainPem: string
}

/** A CSR by openssl for a key made here. */
export async function makeCsr(
  dir: string,
): Promise<{ key: KeyObject; keyPem: string; csr: Uint8Array }> {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const keyPem = privateKey.export({ type: 'pkcs8', format: 'pem' }).toString()
  const keyFile = join(dir, `raw-${Math.trunc(performance.now() * 1000)}.key`)
  writeFileSync(keyFile, keyPem, { mode: 0o600 })
  const made = await run('openssl', ['req', '-new', '-key', keyFile, '-subj', '/C=US/O=SPIRE'])
  const der = Buffer.from(made.stdout.replace(/-----[^-]+-----/g, ''), 'base64')
  return { key: privateKey, keyPem, csr: der }
}

/** TLS to the server that trusts `rootsPem` and checks no host name, with or without an identity. */
export function channelTo(rootsPem: string, identity?: RawIdentity) {
  return credentials.createSsl(
    Buffer.from(rootsPem),
    identity === undefined ? null : Buffer.from(identity.keyPem),
    identity === undefined ? null : Buffer.from(identity.chainPem),
    { checkServerIdentity: () => undefined },
  )
}

export function derToPem(der: Uint8Array): string {
  const body = Buffer.from(der)
    .toString('base64')
    .replace(/.{1,64}/g, '$&\n')
  return `-----BEGIN CERTIFICATE-----\n${body}-----END CERTIFICATE-----\n`
}

/** Attests with a join token; rejects with the ServiceError. */
export async function attestWithToken(
  address: string,
  rootsPem: string,
  token: string,
  dir: string,
): Promise<RawIdentity> {
  const { keyPem, csr } = await makeCsr(dir)
  const client = new AgentClient(address, channelTo(rootsPem))
  try {
    const response = await new Promise<AttestAgentResponse>((resolve, reject) => {
      const stream = client.attestAgent()
      stream.once('data', resolve)
      stream.once('error', (error: ServiceError) => reject(error))
      stream.write({
        params: {
          data: { type: 'join_token', payload: new TextEncoder().encode(token) },
          params: { csr },
        },
      })
    })
    const svid = response.result?.svid
    if (svid?.id === undefined) throw new Error('no SVID in the answer')
    return {
      spiffeId: `spiffe://${svid.id.trustDomain}${svid.id.path}`,
      keyPem,
      chainPem: svid.certChain.map(derToPem).join(''),
    }
  } finally {
    client.close()
  }
}
