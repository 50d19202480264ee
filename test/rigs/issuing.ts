/** An issuing authority for tests: a root, an intermediate of it, and the parts of issuance. */
import { createPrivateKey, generateKeyPairSync, type KeyObject, sign } from 'node:crypto'
import type { X509Issuer } from '../../src/ca/issuer-source.ts'
import { DEFAULT_CA_SUBJECT, planIntermediate, planRoot } from '../../src/ca/profile/ca-plan.ts'
import { issuerFacts, signatureAlgorithmOfKey } from '../../src/ca/profile/issuer-facts.ts'
import { PROFILES, type SvidProfileName } from '../../src/ca/profile/profiles.ts'
import { type PlanContext, planContext } from '../../src/ca/profile/svid-plan.ts'
import type { SigningEngine, SigningKeyType } from '../../src/ca/signer/port.ts'
import { TrustDomain } from '../../src/spiffe/trust-domain.ts'
import { createCertificateRequest } from '../../src/x509/csr.ts'
import { SIGNATURE_ALGORITHMS } from '../../src/x509/oid.ts'
import {
  type CertificateTemplate,
  encodeCertificate,
  encodeTbsCertificate,
  type Validity,
} from '../../src/x509/template.ts'
import { createSeededRandom } from '../fakes/seeded-random.ts'

export const TD = TrustDomain.parse('example.org')
export const NOW = 1_800_000_000

export interface TestKey {
  readonly type: SigningKeyType
  readonly privateKey: KeyObject
  readonly publicKey: Uint8Array
}

export function newKey(type: SigningKeyType | 'ed25519' | 'ec-p521' = 'ec-p256'): TestKey {
  const pair = generate(type)
  return {
    type: type as SigningKeyType,
    privateKey: createPrivateKey({ key: pair.privateKey, format: 'der', type: 'pkcs8' }),
    publicKey: new Uint8Array(pair.publicKey),
  }
}

function generate(type: string) {
  const publicKeyEncoding = { type: 'spki', format: 'der' } as const
  const privateKeyEncoding = { type: 'pkcs8', format: 'der' } as const
  const encodings = { publicKeyEncoding, privateKeyEncoding }
  if (type === 'ed25519') return generateKeyPairSync('ed25519', encodings)
  if (type.startsWith('rsa-')) {
    return generateKeyPairSync('rsa', { ...encodings, modulusLength: Number(type.slice(4)) })
  }
  return generateKeyPairSync('ec', { ...encodings, namedCurve: `P-${type.slice(4)}` })
}

export function newCsr(key: TestKey = newKey()): Uint8Array {
  return createCertificateRequest(key)
}

export function signTemplate(template: CertificateTemplate, signer: KeyObject): Uint8Array {
  const tbs = encodeTbsCertificate(template)
  const { hash } = SIGNATURE_ALGORITHMS[template.signatureAlgorithm]
  return encodeCertificate(tbs, template.signatureAlgorithm, sign(hash, tbs, signer))
}

export interface TestHierarchy {
  readonly root: Uint8Array
  readonly rootKey: TestKey
  readonly issuer: X509Issuer
  readonly issuerKey: TestKey
}

export interface HierarchyOptions {
  readonly clusterId?: number
  readonly keyType?: SigningKeyType
  readonly validity?: Validity
  /** Where the intermediate's key is imported; without it the handle is 1. */
  readonly engine?: SigningEngine
  /** No path length, as the `nested` cluster's. */
  readonly nested?: boolean
  readonly seed?: string
}

export function newHierarchy(options: HierarchyOptions = {}): TestHierarchy {
  const { clusterId = 2, keyType = 'ec-p256', seed = 'hierarchy' } = options
  const validity = options.validity ?? { notBefore: NOW - 1000, notAfter: NOW + 86_400 }
  const random = createSeededRandom(`${seed}:${clusterId}`)
  const [rootKey, issuerKey] = [newKey(keyType), newKey(keyType)]
  const request = { trustDomain: TD, subject: DEFAULT_CA_SUBJECT, validity }
  const rootTemplate = planRoot(
    random,
    { ...request, publicKey: rootKey.publicKey },
    signatureAlgorithmOfKey(keyType),
  )
  const root = signTemplate(rootTemplate, rootKey.privateKey)
  const rootFacts = issuerFacts(x509Issuer(root, rootKey, 0, 0, []))
  const intermediateTemplate = planIntermediate(
    random,
    rootFacts,
    { ...request, publicKey: issuerKey.publicKey },
    options.nested ? PROFILES.downstream_ca : PROFILES.intermediate,
  )
  const certificate = signTemplate(intermediateTemplate, rootKey.privateKey)
  const pkcs8 = issuerKey.privateKey.export({ format: 'der', type: 'pkcs8' })
  const handle = options.engine?.importKey(pkcs8) ?? 1
  const issuer = x509Issuer(certificate, issuerKey, clusterId, handle, [certificate])
  return { root, rootKey, issuer, issuerKey }
}

export function contextOf(profile: SvidProfileName, issuer: X509Issuer): PlanContext {
  return planContext(TD, PROFILES[profile], issuerFacts(issuer), 3600)
}

function x509Issuer(
  certificate: Uint8Array,
  key: TestKey,
  clusterId: number,
  keyHandle: number,
  chain: readonly Uint8Array[],
): X509Issuer {
  return {
    keyHandle,
    chain,
    authority: {
      id: 100 + clusterId,
      clusterId,
      kind: 'x509_intermediate',
      holder: '',
      state: 'active',
      authorityId: 'test',
      keyType: key.type,
      publicKey: key.publicKey,
      certificate,
      issuerId: undefined,
      notBefore: 0,
      notAfter: 0,
      generation: 'test',
      sealed: undefined,
    },
  }
}
