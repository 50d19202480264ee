import { createHash, X509Certificate as NodeCertificate } from 'node:crypto'
import { beforeEach, describe, expect, test } from 'vitest'
import { toDecimal, toHex } from '../../../../src/base/bytes.ts'
import { SignetError } from '../../../../src/base/error.ts'
import { logTime, TwoForms } from '../../../../src/base/log-text.ts'
import type { Authority } from '../../../../src/ca/authority/authority.ts'
import { createJwtIssuance } from '../../../../src/ca/jwt/jwt-issuance.ts'
import { keyEncryptionKey } from '../../../../src/ca/signer/kek.ts'
import { SpiffeId } from '../../../../src/spiffe/spiffe-id.ts'
import { parseCertificate } from '../../../../src/x509/certificate.ts'
import { formatName } from '../../../../src/x509/name.ts'
import { verifyChain } from '../../../../src/x509/path.ts'
import { FakeClock } from '../../../fakes/fake-clock.ts'
import {
  createMemoryAuthorityStore,
  type MemoryAuthorityStore,
} from '../../../fakes/memory-authority-store.ts'
import { createTestServer, type TestServer } from '../../../rigs/test-authorities.ts'

const NOW = 1_800_000_000
const DAY = 24 * 3600

let store: MemoryAuthorityStore
let clock: FakeClock
beforeEach(() => {
  store = createMemoryAuthorityStore()
  clock = new FakeClock(NOW)
})

const slots = (rows: readonly Authority[]) =>
  rows.map((row) => `${row.kind}/${row.clusterId} ${row.state}`)

function issueJwt(server: TestServer) {
  return createJwtIssuance({
    clock,
    random: server.random,
    issuers: server.authorities,
    signer: server.signer,
    ledger: server.ledger,
    metrics: server.metrics,
    config: { trustDomain: 'example.org', issuer: undefined, ttlSecondsDefault: 300 },
  }).issueJwtSvid(
    {
      clusterId: 2,
      spiffeId: SpiffeId.parse('spiffe://example.org/w'),
      entryId: '',
      audience: ['a'],
      ttlSeconds: 0,
      includeJti: false,
    },
    { callerId: 'uid:0', requestId: 'r' },
  )
}

