/**
 * A running server against certificates that its own intermediates signed behind its back (design.md
 * §2): who holds a cluster's key forges neither a server, an agent nor an administrator at our door,
 * and who holds `control`'s no workload and no agent that did not attest.
 */
import { randomBytes } from 'node:crypto'
import { status } from '@grpc/grpc-js'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { systemClock } from '../../../src/base/clock.ts'
import { EntryService } from '../../../src/wire/gen/spire/api/server/entry/v1/entry.ts'
import { parseCertificate } from '../../../src/x509/certificate.ts'
import { encodeName } from '../../../src/x509/name.ts'
import { subjectKeyId } from '../../../src/x509/spki.ts'
import { derToPem, type RawIdentity } from '../../interop/raw-client.ts'
import { type StolenAuthority, stealAuthorities } from '../../rigs/authority-keys.ts'
import { newKey, signTemplate } from '../../rigs/issuing.ts'
import { call, LiveServer } from '../../rigs/live-server.ts'
import { until } from '../../rigs/until.ts'

const ADMIN = 'spiffe://example.org/admin'
const CONTROL = 1
const DEFAULT = 2
const DENIED = /^authorization denied for method /

let server: LiveServer
let authorities: StolenAuthority[]
let agent: RawIdentity

beforeAll(async () => {
  server = await LiveServer.start({ server: `admin_ids = ["${ADMIN}"]` })
  agent = await server.attest('spiffe://example.org/node')
  authorities = await stealAuthorities(server)
}, 90_000)
afterAll(() => server?.[Symbol.asyncDispose]())

/** Right in everything, but nobody asked the server. */
function forge(clusterId: number, spiffeId: string): RawIdentity {
  const authority = authorities.find((one) => {
    return one.kind === 'x509_intermediate' && one.clusterId === clusterId
  })!
  const issuer = parseCertificate(new Uint8Array(authority.certificate!))
  const key = newKey()
  const now = systemClock.nowSeconds()
  const leaf = signTemplate(
    {
      serialNumber: Uint8Array.of(0x40, ...randomBytes(15)),
      signatureAlgorithm: 'ecdsa-sha256',
      issuer: issuer.subject,
      subject: encodeName({ country: ['US'], organization: ['SPIRE'] }),
      validity: { notBefore: now - 10, notAfter: now + 600 },
      subjectPublicKeyInfo: key.publicKey,
      isCa: false,
      keyUsage: ['digitalSignature', 'keyEncipherment', 'keyAgreement'],
      extKeyUsage: ['serverAuth', 'clientAuth'],
      uriNames: [spiffeId],
      dnsNames: [],
      subjectKeyId: subjectKeyId(key.publicKey),
      authorityKeyId: issuer.subjectKeyId,
    },
    authority.key,
  )
  return {
    spiffeId,
    keyPem: key.privateKey.export({ format: 'pem', type: 'pkcs8' }).toString(),
    chainPem: derToPem(leaf) + derToPem(authority.certificate!),
  }
}

const countEntries = (identity: RawIdentity) =>
  call(server.tls(identity), EntryService.countEntries, { filter: undefined })
const ownEntries = (identity: RawIdentity) =>
  call(server.tls(identity), EntryService.getAuthorizedEntries, { outputMask: undefined })

test('the certificates that the server gave out open the door', async () => {
  const shown = await server.deployment.serverOk(['x509', 'mint', '-spiffeID', ADMIN])
  const pem = (kind: string) =>
    shown.match(new RegExp(`-----BEGIN ${kind}-----[\\s\\S]*?-----END ${kind}-----`, 'g')) ?? []
  const admin = {
    spiffeId: ADMIN,
    keyPem: pem('[A-Z ]*PRIVATE KEY')[0]!,
    chainPem: pem('CERTIFICATE').slice(0, 2).join('\n'),
  }
  expect((await countEntries(admin)).code).toBe(status.OK)
  expect((await ownEntries(agent)).code).toBe(status.OK)
})

describe('with the key of the cluster', () => {
  test('an administrator: known to no ledger', async () => {
    const answer = await countEntries(forge(DEFAULT, ADMIN))
    expect(answer).toMatchObject({
      code: status.PERMISSION_DENIED,
      details: expect.stringMatching(DENIED),
    })
  })

  test.each([
    ['an agent that attested', () => agent.spiffeId],
    ['an agent of a new name', () => 'spiffe://example.org/spire/agent/x509pop/forged'],
    ['a server', () => 'spiffe://example.org/spire/server'],
  ])('%s: no connection', async (_, spiffeId) => {
    const refusals = () => server.daemon.output.split('Client connection refused').length
    const before = refusals()
    const answer = await ownEntries(forge(DEFAULT, spiffeId()))
    expect([answer.code, answer.value]).toEqual([status.UNAVAILABLE, undefined])
    await until('the refusal in the log', () => refusals() > before)
    expect(server.daemon.output).toContain(`issuer may not issue \\"${spiffeId()}\\"`)
  })
})

describe('with the key of control', () => {
  test('an administrator: no connection', async () => {
    const answer = await countEntries(forge(CONTROL, ADMIN))
    expect([answer.code, answer.value]).toEqual([status.UNAVAILABLE, undefined])
  })

  test('an agent that attested: not with this serial number', async () => {
    const answer = await ownEntries(forge(CONTROL, agent.spiffeId))
    expect(answer).toMatchObject({
      code: status.PERMISSION_DENIED,
      details: expect.stringMatching(DENIED),
    })
    expect((await ownEntries(agent)).code).toBe(status.OK)
  })
})
