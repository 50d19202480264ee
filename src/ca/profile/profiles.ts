/**
 * Certificate profiles as data (api.md §8): what a certificate of each kind looks like, whoever
 * asks. Configuration may set lifetimes and CA subject, nothing else here.
 */
import type { ExtKeyUsage, KeyUsage } from '../../x509/oid.ts'
import type { LedgerKind } from '../ledger.ts'

export type SvidProfileName = 'workload' | 'agent' | 'server' | 'downstream_ca'
type CaProfileName = 'root' | 'intermediate'
export type ProfileName = SvidProfileName | CaProfileName

/**
 * Which SPIFFE IDs a profile may carry: `reserved` is everything under `/spire/`, `workload` every
 * other member, `trust_domain` the trust domain's own ID, which marks a CA.
 */
export type IdClass = 'reserved' | 'workload' | 'trust_domain'

export interface Profile {
  readonly name: ProfileName
  readonly idClass: IdClass
  readonly isCa: boolean
  /** Only with isCa: 0 lets the CA sign leaves alone; undefined sets no bound. */
  readonly pathLength: number | undefined
  readonly keyUsage: readonly KeyUsage[]
  readonly extKeyUsage: readonly ExtKeyUsage[]
  readonly allowsDnsNames: boolean
  readonly ledgerKind: LedgerKind
}

const LEAF = {
  isCa: false,
  pathLength: undefined,
  keyUsage: ['digitalSignature', 'keyEncipherment', 'keyAgreement'],
  extKeyUsage: ['serverAuth', 'clientAuth'],
} as const

const CA = {
  idClass: 'trust_domain',
  isCa: true,
  keyUsage: ['keyCertSign', 'cRLSign'],
  extKeyUsage: [],
  allowsDnsNames: false,
  ledgerKind: 'x509_ca',
} as const

export const PROFILES: Readonly<Record<ProfileName, Profile>> = {
  workload: {
    ...LEAF,
    name: 'workload',
    idClass: 'workload',
    allowsDnsNames: true,
    ledgerKind: 'x509_workload',
  },
  agent: {
    ...LEAF,
    name: 'agent',
    idClass: 'reserved',
    allowsDnsNames: false,
    ledgerKind: 'x509_agent',
  },
  server: {
    ...LEAF,
    name: 'server',
    idClass: 'reserved',
    allowsDnsNames: false,
    ledgerKind: 'x509_server',
  },
  downstream_ca: { ...CA, name: 'downstream_ca', pathLength: undefined },
  root: { ...CA, name: 'root', pathLength: undefined },
  // design.md §2: an intermediate signs its cluster's workloads and no further CA. The `nested`
  // cluster's, which signs downstream CAs, will pass its own path length when it comes.
  intermediate: { ...CA, name: 'intermediate', pathLength: 0 },
}