describe('first start', () => {
  test('makes one root, an intermediate per cluster and a JWT key, all active', async () => {
    const server = createTestServer({ store, clock })
    await server.rotator.step()
    expect(slots(await store.listAuthorities())).toEqual([
      'x509_root/0 active',
      'x509_intermediate/1 active',
      'x509_intermediate/2 active',
      'jwt/2 active',
    ])
    expect(store.bundle.size).toBe(2)
    expect(await server.rotator.step()).toEqual([])
    expect((await issueJwt(server)).token.split('.')).toHaveLength(3)
  })

  test('the certificates are what the design says', async () => {
    const server = createTestServer({ store, clock })
    await server.rotator.step()
    const rows = await store.listAuthorities()
    const [root, control, fallback] = rows.map((row) => row.certificate).filter((der) => der)
    const names = new Set<string>()
    for (const [der, pathLength, unit] of [
      [root, undefined, ''],
      [control, 0, 'OU=cluster:control,'],
      [fallback, 0, 'OU=cluster:default,'],
    ] as const) {
      const certificate = parseCertificate(der!)
      expect(certificate).toMatchObject({
        isCa: true,
        pathLength,
        uriNames: ['spiffe://example.org'],
      })
      expect([...certificate.keyUsage!].sort()).toEqual(['cRLSign', 'keyCertSign'])
      expect(certificate.notBefore).toBe(NOW - 10)
      const name = formatName(certificate.subject)
      const serial = toDecimal(certificate.serialNumber)
      expect(name).toBe(`SERIALNUMBER=${serial},${unit}O=SPIFFE,C=US`)
      names.add(name)
      // Another reader agrees.
      const read = new NodeCertificate(der!)
      expect(read.ca).toBe(true)
      expect(read.validToDate.getTime() / 1000).toBe(certificate.notAfter)
      expect(read.subjectAltName).toBe('URI:spiffe://example.org')
    }
    expect(names.size).toBe(3)
    expect(parseCertificate(root!).notAfter).toBe(NOW + 3650 * DAY)
    expect(parseCertificate(control!).notAfter).toBe(NOW + DAY)
    expect(new NodeCertificate(control!).checkIssued(new NodeCertificate(root!))).toBe(true)
    expect(
      verifyChain({
        leaf: parseCertificate(control!),
        intermediates: [],
        roots: [parseCertificate(root!)],
        now: NOW,
      }),
    ).toHaveLength(1)
  })

  test('every CA certificate has its ledger row', async () => {
    const server = createTestServer({ store, clock })
    await server.rotator.step()
    const rows = await store.listAuthorities()
    const rootId = rows.find((row) => row.kind === 'x509_root')!.id
    expect(server.ledger.rows.map((row) => [row.kind, row.clusterId, row.authorityId])).toEqual([
      ['x509_ca', 0, 0],
      ['x509_ca', 1, rootId],
      ['x509_ca', 2, rootId],
    ])
    for (const row of server.ledger.rows) {
      const signed = rows.find(
        ({ certificate }) =>
          certificate &&
          toHex(parseCertificate(certificate).serialNumber) === toHex(row.serialNumber),
      )
      const tbs = parseCertificate(signed!.certificate!).tbs
      expect(toHex(row.tbsSha256)).toBe(createHash('sha256').update(tbs).digest('hex'))
      expect(row.spiffeId).toBe('spiffe://example.org')
    }
  })

  test('the configured subject and lifetime are those of the CA certificates', async () => {
    const caSubject = { country: ['DE'], organization: ['Example'], commonName: 'ca' }
    const config = { caTtlSeconds: 7200 }
    const server = createTestServer({ store, clock, caSubject, config })
    await server.rotator.step()
    const issuer = parseCertificate(server.authorities.x509Issuer(2).chain[0]!)
    expect(formatName(issuer.subject)).toContain('O=Example,C=DE')
    expect(formatName(issuer.subject)).toContain('CN=ca')
    expect(issuer.notAfter).toBe(NOW + 7200)
  })

  test('other key types: P-384 and RSA', async () => {
    const config = { keyType: 'ec-p384', jwtKeyType: 'rsa-2048' } as const
    const server = createTestServer({ store, clock, config })
    await server.rotator.step()
    expect(server.authorities.jwtIssuer(2).alg).toBe('RS256')
    expect((await issueJwt(server)).token.split('.')[2]).toHaveLength(342)
  })

  test('says what SPIRE says', async () => {
    const server = createTestServer({ store, clock })
    await server.rotator.step()
    const x509 = ['debug Preparing X509 CA', 'info X509 CA prepared', 'info X509 CA activated']
    const rotated = 'debug Successfully rotated X.509 CA'
    expect(server.log.lines.map(({ level, message }) => `${level} ${message}`)).toEqual([
      ...x509,
      ...[...x509, rotated],
      ...[...x509, rotated],
      'debug Preparing JWT key',
      'info JWT key prepared',
      'info JWT key activated',
    ])
    const [root, intermediate, jwt] = [1, 4, 12].map((i) => server.log.lines[i]!.fields)
    const common = { reason: 'initial', issued_at: expect.any(TwoForms) }
    expect(root).toEqual({
      ...common,
      slot: 'x509_root/0',
      self_signed: true,
      expiration: logTime(NOW + 3650 * DAY),
      local_authority_id: expect.stringMatching(/^[0-9a-f]{40}$/),
      upstream_authority_id: '',
    })
    expect(intermediate).toMatchObject({
      self_signed: false,
      upstream_authority_id: root!.local_authority_id,
    })
    expect(jwt).toEqual({
      ...common,
      slot: 'jwt/2',
      expiration: logTime(NOW + DAY),
      local_authority_id: server.authorities.jwtIssuer(2).authority.authorityId,
    })
    expect(server.log.lines[2]!.fields).toMatchObject({ upstream_authority_id: '' })
    expect(server.log.lines[6]!.fields).toEqual({
      trust_domain_id: 'spiffe://example.org',
      ttl: DAY,
    })
    expect(server.metrics.counters.get('ca.manager.x509_ca.prepare')).toBe(3)
    expect(server.metrics.counters.get('ca.manager.x509_ca.activate')).toBe(3)
    expect(server.metrics.counters.get('manager.jwt_key.activate')).toBe(1)
    expect(server.metrics.gauges.get('manager.x509_ca.rotate.ttl')).toBe(DAY)
  })
})

