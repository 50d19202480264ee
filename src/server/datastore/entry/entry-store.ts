/** `EntryStore` on PostgreSQL (server/ports.ts). */

import type { Outcome } from '../../../base/error.ts'
import { LOAD_PAGE_ROWS } from '../../../base/limits.ts'
import { newUuid } from '../../../base/uuid.ts'
import type { RegistrationEntry } from '../../../spiffe/registration-entry.ts'
import type { EntryFilter, EntryPatch, EntryStore } from '../../ports.ts'
import type { StoreContext } from '../context.ts'
import { Conditions, queryCount, queryPage } from '../paging.ts'
import { violatedUnique } from '../postgres-error.ts'
import { createEntries } from './create-entries.ts'
import { deleteEntries, pruneEntries } from './delete-entries.ts'
import { createInterned, ENTRY_COLUMNS, type EntryRow, toEntry } from './row.ts'
import { entryNotFound, updateEntries } from './update-entries.ts'

const PRUNE_ROWS = 1_000
const SOURCE = {
  table: 'signet.entry',
  columns: ENTRY_COLUMNS,
  // SPIRE wraps this refusal for entries alone.
  refusalLead: 'datastore-sql: rpc error: code = InvalidArgument desc = ',
}

/** What the entry cache reads besides: everything at start, then what the change log names. */
export interface EntryFeed {
  loadAllEntries(): AsyncIterable<readonly RegistrationEntry[]>
  getEntries(ids: readonly string[]): Promise<readonly RegistrationEntry[]>
}

export function createEntryStore(context: StoreContext): EntryStore & EntryFeed {
  const { db, clock, random } = context
  return {
    createEntries: (drafts, actor) => {
      const named = drafts.map((draft) =>
        draft.id === '' ? { ...draft, id: newUuid(random) } : draft,
      )
      return db.transaction((tx) => createEntries(tx, named, clock.nowSeconds(), actor))
    },
    updateEntries: (patches, actor) =>
      inRounds(patches, (round) => updateTogether(context, round, actor)),
    deleteEntries: async (ids, actor) => {
      const gone = new Set(await db.transaction((tx) => deleteEntries(tx, ids, actor)))
      // The second of two equal ids finds nothing, as if the items were calls.
      return ids.map(
        (id): Outcome<string> =>
          gone.delete(id)
            ? { ok: true, value: id }
            : { ok: false, error: entryNotFound(), value: id },
      )
    },
    getEntry: async (id) => (await getEntries(context, [id]))[0],
    getEntries: (ids) => getEntries(context, ids),
    loadAllEntries: () => loadAllEntries(context),
    listEntries: (filter, page) => queryPage(db, SOURCE, conditions(filter), page, toEntry1),
    countEntries: (filter) => queryCount(db, SOURCE.table, conditions(filter)),
    pruneEntries: async (now, actor) => {
      for (let total = 0; ; ) {
        const n = await db.transaction((tx) => pruneEntries(tx, now, PRUNE_ROWS, actor))
        total += n
        if (n < PRUNE_ROWS) return total
      }
    },
  }
}

const toEntry1 = (row: EntryRow) => toEntry(row)

function conditions(filter: EntryFilter): Conditions {
  const out = new Conditions()
  if (filter.spiffeId !== undefined) out.add('spiffe_id = $', filter.spiffeId.toString())
  if (filter.parentId !== undefined) out.add('parent_id = $', filter.parentId.toString())
  if (filter.selectors !== undefined) out.addSet('selectors', filter.selectors)
  if (filter.federatesWith !== undefined) {
    // The index holds only entries that federate; an empty set matches no behaviour.
    out.addFixed("federates_with <> '{}'")
    out.addSet('federates_with', filter.federatesWith)
  }
  if (filter.hint !== undefined) out.add('hint = $', filter.hint)
  if (filter.downstream) out.addFixed('downstream')
  return out
}

async function getEntries(
  { db }: StoreContext,
  ids: readonly string[],
): Promise<readonly RegistrationEntry[]> {
  const { rows } = await db.query<EntryRow>(
    `select ${ENTRY_COLUMNS} from signet.entry where id = any($1)`,
    [ids.filter((id) => !id.includes('\0'))],
  )
  return rows.map(toEntry1)
}

/**
 * In pages by row id. An entry changed meanwhile may be seen before or after its change: the reader
 * has taken the change log's position before and will hear of it.
 */
async function* loadAllEntries({
  db,
}: StoreContext): AsyncGenerator<readonly RegistrationEntry[], void> {
  const shared = createInterned()
  for (let after = 0; ; ) {
    const { rows } = await db.query<EntryRow>(
      `select ${ENTRY_COLUMNS} from signet.entry where row_id > $1 order by row_id limit $2`,
      [after, LOAD_PAGE_ROWS],
    )
    if (rows.length > 0) yield rows.map((row) => toEntry(row, shared))
    if (rows.length < LOAD_PAGE_ROWS) return
    after = rows.at(-1)!.row_id
  }
}

/** Several patches of one entry are applied one after the other, in the order given. */
async function inRounds(
  patches: readonly EntryPatch[],
  apply: (round: readonly EntryPatch[]) => Promise<Outcome<RegistrationEntry>[]>,
): Promise<Outcome<RegistrationEntry>[]> {
  const outcomes: Outcome<RegistrationEntry>[] = new Array(patches.length)
  let open = patches.map((patch, index) => ({ patch, index }))
  while (open.length > 0) {
    const seen = new Set<string>()
    const round = open.filter(({ patch }) => !seen.has(patch.id) && seen.add(patch.id))
    open = open.filter((item) => !round.includes(item))
    const results = await apply(round.map(({ patch }) => patch))
    round.forEach(({ index }, i) => {
      outcomes[index] = results[i]!
    })
  }
  return outcomes
}

const TWIN_ATTEMPTS_MAX = 5

/** Two patches that make similar entries at once reach for one `twin` number: then one by one. */
async function updateTogether(
  { db }: StoreContext,
  patches: readonly EntryPatch[],
  actor: Parameters<EntryStore['updateEntries']>[1],
): Promise<Outcome<RegistrationEntry>[]> {
  const together = (some: readonly EntryPatch[]) =>
    db.transaction((tx) => updateEntries(tx, some, actor))
  try {
    return await together(patches)
  } catch (thrown) {
    if (violatedUnique(thrown) === undefined) throw thrown
  }
  const outcomes: Outcome<RegistrationEntry>[] = []
  for (const patch of patches) {
    for (let attempt = 1; ; attempt++) {
      try {
        outcomes.push(...(await together([patch])))
        break
      } catch (thrown) {
        if (violatedUnique(thrown) === undefined || attempt === TWIN_ATTEMPTS_MAX) throw thrown
      }
    }
  }
  return outcomes
}
