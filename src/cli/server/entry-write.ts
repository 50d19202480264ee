/** `entry create`, `entry update`, `entry delete` (features.md §3.2). */
import { goQuote } from '../../base/log-text.ts'
import { EntryService } from '../../wire/gen/spire/api/server/entry/v1/entry.ts'
import { Entry } from '../../wire/gen/spire/api/types/entry.ts'
import type { Status } from '../../wire/gen/spire/api/types/status.ts'
import type { CliEnv } from '../env.ts'
import { CliError, codeName, explain } from '../error.ts'
import { bool, type FlagValues, int64, list, output, presence, text } from '../flags.ts'
import { answer } from '../output/proto-json.ts'
import type { Runnable } from '../program.ts'
import { print, type Session } from '../session.ts'
import { serverCommand } from './command.ts'
import { entriesFromJson, idsFromJson } from './entry-json.ts'
import { entryBlock } from './entry-text.ts'
import { selectorFromText } from './selectors.ts'
import { idFromText } from './spiffe-id.ts'

const SERVER_ID_PATH = '/spire/server'
const INT32_MAX = 2n ** 31n - 1n

/** Flags that create and update share. */
const ENTRY_FLAGS = {
  entryID: text('ID of the entry'),
  parentID: text('SPIFFE ID of the parent'),
  spiffeID: text('SPIFFE ID of the entry'),
  x509SVIDTTL: int64('Lifetime of X509-SVIDs in seconds; 0 means the default of the server'),
  jwtSVIDTTL: int64('Lifetime of JWT-SVIDs in seconds; 0 means the default of the server'),
  data: text("File with entries as JSON, '-' for standard input; other flags are ignored then"),
  selector: list('Selector as type:value; may be repeated'),
  federatesWith: list('Trust domain to federate with; may be repeated'),
  admin: bool('Grants the identity access to the administrative APIs'),
  downstream: bool('The entry is for a downstream server'),
  storeSVID: bool('The SVID is stored through an SVIDStore plugin'),
  entryExpiry: int64('When the entry expires, in seconds since the epoch'),
  dns: list('DNS name in the SVID; may be repeated'),
  hint: text('Tells apart entries with the same SPIFFE ID'),
  output: output(),
}

const CREATE_FLAGS = {
  ...ENTRY_FLAGS,
  node: bool('The entry is for nodes: the parent is the server'),
  disableX509SVIDPrefetch: bool('Agents fetch the X509-SVID only when it is asked for'),
  jwtSVIDIncludeJTI: bool('JWT-SVIDs carry a unique jti claim and are not cached'),
}

const UPDATE_FLAGS = {
  ...ENTRY_FLAGS,
  disableX509SVIDPrefetch: presence('Agents fetch the X509-SVID only when it is asked for'),
  jwtSVIDIncludeJTI: presence('JWT-SVIDs carry a unique jti claim and are not cached'),
}

type EntryFlags = FlagValues<typeof UPDATE_FLAGS>

export const entryCreate: Runnable = serverCommand({
  name: 'entry create',
  flags: CREATE_FLAGS,
  run: async (session, flags) => {
    if (flags.data === '') checkCreate(flags)
    const entries =
      flags.data === ''
        ? [entryFromFlags(flags, flags.node)]
        : entriesFromJson(await readInput(session.env, flags.data))
    const method = EntryService.batchCreateEntry
    const response = await session.call(method, { entries, outputMask: undefined })
    withSent(response.results, entries)
    print(session.env, flags.output, [answer(method, response)], () =>
      printWritten(session.env, response.results, 'create'),
    )
  },
})

function checkCreate(flags: FlagValues<typeof CREATE_FLAGS>): void {
  if (flags.selector.length === 0) throw new CliError('at least one selector is required')
  if (flags.node && flags.federatesWith.length > 0) {
    throw new CliError('node entries can not federate')
  }
  if (flags.parentID === '' && !flags.node) {
    throw new CliError('a parent ID is required if the node flag is not set')
  }
  checkCommon(flags)
}

function checkCommon(flags: EntryFlags): void {
  if (flags.spiffeID === '') throw new CliError('a SPIFFE ID is required')
  if (flags.x509SVIDTTL < 0n) throw new CliError('a positive x509-SVID TTL is required')
  if (flags.jwtSVIDTTL < 0n) throw new CliError('a positive JWT-SVID TTL is required')
}

export const entryUpdate: Runnable = serverCommand({
  name: 'entry update',
  flags: UPDATE_FLAGS,
  run: async (session, flags) => {
    if (flags.data === '') checkUpdate(flags)
    const entries =
      flags.data === ''
        ? [await withKeptAttributes(session, flags, entryFromFlags(flags, false))]
        : entriesFromJson(await readInput(session.env, flags.data))
    const method = EntryService.batchUpdateEntry
    const response = await session.call(method, {
      entries,
      inputMask: undefined,
      outputMask: undefined,
    })
    withSent(response.results, entries)
    print(session.env, flags.output, [answer(method, response)], () =>
      printWritten(session.env, response.results, 'update'),
    )
  },
})

function checkUpdate(flags: EntryFlags): void {
  if (flags.entryID === '') throw new CliError('entry ID is required')
  if (flags.selector.length === 0) throw new CliError('at least one selector is required')
  if (flags.parentID === '') throw new CliError('a parent ID is required')
  checkCommon(flags)
}

