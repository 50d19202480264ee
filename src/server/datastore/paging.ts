/** Pages by row id (api.md §5.3) and filters built of parameters only. */
import { SignetError } from '../../base/error.ts'
import { PAGE_SIZE_MAX } from '../../base/limits.ts'
import type { Page, PageRequest, SetFilter } from '../ports.ts'
import type { Queryable } from './database.ts'

/** Collects conditions and their parameters; texts are ours, values are never part of them. */
export class Conditions {
  readonly values: unknown[] = []
  readonly #texts: string[] = []

  /** `$` in `text` stands for the value. */
  add(text: string, value: unknown): void {
    this.values.push(value)
    this.#texts.push(text.replaceAll('$', `$${this.values.length}`))
  }

  addFixed(text: string): void {
    this.#texts.push(text)
  }

  /** The four match behaviours of api.md §5.4 on an array column without duplicates. */
  addSet(column: string, filter: SetFilter): void {
    const keys = [...new Set(filter.keys)]
    switch (filter.match) {
      case 'exact':
        this.add(`${column} @> $::text[] and ${column} <@ $::text[]`, keys)
        return
      case 'subset':
        // Overlap first: the index serves it, while "contained in" alone would read all of it.
        this.add(`${column} && $::text[] and ${column} <@ $::text[]`, keys)
        return
      case 'superset':
        this.add(`${column} @> $::text[]`, keys)
        return
      case 'any':
        this.add(`${column} && $::text[]`, keys)
        return
    }
  }

  get where(): string {
    return this.#texts.length === 0 ? '' : `where ${this.#texts.map((t) => `(${t})`).join(' and ')}`
  }
}

interface Paged {
  readonly row_id: number
}

interface Source {
  readonly table: string
  /** row_id among them. */
  readonly columns: string
  /** What comes before the text that refuses a token; nothing by default. */
  readonly refusalLead?: string
}

export async function queryPage<Row extends Paged, T>(
  db: Queryable,
  source: Source,
  conditions: Conditions,
  page: PageRequest,
  toValue: (row: Row) => T,
): Promise<Page<T>> {
  const clause = pageClause(conditions, page, source.refusalLead)
  const { rows } = await db.query<Row>(
    `select ${source.columns} from ${source.table} ${clause}`,
    conditions.values,
  )
  const last = rows.at(-1)
  return {
    rows: rows.map(toValue),
    nextToken: page.size > 0 && last !== undefined ? String(last.row_id) : '',
  }
}

/** `where … order by … limit …` of a page. */
export function pageClause(conditions: Conditions, page: PageRequest, refusalLead = ''): string {
  if (page.token !== '') conditions.add('row_id > $', parsePageToken(page.token, refusalLead))
  const limit = page.size > 0 ? `limit ${Math.min(Math.trunc(page.size), PAGE_SIZE_MAX)}` : ''
  return `${conditions.where} order by row_id ${limit}`
}

export async function queryCount(
  db: Queryable,
  table: string,
  conditions: Conditions,
): Promise<number> {
  const { rows } = await db.query<{ n: number }>(
    `select count(*) as n from ${table} ${conditions.where}`,
    conditions.values,
  )
  return rows[0]?.n ?? 0
}

/**
 * The last row there can be.
 * Differs from SPIRE: it takes 32 bits, our rows have 63.
 */
const ROW_ID_MAX = 9_223_372_036_854_775_807n

const TOKEN_CHARS_SHOWN = 64

function parsePageToken(token: string, refusalLead: string): string {
  // Longer ones are no numbers of ours, and reading megabytes of digits takes its time.
  const digits = /^0*(\d{1,19})$/.exec(token)?.[1]
  if (digits !== undefined && BigInt(digits) <= ROW_ID_MAX) return digits
  // SPIRE's text repeats the token; one of megabytes would not fit the answer's headers.
  const shown = token.length > TOKEN_CHARS_SHOWN ? `${token.slice(0, TOKEN_CHARS_SHOWN)}…` : token
  const text = `${refusalLead}could not parse token '${shown}'`
  throw new SignetError('internal', 'bad_page_token', text)
}