describe('rotation by time', () => {
  test('prepares at half-life, activates with a sixth left, prunes what expired', async () => {
    const server = createTestServer({ store, clock })
    await server.rotator.step()
    const first = server.authorities.jwtIssuer(2).authority.authorityId
    clock.advanceSeconds(DAY / 2 - 1)
    expect(await server.rotator.step()).toEqual([])
    clock.advanceSeconds(1)
    expect((await server.rotator.step()).map((step) => step.step)).toEqual(Array(3).fill('prepare'))
    expect(server.authorities.jwtIssuer(2).authority.authorityId).toBe(first)
    clock.advanceSeconds(DAY / 3 - 1)
    expect(await server.rotator.step()).toEqual([])
    clock.advanceSeconds(1)
    expect((await server.rotator.step()).map((step) => step.step)).toEqual(
      Array(3).fill('activate'),
    )
    expect(server.authorities.jwtIssuer(2).authority.authorityId).not.toBe(first)
    expect(store.bundle).toContain(`jwt:${first}`)
    clock.advanceSeconds(DAY + DAY / 6 + 10)
    await server.rotator.step()
    expect(store.bundle).not.toContain(`jwt:${first}`)
    expect(server.metrics.counters.get('ca.manager.bundle.pruned')).toBe(1)
    expect((await issueJwt(server)).expiresAt).toBe(clock.nowSeconds() + 300)
  })

  test('keys that are no longer needed are closed, after a grace', async () => {
    const server = createTestServer({ store, clock })
    for (let i = 0; i < 40; i++) {
      await server.rotator.step()
      await server.rotator.step()
      // Three in use, three prepared, three in their grace, and the root's when it has just signed.
      expect(server.engine.keys.size).toBeLessThanOrEqual(10)
      clock.advanceSeconds(DAY / 6)
    }
    const handle = server.authorities.jwtIssuer(2).keyHandle
    expect(server.engine.keys.has(handle)).toBe(true)
  })

  test('a sealed root’s key is open only while it signs', async () => {
    const server = createTestServer({ store, clock })
    await server.rotator.step()
    for (let i = 0; i < 3; i++) {
      clock.advanceSeconds(31)
      await server.rotator.step()
    }
    expect(server.engine.keys.size).toBe(3)
  })
})

describe('restart', () => {
  test('goes on with the same authorities', async () => {
    const before = createTestServer({ store, clock })
    await before.rotator.step()
    const after = createTestServer({ store, clock, name: 'restarted' })
    await after.authorities.reload()
    expect(await after.rotator.step()).toEqual([])
    for (const cluster of [1, 2]) {
      expect(after.authorities.x509Issuer(cluster).authority).toEqual(
        before.authorities.x509Issuer(cluster).authority,
      )
    }
    const kid = (token: string) =>
      JSON.parse(Buffer.from(token.split('.')[0]!, 'base64url').toString()).kid
    expect(kid((await issueJwt(after)).token)).toBe(kid((await issueJwt(before)).token))
  })

  test('with another key-encryption key it does not start, and changes nothing', async () => {
    await createTestServer({ store, clock }).rotator.step()
    const kek = keyEncryptionKey(new Uint8Array(32).fill(8))
    const after = createTestServer({ store, clock, name: 'restarted', kek })
    const rows = await store.listAuthorities()
    await expect(after.authorities.reload()).rejects.toMatchObject({ code: 'key_unsealable' })
    await expect(after.rotator.step()).rejects.toMatchObject({ code: 'key_unsealable' })
    expect(await store.listAuthorities()).toEqual(rows)
    expect(() => after.authorities.jwtIssuer(2)).toThrow('server is initializing')
  })

  test('long after everything expired it starts under the same root (F13)', async () => {
    const before = createTestServer({ store, clock })
    await before.rotator.step()
    clock.advanceSeconds(DAY * 0.6)
    await before.rotator.step()
    const root = store.bundle.values().next().value
    clock.advanceSeconds(DAY * 5)
    const after = createTestServer({ store, clock, name: 'restarted' })
    await after.authorities.reload()
    expect(() => after.authorities.x509Issuer(2)).toThrowError(
      expect.objectContaining({ kind: 'unavailable', code: 'x509_authority_expired' }),
    )
    await after.rotator.step()
    expect(after.authorities.x509Issuer(2).authority.notAfter).toBe(clock.nowSeconds() + DAY)
    expect(store.bundle).toContain(root)
    expect(store.bundle.size).toBe(2)
  })
})

describe('custody memory', () => {
  test('each process has its own authorities, all of them published', async () => {
    const one = createTestServer({ store, clock, name: 'one', holder: 'one' })
    const two = createTestServer({ store, clock, name: 'two', holder: 'two' })
    await one.rotator.step()
    await two.rotator.step()
    expect(store.bundle.size).toBe(4)
    const rows = await store.listAuthorities()
    expect(rows.every((row) => row.sealed === undefined)).toBe(true)
    // The root lives ca_ttl too.
    expect(rows.every((row) => row.notAfter === NOW + DAY)).toBe(true)
    expect(one.authorities.x509Issuer(2).authority.holder).toBe('one')
    await one.authorities.reload()
    expect(one.authorities.ownRoots()).toHaveLength(2)
    const other = two.authorities.x509Issuer(1).authority.authorityId
    expect(one.authorities.isLiveIssuer(other)).toMatchObject({ leafIdClass: 'reserved' })
  })

  test('rotates root and intermediates together, and signs with the prepared root', async () => {
    const server = createTestServer({ store, clock, holder: 'one' })
    await server.rotator.step()
    for (let i = 0; i < 30; i++) {
      clock.advanceSeconds(DAY / 12)
      await server.rotator.step()
      const issuer = server.authorities.x509Issuer(2).authority
      expect(issuer.notAfter - clock.nowSeconds()).toBeGreaterThanOrEqual(DAY / 6 - 60)
      const root = (await store.listAuthorities()).find((row) => row.id === issuer.issuerId)
      expect(['active', 'old']).toContain(root!.state)
    }
  })

  test('a process that is gone leaves nothing behind once its authorities have expired', async () => {
    await createTestServer({ store, clock, name: 'one', holder: 'one' }).rotator.step()
    const two = createTestServer({ store, clock, name: 'two', holder: 'two' })
    for (let i = 0; i < 40; i++) {
      await two.rotator.step()
      clock.advanceSeconds(DAY / 12)
    }
    expect((await store.listAuthorities()).every((row) => row.holder === 'two')).toBe(true)
  })
})

