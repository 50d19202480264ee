/**
 * Makes one authority that the planner asked for: key, and for X.509 the CA certificate, linted,
 * recorded in the ledger and checked with another implementation before it is stored.
 */
import { assert } from '../../base/assert.ts'
import { SignetError } from '../../base/error.ts'
import type { Random } from '../../base/ports.ts'
import type { TrustDomain } from '../../spiffe/trust-domain.ts'
import { type Certificate, parseCertificate } from '../../x509/certificate.ts'
import { verifyCertificateSignature } from '../../x509/path.ts'
import { publicKeySha256 } from '../../x509/spki.ts'
import {
  type CertificateTemplate,
  encodeCertificate,
  encodeTbsCertificate,
} from '../../x509/template.ts'
import {
  type Authority,
  type AuthorityStore,
  CLUSTER_CONTROL,
  CLUSTER_DEFAULT,
} from '../authority/authority.ts'
import { authorityIdOf } from '../authority/authority-id.ts'
import type { KeyRing } from '../authority/key-ring.ts'
import type { PrepareStep } from '../authority/plan.ts'
import type { Ledger, LedgerRow } from '../ledger.ts'
import { LintedBatch } from '../lint/linted-batch.ts'
import { type CaSubject, planIntermediate, planRoot } from '../profile/ca-plan.ts'
import { type IssuerFacts, issuerFacts, signatureAlgorithmOfKey } from '../profile/issuer-facts.ts'
import { PROFILES } from '../profile/profiles.ts'
import { type GeneratedKey, ITEM_STATUS, type KeyHandle, type Signer } from '../signer/port.ts'

/** A root's certificate is signed before its row has an id. */
const NO_AUTHORITY_ID = 0
const NO_BYTES = new Uint8Array(0)

export interface PrepareParts {
  readonly store: Pick<AuthorityStore, 'insertPrepared'>
  readonly keyRing: KeyRing
  readonly signer: Pick<Signer, 'sign'>
  readonly ledger: Ledger
  readonly random: Random
  readonly trustDomain: TrustDomain
  readonly caSubject: CaSubject
  readonly holder: string
}

type Draft = Omit<Authority, 'id' | 'state'>

/**
 * Rejects with `aborted` when another server was faster; the key made for nothing is then closed.
 */
export async function prepareAuthority(parts: PrepareParts, step: PrepareStep): Promise<Authority> {
  const { keyRing } = parts
  const { kind, clusterId, generation } = step
  const key = await keyRing.generate(step.keyType, { kind, clusterId, generation })
  try {
    const authority = await parts.store.insertPrepared(await draftOf(parts, step, key))
    keyRing.settle(key.publicKey)
    return authority
  } catch (error) {
    // Any other failure may have come after the commit: then the row decides what becomes of the
    // key.
    if (error instanceof SignetError && error.kind === 'aborted') keyRing.discard(key.publicKey)
    else keyRing.settle(key.publicKey)
    throw error
  }
}

async function draftOf(parts: PrepareParts, step: PrepareStep, key: GeneratedKey): Promise<Draft> {
  const common = {
    clusterId: step.clusterId,
    kind: step.kind,
    holder: parts.holder,
    keyType: step.keyType,
    publicKey: key.publicKey,
    issuerId: step.issuer?.id,
    authorityId: authorityIdOf(step.kind, key.publicKey),
    generation: step.generation,
    sealed: key.sealed,
  }
  if (step.kind === 'jwt') {
    const { notBefore, notAfter } = step
    return { ...common, certificate: undefined, notBefore, notAfter }
  }
  const certificate = await signCaCertificate(parts, step, key)
  return {
    ...common,
    certificate: certificate.der,
    notBefore: certificate.notBefore,
    notAfter: certificate.notAfter,
  }
}

async function signCaCertificate(
  parts: PrepareParts,
  step: PrepareStep,
  key: GeneratedKey,
): Promise<Certificate> {
  const { trustDomain, random } = parts
  const request = {
    trustDomain,
    subject: parts.caSubject,
    publicKey: key.publicKey,
    validity: { notBefore: step.notBefore, notAfter: step.notAfter },
  }
  if (step.kind === 'x509_root') {
    const algorithm = signatureAlgorithmOfKey(step.keyType)
    const template = planRoot(random, request, algorithm)
    return signTemplate(parts, step, template, undefined, key.handle)
  }
  assert(step.issuer?.certificate !== undefined, 'an intermediate has a root that signs it')
  const keyHandle = await parts.keyRing.handleFor(step.issuer)
  const facts = issuerFacts({ authority: step.issuer, keyHandle, chain: [] })
  const template = planIntermediate(random, facts, {
    ...request,
    cluster: clusterMark(step.clusterId),
  })
  return signTemplate(parts, step, template, facts, keyHandle)
}

/** Ids outlive names, so only the reserved clusters, whose names never change, are spelt out. */
function clusterMark(clusterId: number): string {
  const reserved = [CLUSTER_CONTROL, CLUSTER_DEFAULT].find(({ id }) => id === clusterId)
  return reserved?.name ?? String(clusterId)
}

async function signTemplate(
  parts: PrepareParts,
  step: PrepareStep,
  template: CertificateTemplate,
  issuer: IssuerFacts | undefined,
  issuerKey: KeyHandle,
): Promise<Certificate> {
  const { signatureAlgorithm } = template
  const tbs = encodeTbsCertificate(template)
  const linted = LintedBatch.ofCa(
    tbs,
    {
      trustDomain: parts.trustDomain,
      profile: issuer ? PROFILES.intermediate : PROFILES.root,
      signatureAlgorithm,
      issuer,
      leafIdClass: undefined,
    },
    issuerKey,
  )
  const row = ledgerRow(parts, step, template, linted.digest(0))
  // I3: the row first; CA certificates are too few for the signature not to wait for it.
  await parts.ledger.record([row])
  const results = await parts.signer.sign(linted.toSigningBatch(NO_BYTES))
  const signature = results.signatures[0]
  if (results.status[0] !== ITEM_STATUS.ok || !signature) {
    parts.ledger.recordFailure([row], 'signing failed')
    throw new SignetError('internal', 'ca_signing_failed', 'failed to sign CA certificate')
  }
  const certificate = parseCertificate(
    encodeCertificate(linted.message(0), signatureAlgorithm, signature),
  )
  const signedBy = step.issuer ? parseCertificate(step.issuer.certificate!) : certificate
  assert(verifyCertificateSignature(certificate, signedBy), 'a CA certificate verifies')
  return certificate
}

function ledgerRow(
  parts: PrepareParts,
  step: PrepareStep,
  template: CertificateTemplate,
  tbsSha256: Uint8Array,
): LedgerRow {
  return {
    kind: 'x509_ca',
    clusterId: step.clusterId,
    authorityId: step.issuer?.id ?? NO_AUTHORITY_ID,
    serialNumber: template.serialNumber,
    spiffeId: parts.trustDomain.id,
    entryId: '',
    callerId: `${parts.trustDomain.id}/spire/server`,
    requestId: `rotation:${step.reason}`,
    notBefore: template.validity.notBefore,
    notAfter: template.validity.notAfter,
    publicKeySha256: publicKeySha256(template.subjectPublicKeyInfo),
    tbsSha256,
  }
}
