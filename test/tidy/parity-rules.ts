/**
 * What `test/parity.tsv` must be: every row of the specification once, with a status, and with tests
 * that exist wherever something is claimed. Pure; `parity.test.ts` feeds it the files.
 */

const STATUSES = ['done', 'later', 'differs'] as const
type Status = (typeof STATUSES)[number]

export interface ParityRow {
  readonly line: number
  readonly id: string
  readonly status: Status
  readonly detail: string
}

export interface TestReference {
  readonly path: string
  readonly title: string
}

/** Ids of `rows.txt`: one a line, comments by `#`. */
export function parseIds(text: string): string[] {
  return text.split('\n').filter((line) => line !== '' && !line.startsWith('#'))
}

export function parseParity(text: string): { rows: ParityRow[]; faults: string[] } {
  const rows: ParityRow[] = []
  const faults: string[] = []
  for (const [i, line] of text.split('\n').entries()) {
    if (line === '' || line.startsWith('#')) continue
    const [id, status, detail, ...rest] = line.split('\t')
    if (!id || !detail?.trim() || rest.length > 0) {
      faults.push(`line ${i + 1}: not id, status and detail`)
    } else if (!isStatus(status)) {
      faults.push(`line ${i + 1}: no status "${status}"`)
    } else rows.push({ line: i + 1, id, status, detail })
  }
  return { rows, faults }
}

function isStatus(text: string | undefined): text is Status {
  return (STATUSES as readonly (string | undefined)[]).includes(text)
}

/** Ids that are missing, unknown, or there twice. */
export function idFaults(ids: readonly string[], rows: readonly ParityRow[]): string[] {
  const faults = repeated(ids).map((id) => `rows.txt has "${id}" twice`)
  const known = new Set(ids)
  const there = rows.map(({ id }) => id)
  faults.push(...repeated(there).map((id) => `parity.tsv has "${id}" twice`))
  const present = new Set(there)
  faults.push(...ids.filter((id) => !present.has(id)).map((id) => `no row for "${id}"`))
  faults.push(...there.filter((id) => !known.has(id)).map((id) => `"${id}" is not in rows.txt`))
  return faults
}

function repeated(list: readonly string[]): string[] {
  const seen = new Set<string>()
  return list.filter((item) => seen.size === seen.add(item).size)
}

/** `test/unit/x.test.ts "title"`, as often as there are. A title never holds a double quote. */
export function referencesOf(detail: string): TestReference[] {
  const found = detail.matchAll(/(test\/\S+\.ts) "([^"]+)"/g)
  return [...found].map(([, path, title]) => ({ path: path!, title: title! }))
}

/**
 * Faults of references: a claim needs one, each must name a file that test runners take and a title
 * that is written in it as the title of a test or of a group of tests. A reason is no reference.
 */
export function referenceFaults(
  rows: readonly ParityRow[],
  textOf: (path: string) => string | undefined,
): string[] {
  return rows.flatMap((row) => {
    const references = referencesOf(row.detail)
    const faults: string[] = []
    if (row.status !== 'later' && references.length === 0) faults.push('names no test')
    if (row.status === 'later' && references.length > 0) faults.push('claims a test for later')
    if (row.status === 'differs' && /^test\//.test(row.detail)) faults.push('does not say why')
    for (const { path, title } of references) {
      const text = textOf(path)
      if (!/\.(test|contract|interop)\.ts$/.test(path)) faults.push(`${path} is no test`)
      else if (text === undefined) faults.push(`${path} is not there`)
      else if (!titlesOf(text).has(title)) faults.push(`${path} has no test "${title}"`)
    }
    return faults.map((fault) => `line ${row.line}, ${row.id}: ${fault}`)
  })
}

/** Titles given to test, describe and their each, as they are written. */
export function titlesOf(text: string): Set<string> {
  const found = text.matchAll(/[)\w\]>]\(\s*(?:'((?:\\.|[^'\\\n])+)'|"([^"\n]+)"|`([^`\n]+)`),\s/g)
  return new Set([...found].map((match) => match[1] ?? match[2] ?? match[3]!))
}

/** Things of ours that no row names. */
export function unlisted(kind: string, ours: Iterable<string>, ids: readonly string[]): string[] {
  const known = new Set(ids)
  return [...ours].filter((name) => !known.has(name)).map((name) => `no row for ${kind} ${name}`)
}
