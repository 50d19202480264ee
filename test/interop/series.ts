/** Metrics as they are scraped, and what the parity table says is not among ours. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { type ParityRow, parseParity } from '../tidy/parity-rules.ts'
import { PROJECT_DIR } from './rig.ts'

export interface Scrape {
  /** By name without the product's prefix: `counter`, `gauge`, `summary`. */
  readonly types: ReadonlyMap<string, string>
  /** `name{label=value,…}`, labels sorted, of the host its name alone. */
  readonly series: ReadonlySet<string>
}

export async function scrape(port: number, prefix: string): Promise<Scrape> {
  const text = await (await fetch(`http://127.0.0.1:${port}/`)).text()
  const types = text.matchAll(new RegExp(`^# TYPE ${prefix}(\\w+) (\\w+)$`, 'gm'))
  const lines = text.matchAll(new RegExp(`^${prefix}(\\w+)\\{([^}]*)\\} (\\S+)$`, 'gm'))
  return {
    types: new Map([...types].map(([, name, type]) => [name!, type!])),
    series: new Set([...lines].map(([, name, labels]) => `${name}{${shownLabels(labels!)}}`)),
  }
}

function shownLabels(labels: string): string {
  const shown = [...labels.matchAll(/(\w+)="([^"]*)"/g)].map(([, label, value]) =>
    label === 'host' ? label : `${label}=${value}`,
  )
  return shown.sort().join(',')
}

/** What SPIRE shows and we do not, and rows that say `later` of what we do show. */
export function metricFaults(spire: Scrape, ours: Scrape): string[] {
  const rows = metricRows()
  const covering = (name: string) => rows.filter(({ pattern }) => pattern.test(name))
  const faults: string[] = []
  for (const [name, type] of spire.types) {
    const ourType = ours.types.get(name)
    const exceptions = covering(name).filter(({ row }) => row.status !== 'done')
    if (ourType === undefined) {
      if (exceptions.length === 0) faults.push(`${name} is not there, and no row says why`)
    } else if (ourType !== type) faults.push(`${name} is a ${ourType}, not a ${type}`)
    else if (exceptions.some(({ row }) => row.status === 'later')) {
      faults.push(`${name} is there, and its row says later`)
    }
  }
  return faults
}

/**
 * Series of SPIRE's that a metric of ours lacks. Not looked at: statuses, which are of an item where
 * ours are of its batch, and versions.
 */
export function labelFaults(spire: Scrape, ours: Scrape): string[] {
  const bare = (series: Iterable<string>) =>
    new Set([...series].map((one) => one.replace(/(?<=[{,])(?:status|version)=\w+,?/g, '')))
  const there = bare(ours.series)
  const families = [...ours.types.keys()]
  return [...bare(spire.series)].filter(
    (one) =>
      !there.has(one) && families.some((name) => one.replace(/(_sum|_count)?\{.*/, '') === name),
  )
}

function metricRows(): { row: ParityRow; pattern: RegExp }[] {
  const { rows } = parseParity(readFileSync(join(PROJECT_DIR, 'test', 'parity.tsv'), 'utf8'))
  return rows
    .filter(({ id }) => id.startsWith('metric '))
    .map((row) => {
      const name = row.id.slice('metric '.length).replaceAll('.', '_')
      return { row, pattern: new RegExp(`^${name.replace(/<\w+>/g, '\\w+')}(_elapsed_time)?$`) }
    })
}
