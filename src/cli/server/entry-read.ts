/** `entry show` and `entry count` (features.md §3.2). */
import { goQuote } from '../../base/log-text.ts'
import {
  EntryService,
  type ListEntriesRequest_Filter,
} from '../../wire/gen/spire/api/server/entry/v1/entry.ts'
import type { Entry } from '../../wire/gen/spire/api/types/entry.ts'
import type { Selector } from '../../wire/gen/spire/api/types/selector.ts'
import type { SPIFFEID } from '../../wire/gen/spire/api/types/spiffeid.ts'
import { CliError, explain, messageOf } from '../error.ts'
import { bool, type FlagValues, list, output, text } from '../flags.ts'
import { plural } from '../output/go-text.ts'
import { answer } from '../output/proto-json.ts'
import type { Runnable } from '../program.ts'
import { print, type Session } from '../session.ts'
import { serverCommand } from './command.ts'
import { entryBlock } from './entry-text.ts'
import { matchFlag, matchFromText, selectorFromText } from './selectors.ts'
import { idFromText } from './spiffe-id.ts'

/** Entries of one ListEntries call. */
const PAGE_SIZE = 500

const FILTER_FLAGS = {
  parentID: text('Only entries with this parent'),
  spiffeID: text('Only entries with this SPIFFE ID'),
  downstream: bool('Only entries of downstream servers'),
  selector: list('Only entries with this selector, type:value; may be repeated'),
  federatesWith: list('Only entries that federate with this trust domain; may be repeated'),
  matchFederatesWithOn: matchFlag('trust domains'),
  matchSelectorsOn: matchFlag('selectors'),
  hint: text('Only entries with this hint'),
  output: output(),
}

export const entryShow: Runnable = serverCommand({
  name: 'entry show',
  flags: { entryID: text('Only the entry with this ID'), ...FILTER_FLAGS },
  run: async (session, flags) => {
    const isFiltered = flags.parentID !== '' || flags.spiffeID !== '' || flags.selector.length > 0
    if (flags.entryID !== '' && isFiltered) {
      throw new CliError("the -entryID flag can't be combined with others")
    }
    const entries =
      flags.entryID === ''
        ? await listEntries(session, filterOf(flags))
        : [await getEntry(session, flags.entryID)]
    sortEntries(entries)
    const response = { entries, nextPageToken: '' }
    print(session.env, flags.output, [answer(EntryService.listEntries, response)], () => {
      session.env.out(`Found ${entries.length} ${plural(entries.length, 'entry', 'entries')}\n`)
      for (const entry of entries) session.env.out(entryBlock(entry))
    })
  },
})

function getEntry(session: Session, id: string): Promise<Entry> {
  const call = session.call(EntryService.getEntry, { id, outputMask: undefined })
  return explain(`error fetching entry ID ${id}`, call)
}

async function listEntries(session: Session, filter: ListEntriesRequest_Filter): Promise<Entry[]> {
  const entries: Entry[] = []
  let pageToken = ''
  do {
    const request = { filter, outputMask: undefined, pageSize: PAGE_SIZE, pageToken }
    const page = await explain(
      'error fetching entries',
      session.call(EntryService.listEntries, request),
    )
    entries.push(...page.entries)
    pageToken = page.nextPageToken
  } while (pageToken !== '')
  return entries
}

export const entryCount: Runnable = serverCommand({
  name: 'entry count',
  flags: FILTER_FLAGS,
  run: async ({ env, call }, flags) => {
    const method = EntryService.countEntries
    const response = await call(method, { filter: filterOf(flags) })
    print(env, flags.output, [answer(method, response)], () => {
      env.out(`${response.count} registration ${plural(response.count, 'entry', 'entries')}\n`)
    })
  },
})

function filterOf(flags: FlagValues<typeof FILTER_FLAGS>): ListEntriesRequest_Filter {
  const filter: ListEntriesRequest_Filter = { byDownstream: flags.downstream }
  if (flags.parentID !== '') filter.byParentId = parsedId('parent ID', flags.parentID)
  if (flags.spiffeID !== '') filter.bySpiffeId = parsedId('SPIFFE ID', flags.spiffeID)
  if (flags.selector.length > 0) {
    const match = matchFromText(flags.matchSelectorsOn, unknownMatch(flags.matchSelectorsOn))
    filter.bySelectors = { selectors: flags.selector.map(parsedSelector), match }
  }
  if (flags.federatesWith.length > 0) {
    const mode = flags.matchFederatesWithOn
    const match = matchFromText(mode, unknownMatch(mode))
    filter.byFederatesWith = { trustDomains: [...flags.federatesWith], match }
  }
  if (flags.hint !== '') filter.byHint = flags.hint
  return filter
}

function unknownMatch(mode: string): string {
  return `match behavior ${goQuote(mode)} unknown`
}

function parsedId(what: string, id: string): SPIFFEID {
  try {
    return idFromText(id)
  } catch (thrown) {
    throw new CliError(`error parsing ${what} ${goQuote(id)}: ${messageOf(thrown)}`)
  }
}

function parsedSelector(selector: string): Selector {
  try {
    return selectorFromText(selector)
  } catch (thrown) {
    throw new CliError(`error parsing selectors: ${messageOf(thrown)}`)
  }
}

/** By SPIFFE ID, parent, TTLs, then selectors (fewer first), which are sorted themselves. */
function sortEntries(entries: Entry[]): void {
  for (const entry of entries) entry.selectors.sort(compareSelectors)
  entries.sort(
    (a, b) =>
      compareIds(a.spiffeId, b.spiffeId) ||
      compareIds(a.parentId, b.parentId) ||
      a.x509SvidTtl - b.x509SvidTtl ||
      a.jwtSvidTtl - b.jwtSvidTtl ||
      a.selectors.length - b.selectors.length ||
      a.selectors.reduce((order, s, i) => order || compareSelectors(s, b.selectors[i]!), 0),
  )
}

function compareTexts(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0
}

function compareSelectors(a: Selector, b: Selector): number {
  return compareTexts(a.type, b.type) || compareTexts(a.value, b.value)
}

function compareIds(a: SPIFFEID | undefined, b: SPIFFEID | undefined): number {
  return (
    compareTexts(a?.trustDomain ?? '', b?.trustDomain ?? '') ||
    compareTexts(a?.path ?? '', b?.path ?? '')
  )
}
