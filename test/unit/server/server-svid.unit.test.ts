import { createPrivateKey, X509Certificate } from 'node:crypto'
import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { SignetError } from '../../../src/base/error.ts'
import type { Issuance, X509SvidOrder } from '../../../src/ca/issuance.ts'
import type { X509Issuer } from '../../../src/ca/issuer-source.ts'
import type { ServerCertificate } from '../../../src/server/listener/tls-door.ts'
import { createServerSvid } from '../../../src/server/server-svid.ts'
import type { Bundle } from '../../../src/spiffe/bundle.ts'
import { TrustDomain } from '../../../src/spiffe/trust-domain.ts'
import { parseCertificate } from '../../../src/x509/certificate.ts'
import { parseCertificateRequest } from '../../../src/x509/csr.ts'
import { FakeClock } from '../../fakes/fake-clock.ts'
import { createMemoryLog, createMemoryMetrics } from '../../fakes/memory-log.ts'
import { createSeededRandom } from '../../fakes/seeded-random.ts'
import { makeAuthority, makeLeaf, type TestAuthority } from '../../rigs/certificates.ts'

const ID = 'spiffe://example.org/spire/server'

let root: TestAuthority
let control: TestAuthority
beforeAll(async () => {
  root = await makeAuthority('root', 'spiffe://example.org')
  control = await makeAuthority('control', 'spiffe://example.org', root)
})

function setUp() {
  const clock = new FakeClock(Math.floor(Date.now() / 1000))
  const log = createMemoryLog()
  const orders: X509SvidOrder[] = []
  const shown: ServerCertificate[] = []
  let issuerId = 7
  let isTainted = false
  let failure: SignetError | undefined
  const issuance: Pick<Issuance, 'issueX509Svids'> = {
    issueX509Svids: async ([order]) => {
      orders.push(order!)
      if (failure) return [{ ok: false, error: failure }]
      const leaf = await makeLeaf(control, {
        uris: [order!.spiffeId.toString()],
        notBefore: new Date(clock.nowMs()),
        notAfter: new Date(clock.nowMs() + 3_600_000),
      })
      const { serialNumber, notBefore, notAfter } = parseCertificate(leaf.der)
      const chain = [leaf.der, control.der]
      return [
        {
          ok: true,
          value: { spiffeId: order!.spiffeId, chain, serialNumber, notBefore, notAfter },
        },
      ]
    },
  }
  const svid = createServerSvid(
    {
      trustDomain: TrustDomain.parse('example.org'),
      clock,
      random: createSeededRandom(),
      log,
      metrics: createMemoryMetrics(),
      issuance,
      issuers: { x509Issuer: () => ({ authority: { id: issuerId } }) as X509Issuer },
      bundle: () =>
        ({ x509Authorities: [{ certificate: root.der, tainted: isTainted }] }) as unknown as Bundle,
      keyType: 'ec-p256',
    },
    (certificate) => shown.push(certificate),
  )
  return {
    clock,
    log,
    orders,
    shown,
    svid,
    replaceIssuer: () => issuerId++,
    taint: () => {
      isTainted = true
    },
    fail: (error: SignetError | undefined) => {
      failure = error
    },
  }
}

let rig: ReturnType<typeof setUp>
beforeEach(() => {
  rig = setUp()
})

test('is ordered from the control cluster for a key of its own', async () => {
  expect(() => rig.svid.current()).toThrow(expect.objectContaining({ kind: 'unavailable' }))
  expect(await rig.svid.step()).toBe(true)
  const [order] = rig.orders
  expect(order).toMatchObject({
    profile: 'server',
    clusterId: 1,
    entryId: '',
    ttlSeconds: 0,
    dnsNames: [],
    proof: true,
  })
  expect(order!.spiffeId.toString()).toBe(ID)
  const { publicKey } = parseCertificateRequest(order!.csr)
  const { privateKeyPem, chain } = rig.svid.current()
  const key = createPrivateKey(privateKeyPem)
  expect(key.asymmetricKeyDetails?.namedCurve).toBe('prime256v1')
  expect(publicKey).toBeDefined()
  expect(chain).toHaveLength(2)
  expect(rig.shown).toEqual([rig.svid.current()])
})

test('shows its chain up to the root of the bundle', async () => {
  await rig.svid.step()
  const chain = await rig.svid.verifiedChain()
  expect(chain.map(({ der }) => new X509Certificate(der).subject)).toEqual([
    'C=US\nO=SPIRE',
    'CN=control',
    'CN=root',
  ])
})

describe('is renewed', () => {
  beforeEach(async () => void (await rig.svid.step()))

  test('at half of its life, not before', async () => {
    rig.clock.advanceSeconds(1_799)
    expect(await rig.svid.step()).toBe(false)
    rig.clock.advanceSeconds(1)
    expect(await rig.svid.step()).toBe(true)
    expect(rig.shown).toHaveLength(2)
    expect(rig.shown[1]!.privateKeyPem).not.toBe(rig.shown[0]!.privateKeyPem)
  })

  test('when its issuer was replaced', async () => {
    rig.replaceIssuer()
    expect(await rig.svid.step()).toBe(true)
    expect(await rig.svid.step()).toBe(false)
  })

  test('when its root is tainted and there is another issuer, saying so', async () => {
    rig.taint()
    expect(await rig.svid.step()).toBe(false)
    rig.replaceIssuer()
    expect(await rig.svid.step()).toBe(true)
    expect(rig.log.lines.filter(({ level }) => level === 'info')).toMatchObject([
      {
        message:
          'Server SVID signed using a tainted authority, forcing rotation of the Server SVID',
      },
    ])
  })
})

test('keeps the old one when it can not be renewed, and tries again', async () => {
  await rig.svid.step()
  const before = rig.svid.current()
  rig.clock.advanceSeconds(2_000)
  rig.fail(new SignetError('unavailable', 'ledger_unavailable', 'ledger is unavailable'))
  const stop = new AbortController()
  const running = rig.svid.run(stop.signal)
  await rig.clock.untilArmed()
  expect(rig.svid.current()).toBe(before)
  expect(rig.log.lines.at(-1)).toMatchObject({ message: 'Could not rotate server SVID' })
  rig.fail(undefined)
  rig.clock.advanceMs(5_000)
  await rig.clock.untilArmed()
  expect(rig.svid.current()).not.toBe(before)
  stop.abort()
  await running
})
