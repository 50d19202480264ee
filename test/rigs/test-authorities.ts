/**
 * One server's authorities on a shared store: signer, key ring, issuers and rotator, wired as in
 * production, with fakes at the ports. Several of them on one store are several servers.
 */

import type { AuthorityStore } from '../../src/ca/authority/authority.ts'
import { createAuthorities } from '../../src/ca/authority/issuers.ts'
import { createKeyRing } from '../../src/ca/authority/key-ring.ts'
import type { RotationConfig } from '../../src/ca/authority/plan.ts'
import type { Ledger } from '../../src/ca/ledger.ts'
import { type CaSubject, DEFAULT_CA_SUBJECT } from '../../src/ca/profile/ca-plan.ts'
import { createRotator } from '../../src/ca/rotation/rotator.ts'
import { createMemoryCustody, createSealedCustody } from '../../src/ca/signer/custody.ts'
import { createSigner } from '../../src/ca/signer/custody-signer.ts'
import { keyEncryptionKey } from '../../src/ca/signer/kek.ts'
import { TrustDomain } from '../../src/spiffe/trust-domain.ts'
import type { FakeClock } from '../fakes/fake-clock.ts'
import { createMemoryLedger } from '../fakes/memory-ledger.ts'
import { createMemoryLog, createMemoryMetrics } from '../fakes/memory-log.ts'
import { createSeededRandom } from '../fakes/seeded-random.ts'
import { createSimpleEngine } from '../fakes/simple-engine.ts'

const TEST_KEK = keyEncryptionKey(new Uint8Array(32).fill(7))

export interface TestServerOptions {
  readonly store: AuthorityStore
  readonly clock: FakeClock
  /** Names the server's randomness; two servers need two. */
  readonly name?: string
  /** Custody `memory` with this holder; absent: sealed. */
  readonly holder?: string
  readonly kek?: typeof TEST_KEK
  readonly config?: Partial<RotationConfig>
  /** Absent: SPIRE's default. */
  readonly caSubject?: CaSubject
  /** Absent: one in memory. */
  readonly recordedIn?: Ledger
}

export type TestServer = ReturnType<typeof createTestServer>

export function createTestServer(options: TestServerOptions) {
  const { store, clock, holder = '' } = options
  const random = createSeededRandom(options.name ?? 'server')
  const trustDomain = TrustDomain.parse('example.org')
  const engine = createSimpleEngine()
  const custody =
    holder === '' ? createSealedCustody([options.kek ?? TEST_KEK], random) : createMemoryCustody()
  const signer = createSigner({ engine, custody })
  const keyRing = createKeyRing({ signer, clock, trustDomain: trustDomain.name })
  const authorities = createAuthorities({ store, keyRing, clock, holder })
  const ledger = createMemoryLedger()
  const log = createMemoryLog()
  const metrics = createMemoryMetrics()
  const config: RotationConfig = {
    caTtlSeconds: 24 * 3600,
    rootTtlSeconds: 3650 * 24 * 3600,
    keyType: 'ec-p256',
    jwtKeyType: 'ec-p256',
    clusterIds: [1, 2],
    holder,
    ...options.config,
  }
  const rotator = createRotator({
    store,
    authorities,
    keyRing,
    signer,
    ledger: options.recordedIn ?? ledger,
    clock,
    random,
    log,
    metrics,
    trustDomain,
    caSubject: options.caSubject ?? DEFAULT_CA_SUBJECT,
    config,
  })
  return {
    engine,
    signer,
    keyRing,
    authorities,
    ledger,
    log,
    metrics,
    random,
    trustDomain,
    rotator,
  }
}
