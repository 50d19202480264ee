/** Rules on the text of sources: banned calls, banned words, line length, module heads. */
import type { SourceFile } from './tree.ts'

const LINE_LENGTH_MAX = 100

interface Ban {
  readonly pattern: RegExp
  readonly use: string
  /** Looked for in comments too. */
  readonly inComments?: true
  /** Paths where it is at home. */
  readonly except: RegExp
}

const BANS: readonly Ban[] = [
  {
    pattern: /\bDate\.now\b|\bnew Date(\(\)|\b(?!\())|\bperformance\.now\b|\bhrtime\b/,
    use: 'Clock',
    except: /^src\/base\/(clock|log)/,
  },
  { pattern: /\bMath\.random\(/, use: 'Random', except: /^$/ },
  {
    pattern: /\b(setTimeout|setInterval)\b|\btimers\/promises\b|\bAbortSignal\.timeout\b/,
    use: 'Clock.sleep or Clock.every',
    except: /^src\/base\//,
  },
  {
    pattern: /\b(randomBytes|randomFill|randomFillSync|randomInt|getRandomValues|randomUUID)\b/,
    use: 'Random',
    except: /^src\/base\/random/,
  },
  {
    pattern: /\bprocess(\.(env|argv)\b|\[['"])|'(node:)?process'/,
    use: 'main.ts and cli/',
    except: /^src\/(cli\/|(server|agent)\/main\.ts)/,
  },
  { pattern: /\bconsole\.\w+\(/, use: 'Log', except: /^src\/cli\// },
  {
    pattern: /\bTODO\b(?!\(#\d+\))|\bFIXME\b|\bXXX\b/,
    use: 'TODO(#issue)',
    inComments: true,
    except: /^$/,
  },
  { pattern: /@ts-(ignore|nocheck|expect-error)/, use: 'a type', inComments: true, except: /^$/ },
  { pattern: /\bexport default\b/, use: 'a named export', except: /^$/ },
  { pattern: /^\s*(export\s+)?(const\s+)?enum\s/m, use: 'a union of literals', except: /^$/ },
]

/** Faults of a hand-written module below src/. */
export function sourceFaults(file: SourceFile): string[] {
  const faults: string[] = []
  const code = withoutComments(file.text)
  for (const ban of BANS) {
    const text = ban.inComments === true ? file.text : code
    if (!ban.except.test(file.path) && ban.pattern.test(text)) {
      faults.push(`${file.path}: ${ban.pattern.exec(text)?.[0].trim()} is banned, use ${ban.use}`)
    }
  }
  if (!/^(#![^\n]*\n)?\/\*\*/.test(file.text)) {
    faults.push(`${file.path}: starts with no /** head that says what it is */`)
  }
  faults.push(...lineFaults(file))
  return faults
}

/** Where a test lets time pass by itself: loads and rounds that need a pace, never a condition. */
const PACED =
  /^test\/(rigs|fakes)\/|^test\/interop\/rotation\.interop|^test\/fault\/(server\/(bad-input|database|privacy)|datastore\/database-faults)\./

/** A test waits for conditions, never for a guessed time. */
export function sleepFaults(file: SourceFile): string[] {
  if (PACED.test(file.path)) return []
  const found = /\bsetTimeout\(|\btimers\/promises\b|\b[sS]ystemClock\.sleep\(/.exec(
    withoutComments(file.text),
  )
  return found === null ? [] : [`${file.path}: ${found[0]} guesses a time, use until`]
}

function lineFaults(file: SourceFile): string[] {
  return file.text
    .split('\n')
    .map((line, index) => [line, index + 1] as const)
    .filter(([line]) => line.length > LINE_LENGTH_MAX && !/['"`]|https?:|\/.*\//.test(line))
    .map(([, number]) => `${file.path}:${number}: longer than ${LINE_LENGTH_MAX} columns`)
}

/** Comments become blanks; good enough for code that the formatter has shaped. */
export function withoutComments(text: string): string {
  return text
    .replace(/\/\*[\s\S]*?\*\//g, (c) => c.replace(/[^\n]/g, ' '))
    .replace(/(^|[^:'"`\\])\/\/[^\n]*/g, '$1')
}

/** Words that tie the project to the place where it was written. */
export function placeFaults(path: string, text: string): string[] {
  const words = [
    /(?<![\w.])\/(work|farm)\//,
    /(?<![\w.])\/root\//,
    /registry\.npmjs\.org|proxy\.golang\.org|pypi\.org|files\.pythonhosted\.org|deb\.debian\.org/,
  ]
  return words.flatMap((word) => {
    const match = word.exec(text)
    return match === null ? [] : [`${path}: names ${match[0]}`]
  })
}

/** A private key in the tree would be everybody's (CVE-2026-31837). */
export function keyFaults(path: string, text: string): string[] {
  const body = /-----BEGIN [A-Z ]*PRIVATE KEY-----(\s|\\n)*[A-Za-z0-9+/]{40}/
  return body.test(text) ? [`${path}: holds a private key`] : []
}
