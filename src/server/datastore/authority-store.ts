/**
 * `AuthorityStore` on PostgreSQL (ca/authority/authority.ts). Two partial unique indexes keep one
 * prepared and one active authority per slot, whatever races (I6); what must be published is in the
 * own bundle in the same transaction (I2).
 */
import { SignetError } from '../../base/error.ts'
import type { EpochSeconds } from '../../base/ports.ts'
import type {
  Authority,
  AuthorityKind,
  AuthorityState,
  AuthorityStore,
} from '../../ca/authority/authority.ts'
import type { SigningKeyType } from '../../ca/signer/port.ts'
import type { Actor } from '../ports.ts'
import { addJwt, addX509, insertBundle, lockBundle } from './bundle/row.ts'
import { bumpSequence } from './bundle/write-bundle.ts'
import { audit, logChange, type StoreContext } from './context.ts'
import type { Queryable } from './database.ts'
import { violatedUnique } from './postgres-error.ts'

/** Another server prepared one in this slot, or already used the generation that was planned. */
const STATE_MOVED_BY = ['authority_one_prepared', 'authority_generation_key']
const SERVER: Actor = { kind: 'server', id: 'authorities', requestId: '' }

interface AuthorityRow {
  readonly id: number
  readonly cluster_id: number
  readonly kind: AuthorityKind
  readonly holder: string
  readonly state: AuthorityState
  readonly authority_id: string
  readonly key_type: SigningKeyType
  readonly public_key: Buffer
  readonly certificate: Buffer | null
  readonly issuer_id: number | null
  readonly not_before: EpochSeconds
  readonly not_after: EpochSeconds
  readonly generation: string
  readonly kek_id: string | null
  readonly sealed_key: Buffer | null
}

export function createAuthorityStore(context: StoreContext): AuthorityStore {
  const { db, trustDomain } = context
  return {
    listAuthorities: async () => {
      const { rows } = await db.query<AuthorityRow>('select * from signet.authority order by id')
      return rows.map(toAuthority)
    },
    insertPrepared: async (authority) => {
      try {
        return await db.transaction((tx) => insertPrepared(tx, trustDomain, authority))
      } catch (thrown) {
        const violated = violatedUnique(thrown) ?? ''
        throw STATE_MOVED_BY.includes(violated) ? stateMoved(thrown) : thrown
      }
    },
    activate: (id) => db.transaction((tx) => activate(tx, id)),
    pruneAuthorities: (expiredBefore) =>
      db.transaction((tx) =>
        remove(tx, context, 'authority.prune', {
          where: "state in ('old', 'prepared') and not_after < $1",
          value: expiredBefore,
        }),
      ),
    dropHolder: async (holder) => {
      await db.transaction((tx) =>
        remove(tx, context, 'authority.drop', {
          where: "holder = $1 and holder <> ''",
          value: holder,
        }),
      )
    },
  }
}

async function insertPrepared(
  tx: Queryable,
  trustDomain: string,
  authority: Omit<Authority, 'id' | 'state'>,
): Promise<Authority> {
  const { rows } = await tx.query<AuthorityRow>(
    `insert into signet.authority (cluster_id, kind, holder, authority_id, key_type, public_key,
       certificate, issuer_id, not_before, not_after, generation, kek_id, sealed_key)
     values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
     returning *`,
    [
      authority.clusterId,
      authority.kind,
      authority.holder,
      authority.authorityId,
      authority.keyType,
      Buffer.from(authority.publicKey),
      authority.certificate === undefined ? null : Buffer.from(authority.certificate),
      authority.issuerId ?? null,
      authority.notBefore,
      authority.notAfter,
      authority.generation,
      authority.sealed?.kekId ?? null,
      authority.sealed === undefined ? null : Buffer.from(authority.sealed.blob),
    ],
  )
  const stored = toAuthority(rows[0]!)
  await publish(tx, trustDomain, stored)
  await record(tx, 'authority.prepare', stored)
  return stored
}

