/** The issuance pipelines on real authorities, over rotations: what is issued verifies, always. */
import { generateKeyPairSync, type KeyObject } from 'node:crypto'
import { expect, test } from 'vitest'
import { toHex } from '../../../../src/base/bytes.ts'
import { createX509Issuance } from '../../../../src/ca/issue.ts'
import { createJwtIssuance } from '../../../../src/ca/jwt/jwt-issuance.ts'
import { importSpki } from '../../../../src/spiffe/jwks.ts'
import { validateJwtSvid } from '../../../../src/spiffe/jwt-svid.ts'
import { SpiffeId } from '../../../../src/spiffe/spiffe-id.ts'
import { parseCertificate } from '../../../../src/x509/certificate.ts'
import { createCertificateRequest } from '../../../../src/x509/csr.ts'
import { verifyChain } from '../../../../src/x509/path.ts'
import { FakeClock } from '../../../fakes/fake-clock.ts'
import { createMemoryAuthorityStore } from '../../../fakes/memory-authority-store.ts'
import { createTestServer } from '../../../rigs/test-authorities.ts'

const NOW = 1_800_000_000
const CA_TTL = 24 * 3600
const TTL = CA_TTL / 6
const CALLER = { callerId: 'uid:0', requestId: 'request-1' }

const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
const CSR = createCertificateRequest({
  privateKey,
  publicKey: new Uint8Array(publicKey.export({ type: 'spki', format: 'der' })),
})

function issuing(holder: string) {
  const clock = new FakeClock(NOW)
  const server = createTestServer({ store: createMemoryAuthorityStore(), clock, holder })
  const { authorities: issuers, signer, ledger, random, trustDomain, log, metrics } = server
  const ttls = { x509SvidTtlSeconds: TTL, agentTtlSeconds: TTL, caTtlSeconds: CA_TTL }
  const common = { clock, random, issuers, signer, ledger, metrics }
  const x509 = createX509Issuance({ ...common, trustDomain, ttls, log })
  const config = { trustDomain: 'example.org', issuer: undefined, ttlSecondsDefault: TTL }
  const jwt = createJwtIssuance({ ...common, config })
  return { clock, server, x509, jwt }
}

type Issuing = ReturnType<typeof issuing>

async function issueX509({ x509 }: Issuing, clusterId: number, path: string) {
  const [outcome] = await x509.issueX509Svids(
    [
      {
        profile: clusterId === 1 ? 'agent' : 'workload',
        clusterId,
        spiffeId: SpiffeId.parse(`spiffe://example.org${path}`),
        entryId: '',
        ttlSeconds: 0,
        dnsNames: [],
        csr: CSR,
        proof: false,
      },
    ],
    CALLER,
  )
  if (!outcome?.ok) throw outcome!.error
  return outcome.value
}

function keysOf({ server }: Issuing): Map<string, KeyObject> {
  const keys = server.authorities.rows().filter((row) => row.kind === 'jwt')
  return new Map(keys.map((row) => [row.authorityId, importSpki(row.publicKey)]))
}

test.each(['', 'server-1'])(
  'SVIDs of a sixth of the life are never cut and verify to their end, holder "%s"',
  async (holder) => {
    const it = issuing(holder)
    const live: { chain: readonly Uint8Array[]; token: string; until: number }[] = []
    for (let at = 0; at < 4 * CA_TTL; at += CA_TTL / 24) {
      await it.server.rotator.step()
      const svid = await issueX509(it, 2, '/workload')
      expect(svid.notAfter).toBe(it.clock.nowSeconds() + TTL)
      const { token, expiresAt } = await it.jwt.issueJwtSvid(
        {
          clusterId: 2,
          spiffeId: svid.spiffeId,
          entryId: '',
          audience: ['a'],
          ttlSeconds: 0,
          includeJti: true,
        },
        CALLER,
      )
      expect(expiresAt).toBe(svid.notAfter)
      live.push({ chain: svid.chain, token, until: svid.notAfter })
      checkAll(it, live)
      it.clock.advanceSeconds(CA_TTL / 24)
    }
  },
)

/** Whatever has not expired verifies against what is published now. */
function checkAll(
  { clock, server }: Issuing,
  live: readonly { chain: readonly Uint8Array[]; token: string; until: number }[],
): void {
  const now = clock.nowSeconds()
  const roots = server.authorities.ownRoots().map(parseCertificate)
  const keys = keysOf({ clock, server } as Issuing)
  for (const { chain, token } of live.filter((svid) => svid.until >= now)) {
    const [leaf, ...intermediates] = chain.map(parseCertificate)
    const [path] = verifyChain({ leaf: leaf!, intermediates, roots, now })
    const issuer = server.authorities.isLiveIssuer(toHex(path![1]!.subjectKeyId))
    expect(issuer).toMatchObject({ clusterId: 2, leafIdClass: 'workload' })
    const svid = validateJwtSvid(token, { audience: ['a'], now, keysOf: () => keys })
    expect(svid.spiffeId.toString()).toBe('spiffe://example.org/workload')
  }
}

test('agents are signed by control, and the clusters can’t sign each other’s', async () => {
  const it = issuing('')
  await it.server.rotator.step()
  const agent = await issueX509(it, 1, '/spire/agent/x509pop/a')
  const { authorityKeyId } = parseCertificate(agent.chain[0]!)
  expect(it.server.authorities.isLiveIssuer(toHex(authorityKeyId))).toMatchObject({
    clusterId: 1,
    leafIdClass: 'reserved',
  })
  await expect(issueX509(it, 2, '/spire/agent/x509pop/a')).rejects.toMatchObject({
    code: 'id_not_allowed',
  })
  await expect(issueX509(it, 1, '/workload')).rejects.toMatchObject({ code: 'id_not_allowed' })
})

test('nothing is issued before the first rotation and after the end of the last', async () => {
  const it = issuing('')
  await expect(issueX509(it, 2, '/workload')).rejects.toMatchObject({
    code: 'server_initializing',
  })
  await it.server.rotator.step()
  it.clock.advanceSeconds(CA_TTL)
  await expect(issueX509(it, 2, '/workload')).rejects.toMatchObject({
    code: 'x509_authority_expired',
  })
})
