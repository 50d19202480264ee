import { beforeAll, describe, expect, test } from 'vitest'
import {
  type ClientCertificatePolicy,
  verifyClientCertificate,
} from '../../../../src/server/listener/client-certificate.ts'
import { SpiffeId } from '../../../../src/spiffe/spiffe-id.ts'
import { TrustDomain } from '../../../../src/spiffe/trust-domain.ts'
import { parseCertificate } from '../../../../src/x509/certificate.ts'
import {
  type LeafShape,
  makeAuthority,
  makeLeaf,
  type TestAuthority,
  USAGE,
} from '../../../rigs/certificates.ts'

const OURS = 'spiffe://example.org'
const ADMIN = SpiffeId.parse('spiffe://partner.org/admin')
const NO_BUNDLE_ADMIN = SpiffeId.parse('spiffe://nobundle.org/admin')

let root: TestAuthority
let control: TestAuthority
let cluster: TestAuthority
let partner: TestAuthority
let stranger: TestAuthority

beforeAll(async () => {
  root = await makeAuthority('root', OURS)
  control = await makeAuthority('control', OURS, root)
  cluster = await makeAuthority('cluster', OURS, root)
  partner = await makeAuthority('partner', 'spiffe://partner.org')
  stranger = await makeAuthority('stranger', OURS)
})

function policy(): ClientCertificatePolicy {
  const bundles = new Map([
    ['example.org', [parseCertificate(root.der)]],
    ['partner.org', [parseCertificate(partner.der)]],
  ])
  return {
    trustDomain: TrustDomain.parse('example.org'),
    adminIds: [ADMIN, NO_BUNDLE_ADMIN],
    rootsOf: (name) => bundles.get(name),
    mayHaveIssued: (chain, id) =>
      Buffer.compare(chain[1]!.der, (id.path.startsWith('/spire/') ? control : cluster).der) === 0,
  }
}

const nowSeconds = () => Math.floor(Date.now() / 1000)

async function verify(issuer: TestAuthority, shape: LeafShape, now = nowSeconds()) {
  const leaf = await makeLeaf(issuer, shape)
  return verifyClientCertificate(leaf.chain, policy(), now)
}

test.each([
  ['a workload of its cluster', () => cluster, '/web'],
  ['an agent of the control cluster', () => control, '/spire/agent/x509pop/abc'],
])('accepts %s', async (_name, issuer, path) => {
  const identity = await verify(issuer(), { uris: [OURS + path], intermediates: [issuer()] })
  expect(identity.spiffeId.toString()).toBe(OURS + path)
  expect(identity.chain).toHaveLength(2)
})

test('accepts a foreign admin that chains to its own bundle', async () => {
  const identity = await verify(partner, { uris: [ADMIN.toString()] })
  expect(identity.spiffeId.equals(ADMIN)).toBe(true)
})

describe('refuses', () => {
  const id = `${OURS}/web`
  test.each<[string, string, () => TestAuthority, LeafShape]>([
    ['no URI', 'no_uri_san', () => cluster, {}],
    ['two URIs', 'several_uri_sans', () => cluster, { uris: [id, id] }],
    ['a malformed ID', 'bad_spiffe_id', () => cluster, { uris: ['spiffe://example.org/a/../b'] }],
    ['another scheme', 'bad_spiffe_id', () => cluster, { uris: ['https://example.org/web'] }],
    ['a CA as leaf', 'leaf_is_ca', () => cluster, { uris: [id], isCa: true }],
    [
      'a leaf that signs certificates',
      'leaf_signs_certificates',
      () => cluster,
      { uris: [id], keyUsage: USAGE.digitalSignature | USAGE.keyCertSign },
    ],
    [
      'a leaf that signs CRLs',
      'leaf_signs_crls',
      () => cluster,
      { uris: [id], keyUsage: USAGE.digitalSignature | USAGE.cRLSign },
    ],
    [
      'a foreign ID that is no admin',
      'unexpected_trust_domain',
      () => partner,
      { uris: ['spiffe://partner.org/other'] },
    ],
    ['an admin without a bundle', 'no_bundle', () => partner, { uris: [`${NO_BUNDLE_ADMIN}`] }],
    ["our ID from a partner's root", 'certificate_untrusted', () => partner, { uris: [id] }],
    ["a partner's ID from our root", 'certificate_untrusted', () => root, { uris: [`${ADMIN}`] }],
    ['an unknown root', 'certificate_untrusted', () => stranger, { uris: [id] }],
    [
      'an expired one',
      'certificate_expired',
      () => cluster,
      { uris: [id], notAfter: new Date(Date.now() - 1_000) },
    ],
    [
      'an agent forged by a workload cluster',
      'issuer_not_allowed',
      () => cluster,
      { uris: [`${OURS}/spire/agent/x`] },
    ],
    ['a workload of the control cluster', 'issuer_not_allowed', () => control, { uris: [id] }],
    ['one issued by the root itself', 'issuer_not_allowed', () => root, { uris: [id] }],
  ])('%s', async (_name, code, issuer, shape) => {
    const intermediates = [cluster, control]
    await expect(verify(issuer(), { ...shape, intermediates })).rejects.toMatchObject({ code })
  })

  test('a chain without its intermediate', async () => {
    await expect(verify(cluster, { uris: [id] })).rejects.toMatchObject({
      code: 'certificate_untrusted',
    })
  })

  test('a chain that is too long, before parsing it', () => {
    const junk = Array.from({ length: 9 }, () => new Uint8Array([1]))
    expect(() => verifyClientCertificate(junk, policy(), nowSeconds())).toThrow(
      expect.objectContaining({ code: 'chain_too_long' }),
    )
  })

  test('bytes that are no certificate', () => {
    expect(() => verifyClientCertificate([new Uint8Array([1])], policy(), 0)).toThrow(
      expect.objectContaining({ code: 'malformed_der' }),
    )
  })
})
