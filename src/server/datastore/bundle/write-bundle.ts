/** Creates, appends to, changes and replaces bundles (api.md §9.1). All run inside `tx`. */
import { assert } from '../../../base/assert.ts'
import { SignetError } from '../../../base/error.ts'
import type { Bundle } from '../../../spiffe/bundle.ts'
import type { Actor } from '../../ports.ts'
import { audit, logChange } from '../context.ts'
import type { Queryable } from '../database.ts'
import {
  addJwt,
  addX509,
  insertBundle,
  lockBundle,
  type StoredBundle,
  summarise,
  withExpiry,
} from './row.ts'

export async function appendBundle(
  tx: Queryable,
  bundle: Pick<Bundle, 'trustDomain' | 'x509Authorities' | 'jwtAuthorities'>,
  actor: Actor,
): Promise<Bundle> {
  const x509 = bundle.x509Authorities.map(withExpiry)
  await insertBundle(tx, { ...bundle, refreshHintSeconds: 0, sequenceNumber: 0n })
  const before = await locked(tx, bundle.trustDomain)
  const added =
    (await addX509(tx, before.rowId, x509)) +
    (await addJwt(tx, before.rowId, bundle.jwtAuthorities))
  if (added > 0) await bumpSequence(tx, before.rowId)
  return finish(tx, { action: 'bundle.append', before, changed: added > 0 }, actor)
}

export async function createBundle(tx: Queryable, bundle: Bundle, actor: Actor): Promise<Bundle> {
  const x509 = bundle.x509Authorities.map(withExpiry)
  if (!(await insertBundle(tx, bundle))) {
    throw new SignetError('already_exists', 'bundle_exists', 'bundle already exists')
  }
  const made = await locked(tx, bundle.trustDomain)
  await addX509(tx, made.rowId, x509)
  await addJwt(tx, made.rowId, bundle.jwtAuthorities)
  return finish(tx, { action: 'bundle.create', before: made, changed: true }, actor)
}

export async function updateBundle(
  tx: Queryable,
  patch: Pick<Bundle, 'trustDomain'> & Partial<Bundle>,
  actor: Actor,
): Promise<Bundle> {
  const before = await lockBundle(tx, patch.trustDomain)
  if (before === undefined) throw bundleNotFound()
  await replace(tx, before, patch)
  return finish(tx, { action: 'bundle.update', before, changed: true }, actor)
}

export async function setBundle(tx: Queryable, bundle: Bundle, actor: Actor): Promise<Bundle> {
  await insertBundle(tx, bundle)
  const before = await locked(tx, bundle.trustDomain)
  await replace(tx, before, bundle)
  return finish(tx, { action: 'bundle.set', before, changed: true }, actor)
}

/** Only the parts that are present. Elements of authorities of ours keep their tie. */
async function replace(tx: Queryable, before: StoredBundle, patch: Partial<Bundle>): Promise<void> {
  const x509 = patch.x509Authorities?.map(withExpiry)
  if (x509 !== undefined) {
    await tx.query('delete from signet.bundle_x509_authority where bundle_row_id = $1', [
      before.rowId,
    ])
    await addX509(tx, before.rowId, x509)
  }
  if (patch.jwtAuthorities !== undefined) {
    await tx.query('delete from signet.bundle_jwt_authority where bundle_row_id = $1', [
      before.rowId,
    ])
    await addJwt(tx, before.rowId, patch.jwtAuthorities)
  }
  await tx.query(
    `update signet.bundle set refresh_hint_seconds = coalesce($2, refresh_hint_seconds),
       sequence_number = coalesce($3, sequence_number) where row_id = $1`,
    [before.rowId, patch.refreshHintSeconds ?? null, patch.sequenceNumber?.toString() ?? null],
  )
}

/** I8: grows by one with every change that is not the caller's own numbering. */
export async function bumpSequence(tx: Queryable, bundleRowId: number): Promise<void> {
  await tx.query(
    'update signet.bundle set sequence_number = sequence_number + 1 where row_id = $1',
    [bundleRowId],
  )
}

async function locked(tx: Queryable, trustDomain: string): Promise<StoredBundle> {
  const bundle = await lockBundle(tx, trustDomain)
  assert(bundle !== undefined, 'the bundle was inserted above')
  return bundle
}

async function finish(
  tx: Queryable,
  done: { readonly action: string; readonly before: StoredBundle; readonly changed: boolean },
  actor: Actor,
): Promise<Bundle> {
  const { rowId: _, ...after } = await locked(tx, done.before.trustDomain)
  if (done.changed) {
    await logChange(tx, 'bundle', [after.trustDomain])
    await audit(tx, actor, {
      action: done.action,
      objectId: after.trustDomain,
      before: summarise(done.before),
      after: summarise(after),
    })
  }
  return after
}

export function bundleNotFound(): SignetError {
  return new SignetError('not_found', 'bundle_not_found', 'bundle not found')
}
