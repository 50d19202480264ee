/**
 * `JoinTokenStore` on PostgreSQL. A token is a secret until it is redeemed, so nothing here holds
 * it: not its row (a SHA-256), not the audit record, not the alias entry.
 *
 * Differs from SPIRE: the alias entry of a token appears when the token is redeemed, not when it is
 * made, because its parent ID holds the token.
 */
import { createHash } from 'node:crypto'
import { toHex } from '../../base/bytes.ts'
import { SignetError } from '../../base/error.ts'
import { newUuid } from '../../base/uuid.ts'
import { selectorKey } from '../../spiffe/selector.ts'
import { SpiffeId } from '../../spiffe/spiffe-id.ts'
import { joinTokenAlias } from '../join-token-alias.ts'
import type { Actor, EntryDraft, JoinToken, JoinTokenStore } from '../ports.ts'
import { audit, type StoreContext } from './context.ts'
import type { Queryable } from './database.ts'
import { createEntries } from './entry/create-entries.ts'

/** Stands for the token in a stored alias; no SPIFFE ID can hold it. */
const TOKEN_PLACE = '{token}'

interface StoredAlias {
  readonly id: string
  readonly spiffeId: string
  /** With `TOKEN_PLACE` as its last segment. */
  readonly parentId: string
}

export function createJoinTokenStore(context: StoreContext): JoinTokenStore {
  const { db } = context
  return {
    createJoinToken: (token, alias, actor) =>
      db.transaction((tx) => insertToken(tx, context, token, alias, actor)),
    redeemJoinToken: (value) => db.transaction((tx) => redeem(tx, context, value)),
    pruneJoinTokens: async (now) =>
      (await db.query('delete from signet.join_token where expires_at < $1', [now])).count,
  }
}

async function insertToken(
  tx: Queryable,
  { random }: StoreContext,
  token: JoinToken,
  alias: EntryDraft | undefined,
  actor: Actor,
): Promise<void> {
  const hash = hashOf(token.value)
  const stored = alias && hideToken(alias, token.value, newUuid(random))
  const { count } = await tx.query(
    `insert into signet.join_token (value_hash, expires_at, cluster_id, alias)
     values ($1, $2, $3, $4::json) on conflict do nothing`,
    [hash, token.expiresAt, token.clusterId, stored === undefined ? null : JSON.stringify(stored)],
  )
  if (count === 0) {
    throw new SignetError('already_exists', 'join_token_taken', 'join token already exists')
  }
  const after = { expires_at: token.expiresAt, cluster_id: token.clusterId, alias: stored }
  await audit(tx, actor, { action: 'join_token.create', objectId: toHex(hash), after })
}

/** Only the shape that CreateJoinToken makes (api.md §7.1) can be rebuilt at redemption. */
function hideToken(alias: EntryDraft, value: string, newId: string): StoredAlias {
  const parentId = alias.parentId.toString()
  const [selector] = alias.selectors
  const fits =
    parentId.endsWith(`/${value}`) &&
    alias.selectors.length === 1 &&
    selector !== undefined &&
    selectorKey(selector) === `spiffe_id:${parentId}`
  if (!fits) {
    throw new SignetError('internal', 'bad_alias', 'alias is not that of the join token')
  }
  return {
    id: alias.id === '' ? newId : alias.id,
    spiffeId: alias.spiffeId.toString(),
    parentId: parentId.slice(0, -value.length) + TOKEN_PLACE,
  }
}

interface TokenRow {
  readonly expires_at: number
  readonly cluster_id: number
  readonly alias: StoredAlias | null
}

/** The row's deletion picks the one winner of any race (I7). */
async function redeem(
  tx: Queryable,
  { clock }: StoreContext,
  value: string,
): Promise<JoinToken | undefined> {
  const { rows } = await tx.query<TokenRow>(
    'delete from signet.join_token where value_hash = $1 returning expires_at, cluster_id, alias',
    [hashOf(value)],
  )
  const row = rows[0]
  if (row === undefined) return undefined
  const now = clock.nowSeconds()
  if (row.alias !== null && now < row.expires_at) {
    const actor: Actor = { kind: 'server', id: 'join_token', requestId: '' }
    await createEntries(tx, [aliasDraft(row.alias, value)], now, actor)
  }
  return { value, expiresAt: row.expires_at, clusterId: row.cluster_id }
}

function aliasDraft(alias: StoredAlias, value: string): EntryDraft {
  const parentId = SpiffeId.parse(alias.parentId.replace(TOKEN_PLACE, () => value))
  return joinTokenAlias(parentId, SpiffeId.parse(alias.spiffeId), alias.id)
}

function hashOf(value: string): Buffer {
  return createHash('sha256').update(value, 'utf8').digest()
}