/** Roots and JWT keys are what peers trust; intermediates travel in chains. */
async function publish(tx: Queryable, trustDomain: string, authority: Authority): Promise<void> {
  if (authority.kind === 'x509_intermediate') return
  await insertBundle(tx, {
    trustDomain,
    x509Authorities: [],
    jwtAuthorities: [],
    refreshHintSeconds: 0,
    sequenceNumber: 0n,
  })
  const bundle = await lockBundle(tx, trustDomain)
  const rowId = bundle!.rowId
  const expiresAt = authority.notAfter
  if (authority.certificate !== undefined) {
    const element = { certificate: authority.certificate, tainted: false, expiresAt }
    await addX509(tx, rowId, [element], authority.id)
  } else {
    const { authorityId: keyId, publicKey } = authority
    await addJwt(tx, rowId, [{ keyId, publicKey, expiresAt, tainted: false }], authority.id)
  }
  await bumpSequence(tx, rowId)
  await logChange(tx, 'bundle', [trustDomain])
}

async function activate(tx: Queryable, id: number): Promise<void> {
  // The lock makes racers wait here and then find that the state has moved.
  const { rows } = await tx.query<AuthorityRow>(
    "select * from signet.authority where id = $1 and state = 'prepared' for update",
    [id],
  )
  const row = rows[0]
  if (row === undefined) throw stateMoved()
  const old = await tx.query<{ id: number }>(
    `update signet.authority set state = 'old', epoch = epoch + 1
     where cluster_id = $1 and kind = $2 and holder = $3 and state = 'active' returning id`,
    [row.cluster_id, row.kind, row.holder],
  )
  await tx.query("update signet.authority set state = 'active', epoch = epoch + 1 where id = $1", [
    id,
  ])
  await logChange(tx, 'authority', [String(id), ...old.rows.map((other) => String(other.id))])
  await audit(tx, SERVER, {
    action: 'authority.activate',
    objectId: row.authority_id,
    after: { id, replaced: old.rows.map((other) => other.id) },
  })
}

async function remove(
  tx: Queryable,
  { trustDomain }: StoreContext,
  action: string,
  which: { readonly where: string; readonly value: unknown },
): Promise<number> {
  const { rows } = await tx.query<AuthorityRow>(
    `delete from signet.authority where ${which.where} returning *`,
    [which.value],
  )
  if (rows.length === 0) return 0
  const bundle = await lockBundle(tx, trustDomain)
  const ids = rows.map((row) => row.id)
  let unpublished = 0
  for (const table of ['signet.bundle_x509_authority', 'signet.bundle_jwt_authority']) {
    unpublished += (await tx.query(`delete from ${table} where authority_id = any($1)`, [ids]))
      .count
  }
  if (bundle !== undefined && unpublished > 0) {
    await bumpSequence(tx, bundle.rowId)
    await logChange(tx, 'bundle', [trustDomain])
  }
  for (const row of rows) await record(tx, action, toAuthority(row))
  return rows.length
}

async function record(tx: Queryable, action: string, authority: Authority): Promise<void> {
  await logChange(tx, 'authority', [String(authority.id)])
  const { id, clusterId, kind, holder, notBefore, notAfter } = authority
  await audit(tx, SERVER, {
    action,
    objectId: authority.authorityId,
    after: { id, cluster_id: clusterId, kind, holder, not_before: notBefore, not_after: notAfter },
  })
}

function toAuthority(row: AuthorityRow): Authority {
  const { kek_id: kekId, sealed_key: blob } = row
  return {
    id: row.id,
    clusterId: row.cluster_id,
    kind: row.kind,
    holder: row.holder,
    state: row.state,
    authorityId: row.authority_id,
    keyType: row.key_type,
    publicKey: new Uint8Array(row.public_key),
    certificate: row.certificate === null ? undefined : new Uint8Array(row.certificate),
    issuerId: row.issuer_id ?? undefined,
    notBefore: row.not_before,
    notAfter: row.not_after,
    generation: row.generation,
    sealed: kekId === null || blob === null ? undefined : { kekId, blob: new Uint8Array(blob) },
  }
}

function stateMoved(cause?: unknown): SignetError {
  return new SignetError('aborted', 'authority_state_moved', 'authority was changed by another', {
    cause,
  })
}
