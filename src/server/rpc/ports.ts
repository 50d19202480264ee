/** What the handlers need, composed once in main.ts. */
import type { NodeAttestorServer } from '../../attestors/contract.ts'
import type { Clock, Random } from '../../base/ports.ts'
import type { Issuance } from '../../ca/issuance.ts'
import type { TrustDomain } from '../../spiffe/trust-domain.ts'
import type { Certificate } from '../../x509/certificate.ts'
import type { Connections } from '../connection.ts'
import type { BundleLookup, EntryLookup } from '../lookups.ts'
import type { AgentStore, BundleStore, EntryStore, JoinTokenStore } from '../ports.ts'
import type { LevelControl } from './logger/v1/handlers.ts'

interface ServerIdentity {
  /** The server's own certificates as verified: leaf first, root last. */
  verifiedChain(): Promise<readonly Certificate[]>
}

export interface HandlerPorts {
  readonly trustDomain: TrustDomain
  readonly clock: Clock
  readonly random: Random
  readonly entryStore: EntryStore
  readonly agentStore: AgentStore
  readonly joinTokenStore: JoinTokenStore
  readonly bundleStore: BundleStore
  readonly entries: EntryLookup
  readonly bundles: BundleLookup
  readonly issuance: Issuance
  readonly connections: Connections
  readonly identity: ServerIdentity
  /** Of the whole process. */
  readonly logLevel: LevelControl
  /** By type; `join_token` is built in. */
  readonly nodeAttestors: ReadonlyMap<string, NodeAttestorServer>
  /** Where an agent belongs when nothing else says so. */
  readonly defaultClusterId: number
  /** `experimental.agent_spiffe_id_as_selector` */
  readonly agentSpiffeIdAsSelector: boolean
  /** `disable_jwt_svids` */
  readonly jwtSvidsDisabled: boolean
}