/**
 * The wire has no mask for single attributes. So when only one of them is given, the other is read
 * from the stored entry first; with neither, both are cleared.
 */
async function withKeptAttributes(
  session: Session,
  flags: EntryFlags,
  entry: Entry,
): Promise<Entry> {
  if (!flags.disableX509SVIDPrefetch && !flags.jwtSVIDIncludeJTI) return entry
  const stored = await explain(
    'failed to fetch existing entry to merge additional attributes',
    session.call(EntryService.getEntry, { id: flags.entryID, outputMask: undefined }),
  )
  const kept = stored.additionalAttributes
  return {
    ...entry,
    additionalAttributes: {
      disableX509SvidPrefetch:
        flags.disableX509SVIDPrefetch || (kept?.disableX509SvidPrefetch ?? false),
      jwtSvidIncludeJti: flags.jwtSVIDIncludeJTI || (kept?.jwtSvidIncludeJti ?? false),
    },
  }
}

function entryFromFlags(flags: EntryFlags, isNode: boolean): Entry {
  const spiffeId = idFromText(flags.spiffeID)
  const parentId = isNode
    ? { trustDomain: spiffeId.trustDomain, path: SERVER_ID_PATH }
    : idFromText(flags.parentID)
  return Entry.fromPartial({
    id: flags.entryID,
    spiffeId,
    parentId,
    selectors: flags.selector.map(selectorFromText),
    x509SvidTtl: int32Of('X509 SVID TTL', flags.x509SVIDTTL),
    jwtSvidTtl: int32Of('JWT SVID TTL', flags.jwtSVIDTTL),
    federatesWith: [...flags.federatesWith],
    admin: flags.admin,
    downstream: flags.downstream,
    storeSvid: flags.storeSVID,
    expiresAt: flags.entryExpiry,
    dnsNames: [...flags.dns],
    hint: flags.hint,
    additionalAttributes:
      flags.disableX509SVIDPrefetch || flags.jwtSVIDIncludeJTI
        ? {
            disableX509SvidPrefetch: flags.disableX509SVIDPrefetch,
            jwtSvidIncludeJti: flags.jwtSVIDIncludeJTI,
          }
        : undefined,
  })
}

/** For values that travel as int32; the words of SPIRE's check. */
export function int32Of(what: string, value: bigint, shown = `int(${value})`): number {
  if (value > INT32_MAX || value < -INT32_MAX - 1n) {
    throw new CliError(`invalid value for ${what}: overflow converting ${shown} to int32`)
  }
  return Number(value)
}

async function readInput(env: CliEnv, path: string): Promise<string> {
  return path === '-' ? env.readStdin() : env.files.readText(path)
}

interface Result {
  status?: Status | undefined
  entry?: Entry | undefined
}

/** Failed items come back without their entry, so what was sent is shown. */
function withSent(results: readonly Result[], sent: readonly Entry[]): void {
  results.forEach((result, index) => {
    if (failureOf(result.status)) result.entry = sent[index]
  })
}

function printWritten(env: CliEnv, results: readonly Result[], verb: 'create' | 'update'): void {
  const failed = results.filter((result) => failureOf(result.status))
  for (const result of results) {
    if (!failureOf(result.status)) env.out(entryBlock(result.entry ?? Entry.fromPartial({})))
  }
  for (const { status, entry } of failed) {
    env.err(`Failed to ${verb} the following entry (${shown(status)}):\n`)
    env.err(entryBlock(entry ?? Entry.fromPartial({})))
  }
  if (failed.length > 0) throw new CliError(`failed to ${verb} one or more entries`)
}

function failureOf(status: Status | undefined): boolean {
  return status !== undefined && status.code !== 0
}

function shown(status: Status | undefined): string {
  return `code: ${codeName(status?.code ?? 0)}, msg: ${goQuote(status?.message ?? '')}`
}

export const entryDelete: Runnable = serverCommand({
  name: 'entry delete',
  flags: {
    entryID: text('ID of the entry to delete'),
    file: text("File with IDs as JSON, '-' for standard input"),
    output: output(),
  },
  run: async ({ env, call }, flags) => {
    if (flags.file === '' && flags.entryID === '') throw new CliError('an entry ID is required')
    const ids = flags.file === '' ? [flags.entryID] : idsFromJson(await readInput(env, flags.file))
    const method = EntryService.batchDeleteEntry
    const response = await call(method, { ids })
    print(env, flags.output, [answer(method, response)], () => printDeleted(env, response.results))
  },
})

function printDeleted(
  env: CliEnv,
  results: readonly { readonly id: string; readonly status?: Status | undefined }[],
): void {
  const failed = results.filter((result) => failureOf(result.status))
  const deleted = results.filter((result) => !failureOf(result.status))
  for (const { id } of deleted) env.out(`Deleted entry with ID: ${id}\n`)
  if (deleted.length > 0) env.out('\n\n')
  for (const { id, status } of failed) {
    env.err(`Failed to delete entry with ID ${id} (${shown(status)})\n`)
  }
  if (failed.length === 0) {
    env.out(`Deleted ${deleted.length} entries successfully`)
    return
  }
  env.out('\n\n')
  env.out(
    deleted.length === 0
      ? `Failed to delete ${failed.length} entries`
      : `Deleted ${deleted.length} entries successfully, but failed to delete ${failed.length} entries`,
  )
  throw new CliError('failed to delete one or more entries')
}