describe('trouble', () => {
  test('a clock that jumped is an alarm, and nothing is rotated on that tick', async () => {
    const server = createTestServer({ store, clock })
    await server.rotator.step()
    clock.advanceSeconds(10)
    clock.jumpSeconds(20 * 3600)
    expect(await server.rotator.step()).toEqual([])
    expect(server.log.lines.at(-1)).toMatchObject({
      level: 'error',
      fields: { jump_seconds: 20 * 3600 },
    })
    // It stays where it was set to: then it is the time.
    clock.advanceSeconds(10)
    expect(await server.rotator.step()).toHaveLength(6)
  })

  test('a clock that goes back rotates nothing and keeps the keys', async () => {
    const server = createTestServer({ store, clock })
    await server.rotator.step()
    clock.jumpSeconds(-3600)
    expect(await server.rotator.step()).toEqual([])
    expect(await server.rotator.step()).toEqual([])
  })

  test('slewing and long pauses are no jump', async () => {
    const server = createTestServer({ store, clock })
    await server.rotator.step()
    clock.advanceSeconds(DAY / 2)
    clock.jumpSeconds(59)
    expect(await server.rotator.step()).toHaveLength(3)
  })

  test('a first start on a jumping clock still gets its authorities', async () => {
    const server = createTestServer({ store, clock })
    server.ledger.down = true
    await expect(server.rotator.step()).rejects.toMatchObject({ kind: 'unavailable' })
    clock.jumpSeconds(7 * DAY)
    server.ledger.down = false
    expect(await server.rotator.step()).toHaveLength(8)
  })

  test('without the ledger no CA certificate comes to be', async () => {
    const server = createTestServer({ store, clock })
    server.ledger.down = true
    await expect(server.rotator.step()).rejects.toMatchObject({ kind: 'unavailable' })
    await expect(server.rotator.step()).rejects.toMatchObject({ kind: 'unavailable' })
    expect(server.rotator.failedTicks()).toBe(2)
    expect(await store.listAuthorities()).toEqual([])
    server.ledger.down = false
    await server.rotator.step()
    expect(server.rotator.failedTicks()).toBe(0)
    clock.advanceSeconds(31)
    await server.rotator.step()
    clock.advanceSeconds(31)
    await server.rotator.step()
    expect(server.engine.keys.size).toBe(3)
  })

  test('a signature that fails leaves its ledger row with a second one, and no authority', async () => {
    const server = createTestServer({ store, clock })
    server.engine.tamper = (results) => ({ ...results, status: new Uint8Array([3]) })
    await expect(server.rotator.step()).rejects.toMatchObject({ code: 'ca_signing_failed' })
    expect(server.ledger.failures).toHaveLength(1)
    expect(await store.listAuthorities()).toEqual([])
  })

  test('the loop goes on after failures and ends with its signal', async () => {
    const server = createTestServer({ store, clock })
    server.ledger.down = true
    const stop = new AbortController()
    const running = server.rotator.run(stop.signal)
    await clock.untilArmed()
    expect(server.log.lines.at(-1)).toMatchObject({
      level: 'error',
      message: 'Unable to rotate authorities',
    })
    server.ledger.down = false
    clock.advanceMs(11_001)
    await clock.untilArmed()
    expect(server.rotator.failedTicks()).toBe(0)
    expect(server.authorities.jwtIssuer(2)).toBeDefined()
    stop.abort()
    await running
  })

  test('a plan that never settles ends the tick instead of spinning', async () => {
    const refusing = {
      ...store,
      insertPrepared: async () => {
        throw new SignetError('aborted', 'authority_already_prepared', 'taken')
      },
    }
    const server = createTestServer({ store: refusing, clock })
    await expect(server.rotator.step()).rejects.toMatchObject({
      code: 'rotation_does_not_settle',
    })
    expect(server.engine.keys.size).toBe(0)
  })
})
