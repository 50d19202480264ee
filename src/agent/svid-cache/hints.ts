/**
 * Hints are unique in an answer (SPIFFE Workload API §5.2.2): of several entries with one hint only
 * the oldest is served, the smaller entry ID breaking ties.
 */
import type { AuthorizedEntry } from '../entry.ts'

export function dedupeHints<T>(items: readonly T[], entryOf: (item: T) => AuthorizedEntry): T[] {
  const winners = new Map<string, AuthorizedEntry>()
  for (const item of items) {
    const entry = entryOf(item)
    if (entry.hint === '') continue
    const known = winners.get(entry.hint)
    if (known === undefined || isOlder(entry, known)) winners.set(entry.hint, entry)
  }
  return items.filter((item) => {
    const entry = entryOf(item)
    return entry.hint === '' || winners.get(entry.hint) === entry
  })
}

function isOlder(a: AuthorizedEntry, b: AuthorizedEntry): boolean {
  return a.createdAt !== b.createdAt ? a.createdAt < b.createdAt : a.id < b.id
}
