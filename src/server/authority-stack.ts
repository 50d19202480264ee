/**
 * Everything about keys in one place, leaves first: signing engine, custody, signer, key ring, the
 * authorities as seen now, their rotator, and the issuance that stands on them.
 */
import { SignetError } from '../base/error.ts'
import type { Clock, Log, Metrics, Random } from '../base/ports.ts'
import { newUuid } from '../base/uuid.ts'
import { CLUSTER_CONTROL, CLUSTER_DEFAULT } from '../ca/authority/authority.ts'
import { type Authorities, createAuthorities } from '../ca/authority/issuers.ts'
import { createKeyRing } from '../ca/authority/key-ring.ts'
import type { Issuance } from '../ca/issuance.ts'
import { createX509Issuance } from '../ca/issue.ts'
import { createJwtIssuance } from '../ca/jwt/jwt-issuance.ts'
import { createRotator, type Rotator } from '../ca/rotation/rotator.ts'
import { type Custody, createMemoryCustody, createSealedCustody } from '../ca/signer/custody.ts'
import { createSigner } from '../ca/signer/custody-signer.ts'
import { gathering } from '../ca/signer/gather.ts'
import { loadKeyEncryptionKeys } from '../ca/signer/kek.ts'
import { createNodeEngine } from '../ca/signer/node-engine.ts'
import type { ServerConfig } from './config/types.ts'
import type { Datastore } from './datastore/datastore.ts'
import { metered } from './metered-stores.ts'

export interface AuthorityStack extends AsyncDisposable {
  readonly authorities: Authorities
  readonly rotator: Rotator
  readonly issuance: Issuance
}

export interface StackPorts {
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  readonly metrics: Metrics
}

/** Rejects when a key-encryption key is missing or wrong: such a server must not start. */
export async function createAuthorityStack(
  config: ServerConfig,
  ports: StackPorts,
  datastore: Pick<Datastore, 'authorities' | 'ledger'>,
): Promise<AuthorityStack> {
  const { clock, random } = ports
  const log = ports.log.with({ subsystem_name: 'ca_manager' })
  const { trustDomain } = config
  const custody = await createCustody(config, { ...ports, log }, datastore)
  const signer = metered(
    ports,
    { generateKey: ['server_key_manager.generate_key'] },
    createSigner({ engine: gathering(createNodeEngine()), custody }),
  )
  const keyRing = createKeyRing({ signer, clock, trustDomain: trustDomain.name })
  const isMemory = config.keyManager.kind === 'memory'
  const holder = isMemory ? newUuid(random) : ''
  const authorities = createAuthorities({ store: datastore.authorities, keyRing, clock, holder })
  const ca = { ...ports, log, issuers: authorities, signer, ledger: datastore.ledger, trustDomain }
  const rotator = createRotator({
    ...ca,
    store: datastore.authorities,
    authorities,
    keyRing,
    caSubject: config.caSubject,
    config: {
      caTtlSeconds: config.caTtlSeconds,
      rootTtlSeconds: isMemory ? config.caTtlSeconds : config.rootTtlSeconds,
      keyType: config.caKeyType,
      jwtKeyType: config.jwtKeyType,
      clusterIds: [CLUSTER_CONTROL.id, CLUSTER_DEFAULT.id],
      holder,
    },
  })
  return {
    authorities,
    rotator,
    issuance: createIssuance(config, ca),
    [Symbol.asyncDispose]: () => signer[Symbol.asyncDispose](),
  }
}

async function createCustody(
  config: ServerConfig,
  ports: StackPorts,
  datastore: Pick<Datastore, 'authorities'>,
): Promise<Custody> {
  if (config.keyManager.kind === 'memory') return createMemoryCustody()
  const [first, ...others] = await loadKeyEncryptionKeys({
    ...ports,
    keyFiles: config.keyManager.keyFiles,
    dataDir: config.dataDir,
    sealedKekIds: async () =>
      (await datastore.authorities.listAuthorities()).flatMap(({ sealed }) =>
        sealed === undefined ? [] : [sealed.kekId],
      ),
  })
  if (first === undefined) {
    throw new SignetError('failed_precondition', 'kek_missing', 'no key-encryption key')
  }
  return createSealedCustody([first, ...others], ports.random)
}

type IssuanceParts = Parameters<typeof createX509Issuance>[0] &
  Parameters<typeof createJwtIssuance>[0]

function createIssuance(
  config: ServerConfig,
  ca: Omit<IssuanceParts, 'ttls' | 'config'>,
): Issuance {
  const log = ca.log.with({ subsystem_name: 'ca' })
  const ttls = {
    x509SvidTtlSeconds: config.defaultX509SvidTtlSeconds,
    agentTtlSeconds: config.agentTtlSeconds,
    caTtlSeconds: config.caTtlSeconds,
  }
  return {
    ...createX509Issuance({ ...ca, log, ttls }),
    ...createJwtIssuance({
      ...ca,
      config: {
        trustDomain: config.trustDomain.name,
        issuer: config.jwtIssuer === '' ? undefined : config.jwtIssuer,
        ttlSecondsDefault: config.defaultJwtSvidTtlSeconds,
      },
    }),
  }
}
