/** Entries may federate only with trust domains whose bundle is stored (api.md §7.3). */
import { SignetError } from '../../../base/error.ts'
import type { Queryable } from '../database.ts'

/**
 * Which of `names` have a bundle. The rows stay locked until commit, so that a bundle deleted
 * meanwhile either sees these entries or is not there for them.
 */
export async function lockBundles(
  tx: Queryable,
  names: ReadonlySet<string>,
): Promise<ReadonlySet<string>> {
  if (names.size === 0) return new Set()
  const { rows } = await tx.query<{ trust_domain: string }>(
    `select trust_domain from signet.bundle where trust_domain = any($1)
     order by trust_domain for key share`,
    [[...names]],
  )
  return new Set(rows.map((row) => row.trust_domain))
}

export function federatedBundleMissing(name: string): SignetError {
  return new SignetError(
    'internal',
    'federated_bundle_missing',
    `unable to find federated bundle "spiffe://${name}"`,
  )
}
